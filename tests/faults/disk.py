"""A disk that is full, and has room again: nothing acknowledged is lost, and what cannot be stored is answered 503.

    ./dev faults disk

SQLite's file, and then PostgreSQL's data, lie on a small tmpfs in a mount namespace of its own. Needs root.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.story import play
from tests.services import postgres

INSIDE = "--in-a-namespace"
BLOCK = 64 * 1024
# As little write-ahead log as PostgreSQL can do with: a small disk is full soon.
SMALL = {"min_wal_size": "32MB", "max_wal_size": "32MB", "shared_buffers": "16MB"}


def main(words: list[str]) -> int:
    if words[:1] != [INSIDE]:
        return in_a_namespace()
    with tempfile.TemporaryDirectory() as name:
        storage = Path(name) / "storage"
        storage.mkdir()
        Path(name).chmod(0o755)  # PostgreSQL does not run as root
        if words[1] == "sqlite":
            return on_sqlite(Path(name), storage)
        return on_postgres(Path(name), storage)


def in_a_namespace() -> int:
    """Each database in a process of its own, since Django is set up once in a process; 1 where one failed."""
    failed = 0
    for database in ("sqlite", "postgres"):
        print(f"{database}:", flush=True)
        command = [sys.executable, "-m", "tests.faults.disk", INSIDE, database]
        failed += subprocess.run(["unshare", "--mount", *command]).returncode != 0
    return 1 if failed else 0


def on_sqlite(folder: Path, storage: Path) -> int:
    with mounted(storage, "8m"):
        return 0 if play(folder, None, lambda *_: full(storage), padding=20_000, may_accept=True) else 1


def on_postgres(folder: Path, storage: Path) -> int:
    with mounted(storage, "160m"):
        tempfile.tempdir = str(storage)  # where a server puts its directory
        with postgres(**SMALL) as database:
            tempfile.tempdir = None
            return 0 if play(folder, database, lambda *_: full(storage), padding=100_000, may_accept=True) else 1


@contextmanager
def mounted(storage: Path, size: str) -> Iterator[None]:
    """A tmpfs of this size. Raises SystemExit where the machine does not let us."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", storage], capture_output=True
    )
    if done.returncode:
        raise SystemExit(f"This machine does not let us mount a tmpfs: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", storage], check=True)


@contextmanager
def full(storage: Path) -> Iterator[None]:
    """Fill it to the last byte; make room again at the end."""
    ballast = storage / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (BLOCK, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    try:
        yield
    finally:
        ballast.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
