"""`./dev faults`: break what the site stands on, each fault in a process of its own; fails where something was lost."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.services import Missing, postgres

NAMES = ("kills", "crashes", "redis", "refunds", "disk", "fsync")
MODULES = {"redis": "broker"}
IN_MEMORY = "/dev/shm"  # noqa: S108 (a folder of our own is made in it)


def main() -> int:
    given = arguments()
    # Kills are what CI does on SQLite alone; whoever names no fault wants everything.
    runs = [(name, given.postgres) for name in given.names] or [("kills", True), *((name, False) for name in NAMES)]
    failed = [name for name, on_postgres in runs if not succeeds(name, given, on_postgres=on_postgres)]
    print(f"failed: {', '.join(failed)}" if failed else "all held")
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev faults", description="Break things, and count what was lost.")
    parser.add_argument(
        "names", nargs="*", metavar="FAULT", help=f"{', '.join(NAMES)}; all unless named, kills on both databases"
    )
    parser.add_argument("--postgres", action="store_true", help="kills: on PostgreSQL, not on SQLite")
    parser.add_argument("--scene", action="append", default=[], help="kills: this kind of event alone; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer kills and shorter rounds, to see that it runs")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"there is no fault {', '.join(unknown)}: they are {', '.join(NAMES)}")
    return given


def succeeds(name: str, given: argparse.Namespace, *, on_postgres: bool) -> bool:
    print(f"\n== {name}{' on PostgreSQL' if on_postgres else ''}", flush=True)
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="faults-", dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        database = f"sqlite:///{folder}/db.sqlite3"
        if name == "kills" and on_postgres:
            database = stack.enter_context(postgres(fsync="off", max_connections="50")).url
        words = given.scene if name == "kills" else ["--short"] if given.short else []
        command = [sys.executable, "-m", f"tests.faults.{MODULES.get(name, name)}", *words]
        return subprocess.run(command, env=os.environ | {"DATABASE_URL": database, "REDIS_URL": ""}).returncode == 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as problem:
        sys.exit(str(problem))
