"""Fusion: the array operations of a function, recorded once, merged into few loops, and replayed.

Read it in the order of its passes. For np.exp(x) + 1 and x of shape (3, 4), each gives the next one:

    trace.py        the calls np.exp(x) and np.add(_, 1), recorded while they run
    lower.py        Pointwise("exp", [x], y) and Pointwise("add", [y, 1.0], z), one of four kinds (`instructions.py`)
    group.py        one loop nest of 3 rows, 4 columns and the statements exp and add
    generate.py     its source for Numba, with e0 = scalar.exp(l0) and e1 = e0 + real(1.0) for each element
    cache.py        the compiled loop, kept on disk
    memory.py       no buffer: y stays inside the loop, and z is new in each run
    program.py      one call of the loop, with x and z among its arguments

On a GPU, `launches.py` takes the place of `generate.py`: a nest becomes a few of CuPy's kernels, here a single one.
"""

# Kernels that reduce rows. A trace records such a kernel as the steps of its specification, not as one step: once
# these share a loop with each other and with the operations around them, they are as fast as the kernel.
SPELLED_OUT = frozenset(
    """
    logsumexp logsumexp_grad softmax softmax_grad log_softmax log_softmax_grad bce_with_logits
    bce_with_logits_grad cross_entropy_with_logits cross_entropy_with_logits_grad
    gaussian_log_density gaussian_log_density_grad gaussian_kl gaussian_kl_grad
    """.split()
)
# But not on a GPU, where its kernels do not check the labels: a step of the specification would.
LABELLED = ("cross_entropy_with_logits", "cross_entropy_with_logits_grad")
