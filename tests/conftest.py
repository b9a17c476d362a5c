"""What every test run shares: the rule on skips, and one seed for all randomness."""

import gc
import os
import random
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.db import connection

from donations import processors
from tests.house import House, made_once
from tests.sandbox import Sandboxed, sandbox

MADE_TO_BE_FLUSHED = {
    "postgresql": [
        "DROP TRIGGER ledger_no_truncate ON donations_ledgerentry",
        "DROP TRIGGER statements_no_truncate ON donations_monthstatement",
    ],
    "sqlite": ["DROP TRIGGER ledger_no_delete", "DROP TRIGGER statements_no_delete"],
}
IN_CI = os.environ.get("CI") == "true"

# No database of failures: what a run found stands in its output, and repeats with its seed.
hypothesis.settings.register_profile("default", deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, database=None, print_blob=True, derandomize=False)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed before Hypothesis reads it and before xdist starts workers, which inherit our environment."""
    seed = os.environ.setdefault("TEST_SEED", str(random.SystemRandom().randrange(2**32)))
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = int(seed)
    hypothesis.settings.load_profile("ci" if IN_CI else "default")


def pytest_report_header() -> str:
    return f"seed: {os.environ['TEST_SEED']} (TEST_SEED={os.environ['TEST_SEED']} repeats this run's random choices)"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that the run's seed and the test's name decide: the same alone, in any order, in any worker."""
    return random.Random(f"{os.environ['TEST_SEED']} {request.node.nodeid}")


@pytest.fixture
def box(tmp_path: Path, settings: Any) -> Iterator[Sandboxed]:
    """A sandbox that delivers nothing, as the processor of this site."""
    with sandbox(tmp_path) as running:
        settings.STRIPE_API_BASE = running.url
        processors.get.cache_clear()
        yield running
    processors.get.cache_clear()


@pytest.fixture
def go_live(settings: Any) -> Iterator[Callable[[], None]]:
    """What gives the same site, with its database, a live key."""

    def go() -> None:
        settings.STRIPE_SECRET_KEY, settings.LIVEMODE = "sk_live_1", True
        processors.get.cache_clear()

    yield go
    processors.get.cache_clear()


@pytest.fixture(scope="session")
def of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def prepared(of_the_run: Path) -> Path:
    """An SQLite file with all tables and the demo campaign."""
    file = of_the_run / "prepared.sqlite3"
    made_once(of_the_run / "prepared", House(of_the_run, database_url=f"sqlite:///{file}").prepare)
    return file


@pytest.fixture(autouse=True)
def ledger_can_be_flushed(request: pytest.FixtureRequest) -> Generator[None]:
    """After a test that commits, its tables are emptied, which some forbid; the flush puts the guards back."""
    marker = request.node.get_closest_marker("django_db")
    commits = bool(marker and marker.kwargs.get("transaction"))
    if commits:
        request.getfixturevalue("transactional_db")
    yield
    if commits:
        with connection.cursor() as cursor:
            for statement in MADE_TO_BE_FLUSHED[connection.vendor]:
                cursor.execute(statement)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs no database of the site is the same on each: it runs with SQLite, and not a second time."""
    if connection.vendor == "sqlite":
        return
    once = [item for item in items if not uses_database(item)]
    config.hook.pytest_deselected(items=once)
    items[:] = [item for item in items if uses_database(item)]


def uses_database(item: pytest.Item) -> bool:
    """Whether a test asks for the site's database, or says that it is about one."""
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(
        fixtures & {"db", "transactional_db", "live_server"}
        or any(item.get_closest_marker(name) for name in ("django_db", "postgres", "redis"))
    )


def pytest_collection_finish() -> None:
    """What stands now lives as long as the run, and tests leave little behind: garbage is looked for seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI a skip is a failure: everything that a test needs can be installed there. Expected failures stand."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: nothing may be skipped in CI. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_if_skipped(report)
    return report
