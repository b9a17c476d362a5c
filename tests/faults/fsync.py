"""A disk whose fsync fails: what it could not make durable is never acknowledged, and nothing acknowledged is lost.

    ./dev faults fsync

strace makes every fsync and fdatasync of the site (SQLite), or of the server (PostgreSQL), fail with EIO.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.story import play
from tests.house import House, eventually
from tests.services import Postgres, children, postgres

FAILING = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO")


def main(words: list[str]) -> int:
    if not words or words[0] not in {"sqlite", "postgres"}:
        return on_both()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "storage").mkdir()
        if words[0] == "sqlite":
            return 0 if play(folder, None, failing, padding=0, may_accept=False) else 1
        with postgres() as database:
            return 0 if play(folder, database, failing, padding=0, may_accept=False) else 1


def on_both() -> int:
    """Each database in a process of its own, since Django is set up once in a process; 1 where one failed."""
    failed = 0
    for database in ("sqlite", "postgres"):
        print(f"{database}:", flush=True)
        failed += subprocess.run([sys.executable, "-m", "tests.faults.fsync", database]).returncode != 0
    return 1 if failed else 0


@contextmanager
def failing(home: House, database: Postgres | None) -> Iterator[None]:
    """Hold whoever writes to the disk, and let each fsync of theirs fail. Raises SystemExit where we may not."""
    if database:
        assert database.process
        pid = database.process.pid
    else:
        pid = home.processes["site"].pid
    held = [pid, *children(pid)]
    command = ["strace", "-f", "-qq", "-o", str(home.folder / "strace.txt"), *FAILING]
    tracer = subprocess.Popen(
        [*command, *(word for each in held for word in ("-p", str(each)))], stderr=subprocess.PIPE
    )
    eventually(lambda: tracer.poll() is not None or all(traced(each) for each in held), "strace holds all of them")
    if tracer.poll() is not None:
        assert tracer.stderr
        raise SystemExit(f"This machine does not let us trace: {tracer.stderr.read().decode().strip()}")
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        assert "EIO" in (home.folder / "strace.txt").read_text(), "no fsync was made to fail"


def traced(pid: int) -> bool:
    """Whether every thread of a process is held, or it is gone."""
    try:
        tasks = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return True
    return not any("TracerPid:\t0\n" in status for status in tasks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
