"""kill -9 at every line of our own that receiving and processing an event executes, each at its first hit.

    ./dev faults kills [--postgres] [--scene NAME ...]

For every scene: a warm parent forks a child that receives and processes the event and is killed on its way to one line.
Another child then finds what the killed one left: it drains, is told the event once more, drains, is told the same by a
sweep, drains. All must end as if nobody had been killed. What many kills leave alike is recovered from once.
Scenes are played side by side, one a core. DATABASE_URL names the database that copies are made of: on SQLite a file,
best on a memory-backed disk; on PostgreSQL a server where databases may be created.
"""

import gc
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.apps import apps  # noqa: E402  (needs Django)
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import DateTimeField  # noqa: E402
from django.utils import timezone  # noqa: E402

from donations import inbox, invariants  # noqa: E402
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
    """PostgreSQL: a database is made from a template on the same server, and the next time gets its rows back."""

    def __init__(self) -> None:
        self.template = str(connection.settings_dict["NAME"])
        self.made: dict[str, str] = {}  # by name, what it is a copy of

    def copy(self, source: str, name: str) -> str:
        target = f"{self.template}_{name}"
        if self.made.get(target) == source:
            in_child(on(target, put_back))
        else:
            in_child(lambda: self._make(source, target))
            in_child(on(target, set_aside))
            self.made[target] = source
        return target

    def _make(self, source: str, target: str) -> None:
        connection.settings_dict["NAME"] = "postgres"
        with connection.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{target}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')


def tables() -> list[str]:
    """Every table but that of Django's migrations, which stay as they are."""
    return [table for table in connection.introspection.table_names() if table != "django_migrations"]


def set_aside() -> None:
    """Keep all rows in a schema of their own, from which `put_back` takes them: much faster than a copy."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS aside CASCADE; CREATE SCHEMA aside")
        cursor.execute("CREATE TABLE aside.numbers AS SELECT * FROM pg_sequences WHERE schemaname = 'public'")
        for table in tables():
            cursor.execute(f"CREATE TABLE aside.{table} AS TABLE public.{table}")


def put_back() -> None:
    """Make all rows and the numbers that come next what they were when they were set aside; without any trigger."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = 'replica'")
        for table in tables():
            cursor.execute(f"DELETE FROM {table}; INSERT INTO {table} TABLE aside.{table}")
        cursor.execute(
            "SELECT setval(format('public.%I', sequencename), COALESCE(last_value, start_value), "
            "last_value IS NOT NULL) FROM aside.numbers"
        )


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
    def call(frame: FrameType, what: str, argument: Any) -> Any:
        return line if frame.f_code.co_filename.startswith(OURS) else None

    def line(frame: FrameType, what: str, argument: Any) -> Any:
        if what == "line":
            heed((frame.f_code.co_filename, frame.f_lineno))
        return line

    sys.settrace(call)
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
        if not InboxEvent.objects.filter(state=InboxEvent.State.WAITING).update(next_try_at=timezone.now()):
            break
        inbox.drain()


def receive_and_process(event: Event) -> None:
    tell(event)
    inbox.drain()


def sweep(event: Event) -> None:
    """The same, found at the processor."""
    identity = f"sweep:{event['type']}:{event['data']['object']['id']}:found"
    body = json.dumps(event | {"id": identity}).encode()
    inbox.put(processor="stripe", origin="sweep", event_id=identity, type=event["type"], body=body)


def contents() -> list[list[tuple[Any, ...]]]:
    """Every row of ours, of which clocks tell no more than whether they are set."""
    found = []
    for model in apps.get_app_config("donations").get_models():
        columns = [
            f"{field.column} IS NULL" if isinstance(field, DateTimeField) else field.column
            for field in model._meta.concrete_fields
        ]
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(columns)} FROM {model._meta.db_table} ORDER BY {model._meta.pk.column}")
            found.append(cursor.fetchall())
    return found


def recover(event: Event) -> dict[str, Any]:
    """What is left after a retry and a sweep. The receiver of this process is as new as that of a restarted site."""
    settle()
    assert_whole("what the killed one left")
    tell(event)
    settle()
    sweep(event)
    settle()
    assert_whole("what is stored in the end")
    return final_state()


