"""The position of NumPy's generator: PCG64's state, as the numbers that kernels take or the dict that NumPy takes."""

import numpy as np

# The state, the increment, and the second 32 bits of the last step if they have not been drawn yet, else None.
Position = tuple[int, int, int | None]


def position(bits: np.random.PCG64) -> Position:
    found = bits.state
    inner = found["state"]
    return inner["state"], inner["inc"], found["uinteger"] if found["has_uint32"] else None


def move(bits: np.random.PCG64, state: int, increment: int, left: int | None) -> None:
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": increment},
        "has_uint32": left is not None,
        "uinteger": left or 0,
    }
