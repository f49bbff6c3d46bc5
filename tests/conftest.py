"""Settings for every test, and packages that are taken to be missing: `--without llvmlite`."""

import importlib.util
import sys

from hypothesis import HealthCheck, settings

settings.register_profile(
    "lagrad", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("lagrad")


def pytest_addoption(parser):
    parser.addoption("--without", default="", help="packages that are taken to be missing")


def pytest_configure(config):
    missing = {name for name in config.getoption("--without").split(",") if name}
    find = importlib.util.find_spec
    if missing:
        importlib.util.find_spec = lambda name, *rest: (
            None if name in missing else find(name, *rest)
        )
        sys.modules.update(dict.fromkeys(missing))