def assert_whole(what: str) -> None:
    """Raise AssertionError with the first finding, where an invariant does not hold."""
    for finding in invariants.check():
        raise AssertionError(f"{what} is not whole: {finding}")


def begin(name: str) -> Event:
    """Have happen what comes before; the scene's event."""
    scene = SCENES[name](make_cast())
    for event in scene.before:
        receive_and_process(event)
    # What waits is not due by the clock while the scene is played again and again: the same lines are executed.
    InboxEvent.objects.filter(state=InboxEvent.State.WAITING).update(next_try_at=timezone.now() + timedelta(hours=1))
    return scene.event


def warm(databases: Files | Databases) -> None:
    """Have this process load and learn what its children would otherwise each load and learn again."""
    logging.disable()  # that an event was quarantined is what some scenes are about
    for name in SCENES:
        event = on(scratch := databases.copy(databases.template, "warm"), lambda name=name: begin(name))()
        on(scratch, lambda event=event: [receive_and_process(event), recover(event)])()
    gc.collect()
    gc.freeze()  # a collection would have every child copy the memory that it shares with us


def play(name: str, databases: Files | Databases) -> tuple[int, int]:
    """Kill at each line of a scene, and compare.

    How many were killed, and how many different states they left. Raises AssertionError naming the line.
    """
    start = databases.copy(databases.template, f"{name}_start")
    event = in_child(on(start, lambda: begin(name)))
    assert event
    whole = databases.copy(start, f"{name}_whole")
    wanted = in_child(on(whole, lambda: [receive_and_process(event), recover(event)][1]))
    lines = in_child(on(databases.copy(start, f"{name}_work"), lambda: lines_of(lambda: receive_and_process(event))))
    assert lines
    recovered: list[Any] = []
    for line in lines:
        work = databases.copy(start, f"{name}_work")
        lived = in_child(on(work, lambda line=line: killed_at(line, lambda: receive_and_process(event)) or "lived"))
        where = f"{name}, killed at {Path(line[0]).relative_to(Path(OURS).parent)}:{line[1]}"
        assert lived is None, f"{where}: the line was not reached a second time"
        left = on(work, contents)()
        if left not in recovered:
            ends_as(wanted, work, event, where)
            recovered.append(left)
    return len(lines), len(recovered)


def ends_as(wanted: dict[str, Any] | None, work: str, event: Event, where: str) -> None:
    """Recover from what was left. Raises AssertionError where it ends otherwise."""
    try:
        found = in_child(on(work, lambda: recover(event)))
    except AssertionError as problem:
        raise AssertionError(f"{where}: {problem}") from None
    assert found == wanted, f"{where}: {difference(found, wanted)}"


def difference(found: dict[str, Any] | None, wanted: dict[str, Any] | None) -> str:
    """Which tables ended otherwise, and how."""
    assert found
    assert wanted
    return "; ".join(
        f"{name} ended as {found[name]}, not {wanted[name]}" for name in wanted if found[name] != wanted[name]
    )


def main(names: list[str]) -> int:
    """Play scenes, all unless named; 1 where one failed."""
    databases: Files | Databases = Databases() if connection.vendor == "postgresql" else Files()
    in_child(lambda: call_command("migrate", verbosity=0))
    warm(databases)
    began, killed, failed = time.perf_counter(), 0, 0
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        playing = {pool.submit(play, name, databases): name for name in names or SCENES}
        for done in as_completed(playing):
            problem = done.exception()
            failed += problem is not None
            lines, states = (0, 0) if problem else done.result()
            killed += lines
            told = f"killed at {lines} lines, which left {states} different states: 0 lost, 0 counted twice"
            print(problem or f"{playing[done]}: {told}", flush=True)
    kinds = f"{len(playing)} kinds of event on {connection.display_name}"
    print(f"kill -9 at {killed:,} lines for {kinds} in {time.perf_counter() - began:.0f} s; {failed} kinds failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
