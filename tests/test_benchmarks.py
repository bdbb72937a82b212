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
        assert (peer, STEPS[name].differentiates_twice) == ("mygrad", True)
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
