"""What all kits start from: the same weights, and the same learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.steps import Step

Call = Callable[[], object]
RATE = 1e-3


def first_weights(step: Step) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """The layers (weight (n_in, n_out), bias) of each network, the same for all kits."""
    rng = np.random.default_rng(0)
    return {
        name: [
            (
                rng.uniform(-1, 1, (n, m)).astype(np.float32) / np.float32(np.sqrt(n)),
                rng.uniform(-1, 1, m).astype(np.float32) / np.float32(np.sqrt(n)),
            )
            for n, m in sizes
        ]
        for name, sizes in step.networks.items()
    }
