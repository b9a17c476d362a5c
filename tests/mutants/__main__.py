"""Mutants of the rooms that move money: small changes to their code, each of which a test should notice.

    ./dev mutants [MODULE ...] [--part N] [--children N] [--postgres]

Copies the sources to var/mutants, lets mutmut change every function there and run the module's own tests on each
change, and prints how many were noticed, and each that was not. A run that was stopped goes on where it was; what was
noticed is not tried again until its function changes, or var/mutants is removed; what was not, is tried each time: with
`--postgres` what no test noticed on SQLite is tried on PostgreSQL, which alone has locks.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services import postgres

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / "var/mutants"
MUTMUT = str(Path(sys.executable).with_name("mutmut"))
IN_MEMORY = "/dev/shm"  # noqa: S108 (a folder of our own is made in it)
COPIED = ("donations", "supportsite", "templates", "tests", "manage.py", "pyproject.toml")
BESIDE = ("supportsite", "templates", "manage.py", "conftest.py")
NOTICED = {"killed", "timeout", "segfault"}
# One seed for all mutants: a test that is about chance sees the same chances with each.
ENVIRONMENT = {"TEST_SEED": "1", "DJANGO_SETTINGS_MODULE": "tests.settings", "LOG_LEVEL": "CRITICAL"}

# Which tests are a module's own.
TESTS = {
    "ledger": ["tests/test_ledger.py", "tests/test_booking.py"],
    "settlements": ["tests/test_settlements.py"],
    "recurring": ["tests/test_recurring.py"],
    "booking/disputes": ["tests/test_disputes.py"],
    "booking/fees": ["tests/test_settlements.py", "tests/test_disputes.py"],
    "booking/monthly": ["tests/test_monthly.py", "tests/test_recurring.py"],
    "booking/books": [
        "tests/test_booking.py",
        "tests/test_disputes.py",
        "tests/test_inbox.py",
        "tests/test_monthly.py",
        "tests/test_settlements.py",
    ],
    "booking/__init__": [
        "tests/test_booking.py",
        "tests/test_inbox.py",
        "tests/test_monthly.py",
        "tests/test_settlements.py",
    ],
    "inbox": ["tests/test_inbox.py", "tests/test_offline.py", "tests/test_reconcile.py"],
    "projections/__init__": ["tests/test_projections.py", "tests/test_booking.py"],
    "projections/states": ["tests/test_projections.py", "tests/test_booking.py"],
    "projections/totals": ["tests/test_projections.py", "tests/test_booking.py"],
    "giving": ["tests/test_giving.py", "tests/test_manage.py"],
    "refunding": ["tests/test_giving.py", "tests/test_admin.py"],
    "processors/stripe/__init__": ["tests/test_stripe_processor.py", "tests/test_stripe_lists.py"],
    "processors/stripe/events": ["tests/test_stripe_processor.py", "tests/test_stripe_lists.py"],
    "processors/stripe/lists": ["tests/test_stripe_lists.py", "tests/test_giving.py"],
    "processors/stripe/reading": ["tests/test_stripe_processor.py", "tests/test_stripe_lists.py"],
}


def main() -> int:
    given = arguments()
    for module in given.modules or list(TESTS):
        tree, began = tree_of(module, "sqlite" if given.postgres else "postgres"), time.perf_counter()
        with database(on_postgres=given.postgres) as address:
            environment = os.environ | {"DATABASE_URL": address} | ENVIRONMENT
            migrate(tree, environment)
            noticed = forget_unnoticed(tree, module)
            left = unnoticed(tree, module) if given.postgres and noticed else []
            run(tree, environment, children=given.children, names=left or names_of_part(given.part))
            if given.postgres:
                remember(tree, module, noticed)
        report(tree, module, time.perf_counter() - began)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev mutants", description="Change the code, and see which test notices.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)} (all)")
    parser.add_argument("--children", type=int, default=1, help="processes at once (1)")
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own, not on SQLite in memory")
    parser.add_argument("--part", type=int, choices=range(1, 11), default=10, help="tenths of the mutants (10)")
    given = parser.parse_args()
    unknown = [module for module in given.modules if module not in TESTS]
    if unknown:
        parser.error(f"there are no mutants of {', '.join(unknown)}: choose from {', '.join(TESTS)}")
    return given


# ---- a copy of the sources


def tree_of(module: str, unmarked: str) -> Path:
    """The sources as they are now, in a folder of the module's own; what mutmut knows of the module stays.

    Tests with the marker `unmarked` are for the other database.
    """
    tree = HOME / module.replace("/", "-")
    tree.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.rmtree(tree / name, ignore_errors=True)
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    shutil.copy(ROOT / "tests/mutants/database.py", tree / "conftest.py")
    refresh(tree / "mutants", module)
    with (tree / "pyproject.toml").open("a") as configuration:
        configuration.write(settings_of(module, unmarked))
    return tree


def refresh(mutants: Path, module: str) -> None:
    """Of what mutmut made before, keep the module itself: it would go on with old copies of all others."""
    kept = set(mutants.glob(f"donations/{module}.py*"))
    for path in [*mutants.glob("donations/**/*"), *mutants.glob("tests/**/*")]:
        if path.is_file() and path not in kept:
            path.unlink()


def settings_of(module: str, unmarked: str) -> str:
    """mutmut's own settings, as TOML."""
    return f"""
[tool.mutmut]
source_paths = ["donations"]
only_mutate = ["donations/{module}.py"]
also_copy = {json.dumps(BESIDE)}
pytest_add_cli_args = ["-p", "no:cacheprovider", "-m", "not {unmarked}"]
pytest_add_cli_args_test_selection = {json.dumps(TESTS[module])}
use_git_change_detection = false
timeout_constant = 20.0
"""


