"""How fast deliveries are acknowledged beside dj-stripe, storing only, of the same signed bodies.

dj-stripe comes from PyPI into an environment of its own under var/, with the versions of djstripe/requirements.txt.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from django.conf import settings
from django.db import connection

from tests.bench import acknowledging, material
from tests.bench.report import Result
from tests.bench.serving import CORES, MOST_CLIENT, ROOT, Round, Serving, await_answer, serving
from tests.services import free_port

PEER = Path(__file__).resolve().parent / "djstripe"
FOLDER = ROOT / "var" / "djstripe"
PYTHON = FOLDER / "environment" / "bin" / "python"


def measure(quick: bool) -> list[Result]:
    """Both servers stand all the time; the rounds alternate."""
    seconds, rounds = (1, 2) if quick else (4, 6)
    material.campaign()
    _install()
    ours: list[Round] = []
    theirs: list[Round] = []
    with serving(settings.DATABASE_ADDRESS) as server, _peer(_database()) as (peer, path):
        for each in (server, peer):
            each.load(acknowledging.deliveries(1, path if each is peer else "/webhooks/stripe/"), 1)
        for _ in range(rounds):
            ours.append(acknowledging.acknowledge(server, seconds))
            theirs.append(peer.load(acknowledging.deliveries(seconds, path), seconds))
    return [
        Result(
            name="acknowledged, beside dj-stripe storing only",
            ratio=median(mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True)),
            goal=10,
            void=max(each.client for each in [*ours, *theirs]) > MOST_CLIENT,
            figures=acknowledging.figures(ours, theirs),
        )
    ]


def _install() -> None:
    wanted, there = (PEER / "requirements.txt").read_text(), FOLDER / "requirements.txt"
    if there.is_file() and there.read_text() == wanted:
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER / "environment"], check=True)
    install = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
    subprocess.run([*install, PEER / "requirements.txt"], check=True)
    shutil.copy(PEER / "requirements.txt", there)


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute('CREATE DATABASE "peer" TEMPLATE "template0"')
    address: str = settings.DATABASE_ADDRESS
    return f"{address.rpartition('/')[0]}/peer"


@contextmanager
def _peer(database_url: str) -> Iterator[tuple[Serving, str]]:
    """dj-stripe under the same server with the same options, and its webhook's path."""
    package = FOLDER / "djstripe_peer"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(PEER, package)
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": database_url, "PYTHONPATH": str(FOLDER)}
    environment["DJANGO_SETTINGS_MODULE"] = "djstripe_peer.settings"
    prepare = [PYTHON, "-m", "djstripe_peer.prepare", settings.STRIPE_WEBHOOK_SECRETS[0]]
    path = subprocess.run(prepare, env=environment, check=True, capture_output=True, text=True).stdout.strip()
    port = free_port()
    options = "--interface wsgi --no-ws --log-level error --host 127.0.0.1 --blocking-threads 4"
    command = [PYTHON, "-m", "granian", *options.split(), "--workers", str(CORES), "--port", str(port)]
    process = subprocess.Popen([*command, "djstripe_peer.wsgi:application"], cwd=FOLDER, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(url)
        yield Serving(process, url), path
    finally:
        process.terminate()
        process.wait(timeout=20)
