"""How thoroughly Hypothesis draws, the rule that no tolerance may hide what it compares, and demos made short.

By default nearly the same quick examples are drawn every time: some hold constants that Hypothesis finds in the modules
which happen to be loaded. `pytest --hypothesis-profile=nightly` draws twenty times as many, and new ones each time.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = 20

settings.register_profile(
    "default",
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
DEFAULT = settings.get_profile("default")
settings.register_profile("nightly", parent=DEFAULT, max_examples=20 * EXAMPLES, derandomize=False)
settings.load_profile("default")

_assert_allclose = np.testing.assert_allclose


def _audited(actual, desired, rtol=1e-7, atol=0, **options):
    """NumPy's comparison, with a tolerance of at most a hundredth of the largest expected number.

    Where all terms cancel, the expected number is only rounding: then a tiny absolute tolerance is allowed.
    """
    numbers = np.abs(np.asarray(desired, np.float64))
    size = float(numbers[np.isfinite(numbers)].max(initial=0))
    single = np.float32 in (np.asarray(actual).dtype, np.asarray(desired).dtype)
    rounding = 1e-5 if single else 1e-11
    assert np.max(rtol, initial=0) <= 1 / 100, f"a tolerance of {rtol} proves nothing"
    assert np.max(atol, initial=0) <= max(size / 100, rounding), (
        f"a tolerance of {atol} beside numbers of {size}"
    )
    _assert_allclose(actual, desired, rtol=rtol, atol=atol, **options)


@pytest.fixture(autouse=True)
def no_tolerance_hides_what_it_compares(monkeypatch):
    monkeypatch.setattr(np.testing, "assert_allclose", _audited)


def _nobody_waits(cupyx: ModuleType) -> contextlib.AbstractContextManager:
    """A context in which it is an error to wait for the GPU, if this CuPy can still tell."""
    if not hasattr(cupyx, "allow_synchronize"):  # it is deprecated, and has no successor
        return contextlib.nullcontext()
    return cupyx.allow_synchronize(False)


USERS = "tinygen.kernels.cuda", "tinygen.kernels.fusion.launches"


@pytest.fixture(scope="module", params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request):
    """CuPy: the stand-in, and the real one where there is a GPU. `.counts` are the stand-in's; the real one has None.

    `with cuda.nobody_waits():` forbids copies from the GPU.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "stand-in":
            from tests import standin

            cupy, cupyx, counts = standin.cupy, standin.cupyx, standin.counts
            patch.setitem(sys.modules, "cupy", cupy)
            patch.setitem(sys.modules, "cupyx", cupyx)
            patch.setitem(sys.modules, "cupy.lib.stride_tricks", cupy.lib.stride_tricks)
        else:
            cupy, cupyx, counts = pytest.importorskip("cupy"), pytest.importorskip("cupyx"), None
            if not cupy.cuda.is_available():
                pytest.skip("CuPy finds no GPU")
        for name in USERS:  # imported anew, they use this CuPy
            sys.modules.pop(name, None)
        nobody_waits = functools.partial(_nobody_waits, cupyx)
        yield SimpleNamespace(cupy=cupy, cupyx=cupyx, counts=counts, nobody_waits=nobody_waits)
        for name in USERS:
            sys.modules.pop(name, None)


@pytest.fixture
def a_classifier(monkeypatch, tmp_path_factory):
    """A classifier of digits in the cache; it need not be good."""
    import tinygen as tg
    from tinygen.metrics import Classifier, save_classifier

    cache = tmp_path_factory.getbasetemp() / "data"
    monkeypatch.setenv("TINYGEN_DATA", str(cache))
    monkeypatch.setattr("tinygen.metrics.classifier.cache_folder", lambda: cache)
    if not cache.exists():
        save_classifier(Classifier(64, tg.random.default_rng(0)), "digits", 0.1)


@pytest.fixture
def short_demos(monkeypatch, a_classifier):
    """Demos that draw few samples."""
    from demos import autoencoder, density_network, iwae, monte_carlo, vae

    short = {"ROUND": 2, "JUDGED_CODES": 2000, "JUDGED": 500, "MOST": 2**8, "POINTS": 3}
    for name, value in short.items():
        monkeypatch.setattr(density_network, name, value)
    monkeypatch.setattr(monte_carlo, "REPEATS", 10)
    monkeypatch.setattr(vae, "DRAWS", 20)
    monkeypatch.setattr(iwae, "SAMPLES", 100)
    monkeypatch.setattr(autoencoder, "DRAWN", 100)
