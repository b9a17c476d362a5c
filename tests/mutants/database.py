"""The database of a run on mutants: each process has a copy of one that was migrated once, in memory-backed storage.

Stands as conftest.py beside the copied sources. A mutant that is killed half-way leaves nothing to the next one.
"""

import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: DjangoDbBlocker) -> Generator[None]:
    migrated = Path(os.environ["MUTANTS_DATABASE"])
    own = migrated.with_name(f"{migrated.name}-{os.getpid()}")
    shutil.copy(migrated, own)
    with django_db_blocker.unblock():
        connection.close()
        connection.settings_dict["NAME"] = str(own)
        yield
        connection.close()
    for leftover in own.parent.glob(f"{own.name}*"):
        leftover.unlink()
