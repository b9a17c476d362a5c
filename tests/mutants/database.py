"""The database of a run on mutants: each process has a copy of one that was migrated once.

Stands as conftest.py beside the copied sources. A mutant that is killed half-way leaves nothing to the next one.
"""

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

NOT_ASKED = 35
"""How a process ends whose mutant no test was asked about; mutmut calls it suspicious, and we not noticed."""


def pytest_sessionfinish(exitstatus: int) -> None:
    """mutmut fails where pytest does not know a test's name, and would count the failed process as a mutant noticed."""
    if exitstatus == pytest.ExitCode.USAGE_ERROR:
        os._exit(NOT_ASKED)


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: DjangoDbBlocker) -> Generator[None]:
    is_postgres, migrated = connection.vendor == "postgresql", str(connection.settings_dict["NAME"])
    own = f"{migrated}_{os.getpid()}"
    with django_db_blocker.unblock():
        if is_postgres:
            _by_the_server(f'CREATE DATABASE "{own}" TEMPLATE "{migrated}"')
        else:
            shutil.copy(migrated, own)
        connection.close()
        connection.settings_dict["NAME"] = own
        yield
        connection.close()
        if is_postgres:
            _by_the_server(f'DROP DATABASE "{own}" WITH (FORCE)')
        connection.settings_dict["NAME"] = migrated  # a process may run the tests more than once
    if not is_postgres:
        for leftover in Path(own).parent.glob(f"{Path(own).name}*"):
            leftover.unlink()


def _by_the_server(statement: str) -> None:
    """Outside of any database that is made or dropped."""
    connection.close()
    connection.settings_dict["NAME"] = "postgres"
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()
