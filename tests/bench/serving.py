"""A server under load: granian with the site and its peers, and wrk against it."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.services import children, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONNECTIONS = 16
CORES = os.cpu_count() or 1
TICKS = os.sysconf("SC_CLK_TCK")
MOST_CLIENT = 0.4


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: a GET, or a POST where there is a body; with one header of its own."""

    path: str
    header: str = ""
    value: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of load gave. `client` is the client's share of the machine's CPU."""

    rate: float
    server_microseconds: float
    client: float


class Serving:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process, self.url = process, url

    def load(self, requests: list[Request], seconds: int) -> Round:
        """Send these, over and over, for so long. Raises RuntimeError if one fails."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            for request in requests:
                file.write(f"{request.path}\t{request.header}\t{request.value}\t{request.body}\n")
            file.flush()
            return self._wrk(file.name, seconds, len(requests))

    def _wrk(self, file: str, seconds: int, requests: int) -> Round:
        command = ["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", "-s", str(HERE / "load.lua")]
        used, server = resource.getrusage(resource.RUSAGE_CHILDREN), self._cpu()
        done = subprocess.run([*command, self.url, "--", file], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        sent, microseconds, odd = map(int, done.stderr.strip().splitlines()[-1].split())
        if odd:
            raise RuntimeError(f"{odd} of {sent} requests failed: {done.stdout}")
        client = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
        if requests > 1 and sent > requests:
            raise RuntimeError(f"{sent} requests were sent of {requests} that were prepared: some were repeated")
        lasted = microseconds / 1e6
        return Round(sent / lasted, (self._cpu() - server) / max(sent, 1) * 1e6, client / (lasted * CORES))

    def _cpu(self) -> float:
        """Seconds of CPU that the server's processes have used."""
        total = 0
        for pid in [self.process.pid, *children(self.process.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS


@contextmanager
def serving(database_url: str) -> Iterator[Serving]:
    """The site and its peers under granian: a worker a core, four threads each."""
    port = free_port()
    options = "--interface wsgi --no-ws --log-level error --host 127.0.0.1 --blocking-threads 4"
    command = [sys.executable, "-m", "granian", *options.split(), "--workers", str(CORES), "--port", str(port)]
    environment = os.environ | {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "tests.bench.settings"}
    process = subprocess.Popen([*command, "tests.bench.wsgi:application"], cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        await_answer(url)
        yield Serving(process, url)
    finally:
        process.terminate()
        process.wait(timeout=20)


def await_answer(url: str) -> None:
    """Wait until a server answers, whatever it says. Raises RuntimeError."""
    for _ in range(200):
        try:
            httpx.get(f"{url}/healthz", trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server did not start")
