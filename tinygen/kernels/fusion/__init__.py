"""Array programs: what a function does to arrays, recorded once, rearranged, and run again without Python in between.

Read `trace.py` (arrays that remember what is done to them), `words.py` and `lower.py` (the record in a language of four
words), `group.py` (which words share a loop), `generate.py` (the loop as Numba's source), `program.py` (memory, run).
"""

# Kernels whose specification is a loop like any other, once its steps share one: those of single numbers, and sums of
# such along rows. A trace records what they are made of.
SPELLED_OUT = frozenset(
    """
    exp log log1p tanh tanh_grad sigmoid sigmoid_grad softplus softplus_grad erf relu relu_grad reparameterise
    reparameterise_grad logsumexp logsumexp_grad softmax softmax_grad log_softmax log_softmax_grad bce_with_logits
    bce_with_logits_grad cross_entropy_with_logits cross_entropy_with_logits_grad
    gaussian_log_density gaussian_log_density_grad gaussian_kl gaussian_kl_grad
    """.split()
)
