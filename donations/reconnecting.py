"""Connections stay open, so a restart of the database leaves dead ones behind: who finds one opens another, once."""

from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

AWAY = (OperationalError, InterfaceError)
"""What Django raises where the database does not answer, or answers that it cannot serve just now."""

T = TypeVar("T")


def reconnecting(work: Callable[[], T]) -> T:
    """What `work` returns, done again on a new connection where the database seemed away. Raises AWAY if it still is.

    For work that may be done twice: the first may have been committed before its answer was lost.
    """
    try:
        return work()
    except AWAY:
        connection.close()
        return work()
