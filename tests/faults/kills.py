"""kill -9 at every line of our own that receiving and processing an event executes, each at its first hit.

    python -m tests.faults.kills [SCENE ...]

For every scene: a warm parent forks a child that receives and processes the event and is killed on its way to one line.
Another child then finds what the killed one left: it drains, is told the event once more, drains, is told the same by a
sweep, drains. All must end as if nobody had been killed. DATABASE_URL names the database that copies are made of: on
SQLite a file, best on a memory-backed disk; on PostgreSQL a server where databases may be created.
"""

import json
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.core.management import call_command  # noqa: E402  (needs Django)
from django.db import connection  # noqa: E402
from django.utils import timezone  # noqa: E402

from donations import inbox, projections, recurring  # noqa: E402
from donations.models import InboxEvent  # noqa: E402
from tests.factories import Event, body_of, signature_of  # noqa: E402
from tests.faults.scenes import SCENES, make_cast  # noqa: E402
from tests.final_state import final_state  # noqa: E402

OURS = str(Path(inbox.__file__).resolve().parent)
Line = tuple[str, int]
T = TypeVar("T")


# ---- databases, by copying


class Files:
    """SQLite: a database is a file beside the template's."""

    def __init__(self) -> None:
        self.template = str(connection.settings_dict["NAME"])

    def copy(self, source: str, name: str) -> str:
        target = f"{self.template}.{name}"
        for ending in ("", "-wal", "-shm"):
            Path(target + ending).unlink(missing_ok=True)
        shutil.copyfile(source, target)
        return target


class Databases:
    """PostgreSQL: a database is made from a template on the same server."""

    def __init__(self) -> None:
        self.template = str(connection.settings_dict["NAME"])

    def copy(self, source: str, name: str) -> str:
        target = f"{self.template}_{name}"
        in_child(lambda: self._make(source, target))
        return target

    def _make(self, source: str, target: str) -> None:
        connection.settings_dict["NAME"] = "postgres"
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')


# ---- children


def in_child(work: Callable[[], T]) -> T | None:
    """What `work` returns in a forked process, or None where that process was killed. Raises what it raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _work_and_exit(work, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        told = answer.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    worked, found = pickle.loads(told)  # noqa: S301 (written by our own child)
    if not worked:
        raise AssertionError(found)
    result: T = found
    return result


def _work_and_exit(work: Callable[[], Any], writing: int) -> None:
    import traceback

    try:
        told = (True, work())
    except BaseException:  # noqa: BLE001 (whatever it was, the parent is told)
        told = (False, traceback.format_exc())
    with os.fdopen(writing, "wb") as answer:
        answer.write(pickle.dumps(told))
    connection.close()
    os._exit(0)


def on(database: str, work: Callable[[], T]) -> Callable[[], T]:
    """The same work on another database."""

    def there() -> T:
        connection.settings_dict["NAME"] = database
        try:
            return work()
        finally:
            connection.close()

    return there


# ---- lines


def lines_of(work: Callable[[], object]) -> list[Line]:
    """Every line of our own that `work` executes, in the order of their first hits."""
    found: dict[Line, None] = {}
    _watch(work, lambda line: found.setdefault(line))
    return list(found)


def killed_at(line: Line, work: Callable[[], object]) -> None:
    """Do it, and die on the way to this line."""
    _watch(work, lambda here: os.kill(os.getpid(), signal.SIGKILL) if here == line else None)


def _watch(work: Callable[[], object], heed: Callable[[Line], object]) -> None:
    def trace(frame: FrameType, what: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if what == "line":
            heed((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)


# ---- the story


def tell(event: Event) -> None:
    body = body_of(event)
    inbox.receive(processor="stripe", body=body, signature=signature_of(body))


def settle() -> None:
    """Process until nothing moves any more, as time would have it."""
    inbox.drain()
    for _ in range(3):
        InboxEvent.objects.filter(state=InboxEvent.State.WAITING).update(next_try_at=timezone.now())
        inbox.drain()


def receive_and_process(event: Event) -> None:
    tell(event)
    inbox.drain()


def sweep(event: Event) -> None:
    """The same, found at the processor."""
    identity = f"sweep:{event['type']}:{event['data']['object']['id']}:found"
    body = json.dumps(event | {"id": identity}).encode()
    inbox.put(processor="stripe", origin="sweep", event_id=identity, type=event["type"], body=body)


def recover(event: Event) -> dict[str, Any]:
    """What is left after a retry and a sweep. The receiver of this process is as new as that of a restarted site."""
    settle()
    if projections.drift() or recurring.drift():
        raise AssertionError("what the killed one left differs from the ledger")
    tell(event)
    settle()
    sweep(event)
    settle()
    if projections.drift() or recurring.drift():
        raise AssertionError("what is stored in the end differs from the ledger")
    return final_state()


def begin(name: str) -> Event:
    """Have happen what comes before; the scene's event."""
    scene = SCENES[name](make_cast())
    for event in scene.before:
        receive_and_process(event)
    return scene.event


def play(name: str, databases: Files | Databases) -> int:
    """Kill at each line of a scene, and compare; how many were killed. Raises AssertionError naming the line."""
    start = databases.copy(databases.template, "start")
    event = in_child(on(start, lambda: begin(name)))
    assert event
    wanted = in_child(on(databases.copy(start, "whole"), lambda: [receive_and_process(event), recover(event)][1]))
    lines = in_child(on(databases.copy(start, "traced"), lambda: lines_of(lambda: receive_and_process(event)))) or []
    killed = 0
    for line in lines:
        work = databases.copy(start, "work")
        outcome = in_child(on(work, lambda line=line: killed_at(line, lambda: receive_and_process(event)) or "lived"))
        killed += outcome is None
        found = in_child(on(work, lambda: recover(event)))
        if found != wanted:
            raise AssertionError(f"{name}: killed at {line[0]}:{line[1]}, it ended in {found}, not in {wanted}")
    assert killed == len(lines), f"{len(lines) - killed} of {len(lines)} lines were not reached a second time"
    return killed


def main(names: list[str]) -> None:
    databases: Files | Databases = Databases() if connection.vendor == "postgresql" else Files()
    in_child(lambda: call_command("migrate", verbosity=0))
    for name in names or list(SCENES):
        began = time.perf_counter()
        killed = play(name, databases)
        print(f"{name}: killed at {killed} lines, 0 lost, 0 counted twice ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    main(sys.argv[1:])
