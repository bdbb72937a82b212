"""What is broken, and how the tests run meanwhile: without shrinking a failing example, which need not be small.

Tests take Hypothesis's settings when they are imported, so these are loaded before any.
"""

from hypothesis import HealthCheck, Phase, settings

from tests import conftest

settings.register_profile(
    "mutation",
    parent=conftest.DEFAULT,
    phases=[Phase.explicit, Phase.generate],
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutation")
