"""`manage.py sandbox` as a process: one line, a busy port, a quick end."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from donations.sandbox.clock import Clock
from donations.sandbox.deliveries import Target
from donations.sandbox.server import serve
from donations.sandbox.store import StateUnusable, Store
from tests.sandbox import NOWHERE, SECRET, sandbox

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def command(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    environment = os.environ | {"DEBUG": "1", "SECRET_KEY": "k" * 50, "SITE_URL": "http://127.0.0.1:8000"}
    environment["DJANGO_SETTINGS_MODULE"] = "supportsite.settings"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "manage.py", "sandbox", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def busy() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with command("--port", "0", "--state", str(tmp_path / "new" / "state.sqlite3")) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("sandbox: http://127.0.0.1:")
        with urllib.request.urlopen(line.split()[1], timeout=10) as answer:
            assert b"http://127.0.0.1:8000/webhooks/stripe/" in answer.read()
        began = time.monotonic()
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    assert (process.returncode, output) == (0, "")
    assert time.monotonic() - began < 3


@pytest.mark.slow
def test_a_busy_port_is_one_line_that_says_what_to_do(tmp_path: Path, busy: int) -> None:
    with command("--port", str(busy), "--state", str(tmp_path / "state.sqlite3")) as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (1, "")
    assert f"Port {busy} is in use: stop what uses it, or choose another with --port." in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_state_file_belongs_to_one_sandbox(tmp_path: Path) -> None:
    with sandbox(tmp_path), pytest.raises(StateUnusable, match="another sandbox"):
        serve(tmp_path / "state.sqlite3", Target(NOWHERE, SECRET, threads=0))


def test_a_file_that_is_no_state_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("mine" * 1000)
    with pytest.raises(StateUnusable, match="not a state file"):
        Store(path, Clock())
    assert path.read_text() == "mine" * 1000


def fail_in_the_middle(store: Store) -> None:
    with store.transaction() as tx:
        tx.set_setting("deliveries", "never")
        raise ZeroDivisionError


def test_what_failed_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite3", Clock())
    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle(store)
    with store.transaction() as tx:
        assert tx.setting("deliveries", "normal") == "normal"
    store.close()
    with pytest.raises(StateUnusable, match="stopping"), store.transaction():
        pass
