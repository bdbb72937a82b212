"""Every library that is timed does the same work: from the same weights, its losses are tinygen's."""

import pytest

from benchmarks.kits import KITS
from benchmarks.steps import STEPS

MODULES = {
    "torch": "torch",
    "torch-fused": "torch",
    "jax": "jax",
    "autograd": "autograd",
    "mygrad": "mygrad",
    "numpy": "numpy",
}
DETERMINISTIC = [name for name in STEPS if "MLP" in name]
TOLERANCE = {
    "VAE": 1.0,
    "IWAE": 2.0,
    "density": 0.01,
    "GAN": 0.05,
    "WGAN": 0.05,
}  # of other random numbers


@pytest.mark.parametrize("peer", MODULES)
@pytest.mark.parametrize("name", STEPS)
def test_a_peer_loses_as_tinygen_does(name, peer):
    pytest.importorskip(MODULES[peer])
    kits = KITS["tinygen"](), KITS[peer]()
    try:
        mine, theirs = (kit.make(STEPS[name]) for kit in kits)
    except NotImplementedError:
        assert STEPS[name].differentiates_twice
        assert peer in ("mygrad", "numpy")
        return
    losses = [(mine(), theirs()) for _ in range(4)]
    if name in DETERMINISTIC:
        for a, b in losses:
            assert a == pytest.approx(b, rel=1e-4)
        assert losses[-1][0] < losses[0][0]
    else:
        kind = next(
            kind for kind in sorted(TOLERANCE, key=len, reverse=True) if name.startswith(kind)
        )
        assert losses[0][0] == pytest.approx(losses[0][1], abs=TOLERANCE[kind])


@pytest.mark.parametrize("name", STEPS)
def test_steps_in_numpy_by_hand_end_where_tinygens_do(name):
    """The same generator from the same seed: the same random numbers, so the same weights after some steps."""
    if STEPS[name].differentiates_twice:
        return
    mine, theirs = (KITS[kit]().make(STEPS[name]) for kit in ("tinygen", "numpy"))
    for _ in range(10):
        assert mine() == pytest.approx(theirs(), rel=1e-3)
