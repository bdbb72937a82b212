"""Where NumPy's generator is: PCG64's state as the numbers that kernels take, and as the dict that NumPy does."""

import numpy as np

# The state, the increment, and the 32 bits that are left of the last step, whose second half was not drawn; or None.
Position = tuple[int, int, int | None]


def position(bits: np.random.PCG64) -> Position:
    found = bits.state
    inner = found["state"]
    return inner["state"], inner["inc"], found["uinteger"] if found["has_uint32"] else None


def move(bits: np.random.PCG64, state: int, increment: int, left: int | None) -> None:
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": state, "inc": increment},
        "has_uint32": int(left is not None),
        "uinteger": left or 0,
    }