@contextmanager
def database(*, on_postgres: bool) -> Iterator[str]:
    """The address of a database that a copy is made of for each mutant."""
    if on_postgres:
        with postgres(fsync="off", max_connections="50") as server:
            yield server.url
    else:
        with tempfile.TemporaryDirectory(prefix="mutants-", dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None) as at:
            yield f"sqlite:///{at}/site.sqlite3"


def migrate(tree: Path, environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], cwd=tree, env=environment, check=True)


# ---- mutmut


def results_of(tree: Path, module: str) -> Path:
    """Where mutmut keeps what became of each mutant of a module."""
    return tree / f"mutants/donations/{module}.py.meta"


def forget_unnoticed(tree: Path, module: str) -> dict[str, int]:
    """There may be tests for them now. What is left, by name: how the tests of each ended."""
    from mutmut.stats import status_by_exit_code

    path = results_of(tree, module)
    if not path.exists():
        return {}
    kept = json.loads(path.read_text())
    codes = kept["exit_code_by_key"]
    noticed = {mutant: code for mutant, code in codes.items() if status_by_exit_code[code] in NOTICED}
    path.write_text(json.dumps(kept | {"exit_code_by_key": {mutant: noticed.get(mutant) for mutant in codes}}))
    return noticed


def unnoticed(tree: Path, module: str) -> list[str]:
    codes = json.loads(results_of(tree, module).read_text())["exit_code_by_key"]
    return [mutant for mutant, code in codes.items() if code is None]


def remember(tree: Path, module: str, noticed: dict[str, int]) -> None:
    """On another database mutmut begins anew, and knows of no run on the first one."""
    path = results_of(tree, module)
    kept = json.loads(path.read_text())
    codes = kept["exit_code_by_key"]
    kept["exit_code_by_key"] = {m: noticed.get(m) if code is None else code for m, code in codes.items()}
    path.write_text(json.dumps(kept))


def names_of_part(part: int) -> list[str]:
    """As mutmut takes them; none is all."""
    return [f"*__mutmut_*{digit}" for digit in range(part)] if part < 10 else []


def run(tree: Path, environment: dict[str, str], *, children: int, names: list[str]) -> None:
    command = [MUTMUT, "run", "--max-children", str(children), *names]
    with (tree / "run.log").open("w") as log:
        # Its progress is for a terminal's eyes alone.
        output = None if sys.stdout.isatty() else log
        ended = subprocess.run(command, cwd=tree, env=environment, stdout=output, stderr=output)
    if ended.returncode:
        sys.exit(f"mutmut ended with {ended.returncode}: see {tree / 'run.log'}")


def report(tree: Path, module: str, seconds: float) -> None:
    """How many were noticed; and each that was not, as the difference that it makes."""
    from mutmut.stats import status_by_exit_code

    told = json.loads(results_of(tree, module).read_text())["exit_code_by_key"]
    found = {name: status_by_exit_code[code] for name, code in told.items() if code is not None}
    for name, status in found.items():
        if status not in NOTICED:
            shown = subprocess.run([MUTMUT, "show", name], cwd=tree, capture_output=True, text=True)
            print(f"\n{shown.stdout.strip()}")
    noticed = sum(status in NOTICED for status in found.values())
    print(f"\n{module}: {noticed} of {len(found)} mutants noticed ({noticed / max(1, len(found)):.1%}), "
          f"{len(told)} there are; {dict(Counter(found.values()))}; {seconds:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
