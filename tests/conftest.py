"""What all tests share: which splitiot they test, what may be skipped, models and data, Hypothesis' settings.

`make test` sets two variables. With SPLITIOT_TEST_INSTALLED=1 splitiot must be the installed wheel.
SPLITIOT_TEST_EXTRAS lists the extras that are promised to be installed (``litert,http``): a test that skips
for want of one of them fails. Where it is empty none may be installed, where it is unset nothing is promised.
"""

from __future__ import annotations

import doctest
import importlib.util
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import splitiot
from splitiot.errors import MissingDependencyError
from tests.served import Served
from tests.share import SEARCH, examples

# What can be imported where an extra is installed.
EXTRAS = {
    "cli": ("rich",),
    "http": ("starlette", "uvicorn"),
    "litert": ("ai_edge_litert",),
    "plot": ("matplotlib",),
    "telemetry": ("psutil",),
    "tensorflow": ("tensorflow",),
    "tflite": ("tflite_runtime",),
    "vision": ("PIL",),
}
PROMISED = os.environ.get("SPLITIOT_TEST_EXTRAS")
"""None where nothing is promised, "" in a run without extras."""

# No test has a deadline of its own: how long an example takes says nothing on a machine that does other things too.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("nightly", max_examples=examples(100), deadline=None, print_blob=True)
settings.load_profile(SEARCH)


def promised() -> set[str]:
    """Return the extras that must be installed here."""
    return {name for name in (PROMISED or "").split(",") if name}


def installed(extra: str) -> bool:
    """Whether everything that an extra brings can be imported."""
    for module in EXTRAS[extra]:
        try:
            if importlib.util.find_spec(module) is None:
                return False
        except ModuleNotFoundError:  # the package around it is missing
            return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("SPLITIOT_TEST_INSTALLED") == "1":
        where = Path(splitiot.__file__).resolve()
        if not where.is_relative_to(Path(sys.prefix).resolve()):
            raise pytest.UsageError(f"these tests are for the installed wheel, splitiot comes from {where}")
    if unknown := promised() - EXTRAS.keys():
        raise pytest.UsageError(f"SPLITIOT_TEST_EXTRAS names unknown extras: {', '.join(sorted(unknown))}")
    if missing := sorted(name for name in promised() if not installed(name)):
        raise pytest.UsageError(f"extras that should be installed are not: {', '.join(missing)}")
    if PROMISED == "" and (present := sorted(filter(installed, EXTRAS))):
        raise pytest.UsageError(f"this run is without extras, but these are installed: {', '.join(present)}")
    # Devices keep their profiles in the user's cache: not those of tests. matplotlib's fonts may stay.
    cache = tempfile.TemporaryDirectory(prefix="splitiot-tests-")
    config.add_cleanup(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name
    if config.cache is not None:
        os.environ.setdefault("MPLCONFIGDIR", str(config.cache.mkdir("matplotlib")))
    # Registered, since hooks of a conftest do not see the doctests of an installed package.
    config.pluginmanager.register(_Skips(), "splitiot-skips")


def pytest_report_header() -> str:
    return f"splitiot {splitiot.__version__} from {Path(splitiot.__file__).parent}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("extra"):
        for name in mark.args:
            if not installed(name):
                pytest.skip(f"needs splitiot[{name}]")


def broken_promise(skipped: BaseException) -> str | None:
    """Say which promised extra a test skips for want of, None when it skips for another reason.

    A missing extra ends the run at its start; this finds what is there but can't be imported, and misspelt
    names.
    """
    frames = [frame for frame, _ in traceback.walk_tb(skipped.__traceback__)]
    if not frames or frames[-1].f_code.co_name != "importorskip":
        return None
    wanted = str(frames[-1].f_locals["modname"])
    for extra in sorted(promised()):
        if any(f"{wanted}.".startswith(f"{module}.") for module in EXTRAS[extra]):
            return f"must not skip: splitiot[{extra}] is promised, but {wanted} can't be imported ({skipped})"
    return None


def wants_extra(error: BaseException) -> MissingDependencyError | None:
    """Return the error by which a doctest asked for an extra."""
    raised = error.exc_info[1] if isinstance(error, doctest.UnexpectedException) else None
    return raised if isinstance(raised, MissingDependencyError) else None


class _Skips:
    """No skip for want of a promised extra; where there are none, a doctest that asks for one is skipped."""

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        excinfo = report.call.excinfo
        if report.skipped and excinfo is not None and (why := broken_promise(excinfo.value)):
            report.outcome, report.longrepr = "failed", why
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self) -> Generator[None]:
        try:
            yield
        except pytest.skip.Exception as skipped:
            if why := broken_promise(skipped):
                pytest.fail(why, pytrace=False)
            raise

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        try:
            yield
        except pytest.skip.Exception as skipped:
            if why := broken_promise(skipped):
                pytest.fail(why, pytrace=False)
            raise
        except Exception as error:
            if PROMISED == "" and isinstance(item, pytest.DoctestItem) and (missing := wants_extra(error)):
                pytest.skip(str(missing))
            raise


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    folder = Path(value)
    assert folder.is_dir(), f"{variable} names {folder}, which is no folder"
    return folder


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """A folder of models to cut; its README.md says what to expect of each."""
    return _folder("SPLITIOT_TEST_MODELS")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """A folder of measured layer times and decisions of other systems."""
    return _folder("SPLITIOT_TEST_DATA")


@pytest.fixture(scope="session")
def field_dir() -> Path:
    """A folder of files with which users failed; its README.md says what is right for each."""
    return _folder("SPLITIOT_TEST_FIELD")


@pytest.fixture
def served() -> Iterator[Callable[..., Served]]:
    """Serve ASGI applications until the test ends."""
    made: list[Served] = []

    def make(app: Any, **options: Any) -> Served:
        made.append(Served(app, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
