"""How thoroughly Hypothesis draws: the same quick examples every time by default, twenty times as many by
`pytest --hypothesis-profile=nightly`, other ones each time.
"""

from hypothesis import HealthCheck, settings

EXAMPLES = 20

settings.register_profile(
    "default",
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly", parent=settings.get_profile("default"), max_examples=20 * EXAMPLES, derandomize=False
)
settings.load_profile("default")
