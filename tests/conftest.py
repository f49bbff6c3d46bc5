"""Settings for every test."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lagrad", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lagrad")
