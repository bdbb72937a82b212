"""Fusion: the array operations of a function, recorded once, merged into few loops, and replayed.

Read it in the order of its passes: `trace.py` records the operations; `instructions.py` and `lower.py` say the same in
four instructions; `group.py` fuses instructions into loop nests; `generate.py` writes a nest as source for Numba;
`cache.py` keeps compiled loops on disk; `program.py` plans memory and runs the result.
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
