"""`./dev bench`: measure, print, and write docs/benchmarks.md.

Each measurement runs in a process of its own, with a PostgreSQL of its own.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.bench.report import DOCUMENT, Result, as_document, as_json, as_text
from tests.services import postgres

NAMES = ("acknowledging", "peering", "draining", "reading", "exporting", "rebuilding")
# A cluster of a site that has grown; every commit is on disk, as is the default.
POSTGRES = {"shared_buffers": "256MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Measure ratios; write docs/benchmarks.md.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write name, ratio, goal, holds of each here")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these alone; no document is written")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; no document is written")
    parser.add_argument("--alone", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        return _alone(options.alone, quick=options.quick, target=options.json)
    results: list[Result] = []
    for name in options.only:
        results += _in_a_process(name, quick=options.quick)
    if options.json:
        options.json.write_text(as_json(results))
    if not options.quick and tuple(options.only) == NAMES:
        DOCUMENT.write_text(as_document(results, "./dev bench"))
    return 0


def _in_a_process(name: str, *, quick: bool) -> list[Result]:
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-m", "tests.bench", "--alone", name, "--json", file.name]
        subprocess.run([*command, "--quick"] if quick else command, check=True)
        results = [Result(**fields) for fields in json.loads(Path(file.name).read_text())]
    print(as_text(results), flush=True)
    return results


def _alone(name: str, *, quick: bool, target: Path) -> int:
    with postgres(**POSTGRES) as database:
        os.environ["DATABASE_URL"] = database.url
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.bench.settings"
        import django
        from django.conf import settings
        from django.core.management import call_command
        from django.db import connection

        django.setup()
        settings.DATABASE_ADDRESS = database.url
        call_command("migrate", verbosity=0)
        results = importlib.import_module(f"tests.bench.{name}").measure(quick)
        connection.close()
    target.write_text(json.dumps([asdict(result) for result in results]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
