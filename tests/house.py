"""The whole house in real processes, for stories told over HTTP: site, sandbox and, where grown, a Celery worker."""

import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.services import free_port

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0
AnyHouse = TypeVar("AnyHouse", bound="House")


class House:
    """A site with its own database, on its own ports. `site` and `sandbox` are base addresses."""

    def __init__(self, folder: Path, *, database_url: str, redis_url: str = "", workers: int = 1) -> None:
        self.folder, self.redis_url, self.workers = folder, redis_url, workers
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        site_port, sandbox_port = free_port(), free_port()
        self.site, self.sandbox = f"http://127.0.0.1:{site_port}", f"http://127.0.0.1:{sandbox_port}"
        self.ports = {"site": str(site_port), "sandbox": str(sandbox_port)}
        self.environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | {
            "DEBUG": "1",
            "SECRET_KEY": "for-journeys-" + "k" * 50,
            "SITE_URL": self.site,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "STRIPE_API_BASE": self.sandbox,
            "STRIPE_CHECKOUT_ORIGINS": self.sandbox,
            "STRIPE_WEBHOOK_SECRETS": "whsec_journeys",
            "FEE_COVER": "stripe=2.9%+0.30",
            "PYTHONUNBUFFERED": "1",
        }
        self.client = httpx.Client(base_url=self.site, timeout=20, trust_env=False)

    # ---- its processes

    def open(self) -> None:
        """Prepare the database and start everything; returns when site and sandbox answer."""
        self.prepare()
        self.launch_sandbox()
        self.launch_site()
        if self.redis_url:
            self.start_worker()
        self.await_sandbox()
        self.await_site()

    def prepare(self) -> None:
        """Make the tables and the demo campaign."""
        self.manage("migrate", "-v0")
        self.manage("demo")

    def start_site(self) -> None:
        self.launch_site()
        self.await_site()

    def launch_site(self) -> None:
        """Start it, and wait for nothing."""
        options = f"--interface wsgi --workers {self.workers} --blocking-threads 4 --no-ws --log-level warning"
        address = ("--host", "127.0.0.1", "--port", self.ports["site"])
        self._start("site", "granian", *options.split(), *address, "supportsite.wsgi:application")

    def await_site(self) -> None:
        self._await_answer(self.site + "/healthz")

    def start_sandbox(self) -> None:
        self.launch_sandbox()
        self.await_sandbox()

    def launch_sandbox(self) -> None:
        state = str(self.folder / "sandbox.sqlite3")
        options = ("--port", self.ports["sandbox"], "--state", state, "--retry-base", "0.2")
        self._start_file("sandbox", "manage.py", "sandbox", *options)

    def await_sandbox(self) -> None:
        self._await_answer(self.sandbox + "/")

    def start_worker(self) -> None:
        schedule = str(self.folder / "beat")
        self._start("worker", "celery", "-A", "supportsite", "worker", "-B", "-c", "2", "-s", schedule, "-l", "warning")

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End one process and all that it started."""
        process = self.processes.pop(name)
        for sent in (number, signal.SIGKILL):
            try:
                os.killpg(process.pid, sent)
                process.wait(timeout=10)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
            break

    def close(self) -> None:
        for name in list(self.processes):
            self.stop(name)
        self.client.close()

    def _start(self, name: str, module: str, *arguments: str) -> None:
        self._launch(name, [sys.executable, "-m", module, *arguments])

    def _start_file(self, name: str, file: str, *arguments: str) -> None:
        self._launch(name, [sys.executable, file, *arguments])

    def _launch(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _await_answer(self, url: str) -> None:
        def answers() -> bool:
            try:
                httpx.get(url, timeout=2, trust_env=False)
            except httpx.HTTPError:
                return False
            return True

        eventually(answers, f"{url} answers; its log says {self.logs()}")

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.folder.glob("*.log")))

    # ---- what people do

    def manage(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def give(self, *, page: str | None = None, **fields: str) -> httpx.Response:
        """Fill in the form as a browser would, and send it; the answer is not followed."""
        values = {"page": page or self.page_token(), "tier": "50000"} | fields
        headers = {"Origin": self.site, "Sec-Fetch-Site": "same-origin"}
        return self.client.post("/give/general/", data=values, headers=headers)

    def page_token(self) -> str:
        page = self.client.get("/give/general/").raise_for_status().text
        match = re.search(r'name="page"[^>]*value="([^"]+)"', page) or re.search(
            r'value="([^"]+)"[^>]*name="page"', page
        )
        assert match, page
        return match[1]

    def checkout(self, **fields: str) -> str:
        """Give, and return the id of the checkout session that the reader was sent to."""
        answer = self.give(**fields)
        assert answer.status_code == 303, answer.text
        match = re.search(r"cs_test_[A-Za-z0-9]+", answer.headers["Location"])
        assert match, answer.headers["Location"]
        return match[0]

    def control(self, path: str, **body: Any) -> dict[str, Any]:
        """Tell the sandbox what to do."""
        answer = httpx.post(f"{self.sandbox}/_control/{path}", json=body, timeout=20, trust_env=False)
        assert answer.status_code < 300, answer.text
        return dict(answer.json()) if answer.content else {}

    def api(self, path: str) -> dict[str, Any]:
        """What the sandbox's API says of an object."""
        answer = httpx.get(f"{self.sandbox}/v1/{path}", auth=("sk_test_sandbox", ""), timeout=20, trust_env=False)
        return dict(answer.raise_for_status().json())

    def pay(self, checkout: str, card: str = "4242424242424242") -> str:
        """Pay on the hosted page, and return the payment's id."""
        self.control(f"sessions/{checkout}/pay", card=card)
        return str(self.api(f"checkout/sessions/{checkout}")["payment_intent"])

    def advance(self, length: str) -> None:
        """Move the sandbox's clock ahead: what is due on the way happens."""
        self.control("clock", advance=length)

    def meter(self) -> dict[str, Any]:
        return dict(self.client.get("/embed/v1/meter.json").raise_for_status().json())

    def ledger(self) -> list[dict[str, str]]:
        """Finance's file, as rows."""
        import csv
        import io

        return list(csv.DictReader(io.StringIO(self.manage("export", "ledger"))))

    def movements(self) -> list[dict[str, str]]:
        """The same without fees, which are asked for by and by."""
        return [row for row in self.ledger() if row["kind"] != "fee"]

    def await_meter(self, **wanted: Any) -> None:
        """Wait until the bar says this."""

        def shows() -> bool:
            now = self.meter()
            return all(now[name] == value for name, value in wanted.items())

        eventually(shows, lambda: f"the bar shows {wanted}; it shows {json.dumps(self.meter())}\n{self.logs()}")

    def thanks_says(self, checkout: str, words: str) -> None:
        """Wait until the thank-you page of a checkout has these words."""
        url = self.api(f"checkout/sessions/{checkout}")["success_url"]
        eventually(lambda: words in self.client.get(url).text, lambda: f"{words!r} in {self.client.get(url).text}")


