"""Stripe's own description of its API, where STRIPE_REFERENCE says; without it these tests are skipped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.openapi import Description, NoReference, description
from tests.sandbox import Sandboxed, sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.conformance)


@pytest.fixture(scope="session")
def stripe_says() -> Description:
    """The description. In CI a skip is a failure (tests/conftest.py)."""
    try:
        return description()
    except NoReference as reason:
        pytest.skip(str(reason))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandboxed]:
    """A sandbox that delivers nothing."""
    with sandbox(tmp_path) as running:
        yield running
