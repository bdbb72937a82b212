"""Array programs: what a function does to arrays, recorded once, rearranged, and run again without Python in between.

Read `trace.py` (arrays that remember what is done to them), `words.py` and `lower.py` (the record in a language of four
words), `group.py` (which words share a loop), `generate.py` (the loop as Numba's source), `cache.py` (loops on disk),
`program.py` (memory, run).
"""

# Kernels that sum along rows. A trace does not record one as a step, but the steps that its specification is made of:
# once these share a loop, also with what comes before and after, they are as fast.
SPELLED_OUT = frozenset(
    """
    logsumexp logsumexp_grad softmax softmax_grad log_softmax log_softmax_grad bce_with_logits
    bce_with_logits_grad cross_entropy_with_logits cross_entropy_with_logits_grad
    gaussian_log_density gaussian_log_density_grad gaussian_kl gaussian_kl_grad
    """.split()
)