def eventually(holds: Callable[[], bool], what: str | Callable[[], str], patience: float = PATIENCE) -> None:
    """Wait for something that must become true."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within {patience} s: {what if isinstance(what, str) else what()}")


class EmbeddedHouse(House):
    """A house on an SQLite file of its own: a copy of `prepared`, one with all tables and the demo campaign."""

    def __init__(self, folder: Path, prepared: Path) -> None:
        self.database, self.prepared = folder / "db.sqlite3", prepared
        super().__init__(folder, database_url=f"sqlite:///{self.database}")

    def prepare(self) -> None:
        shutil.copy(self.prepared, self.database)

    def renew(self) -> None:
        """Make the database what it was when the house was opened, while the house stands; and empty its logs.

        The sandbox keeps what it has: nothing of it is told again.
        """
        with closing(sqlite3.connect(self.prepared)) as first, closing(sqlite3.connect(self.database)) as own:
            first.backup(own)
        for log in self.folder.glob("*.log"):
            os.truncate(log, 0)
        eventually(lambda: self.meter()["raised"] == 0, "the bar is at its begin")


class GrownHouse(House):
    """A house whose database is there already, with all tables and the demo campaign."""

    def prepare(self) -> None:
        pass


def made_once(mark: Path, make: Callable[[], object]) -> None:
    """Have something made by one of all processes that share this mark; the others wait until it is."""
    with mark.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists():
            make()
            mark.touch()


@contextmanager
def opened(built: AnyHouse) -> Iterator[AnyHouse]:
    """Open a house for as long as the block lasts."""
    try:
        built.open()
        yield built
    finally:
        built.close()
