"""`./dev` as a newcomer meets it: what it says when something is missing, and what it leaves behind."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from tests.faults.__main__ import NAMES as FAULTS
from tests.house import eventually
from tests.services import free_port, postgres, redis
from tests.simulation.__main__ import arguments, same_again

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("bash", "cat", "chmod", "cp", "dirname", "mkdir", "rm", "sleep")

# Runs the code that it is given as if on another Python: the first line of the fake decides how.
FAKE_PYTHON = """#!/bin/sh
shift
exec '{python}' -c 'import sys; {spell}; exec(sys.argv[1])' "$@"
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A checkout with nothing installed, in a directory with a space in its name."""
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for name in ("dev", "requirements.txt"):
        shutil.copy(ROOT / name, checkout / name)
    return checkout


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with little more than bash on it, and no Python."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in PROGRAMS:
        (directory / name).symlink_to(shutil.which(name) or name)
    return directory


def fake_python(directory: Path, spell: str) -> None:
    path = directory / "python3"
    path.write_text(FAKE_PYTHON.format(python=sys.executable, spell=spell))
    path.chmod(0o755)


def dev(checkout: Path, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """Run `./dev` from another directory. Returns its exit code and the lines of its standard error."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        [checkout / "dev", *arguments],
        cwd="/",
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("offset", [0, 1])
def test_a_busy_port_is_named_with_a_way_out(bare: Path, offset: int) -> None:
    port = free_port(with_next=True)
    with socket.create_server(("127.0.0.1", port + offset)):
        code, lines = dev(bare, "run", "--port", str(port), PYTHON=sys.executable)
    assert code == 1
    assert len(lines) == 1
    assert f"Port {port + offset} is not free" in lines[0]
    assert f"--port {port + 10}" in lines[0]


@pytest.mark.parametrize("port", ["", "0", "80", "x", "65535", "080000", "8000 8001", "-1"])
def test_a_port_that_is_none_is_refused(bare: Path, port: str) -> None:
    code, lines = dev(bare, "run", "--port", port)
    assert (code, len(lines)) == (1, 1)
    assert "1024 to 65534" in lines[0]


def test_an_unknown_command_or_option_is_refused(bare: Path) -> None:
    assert dev(bare, "fly") == (1, ['./dev does not know "fly": ./dev help lists its commands'])
    assert dev(bare, "run", "--prot", "9") == (1, ["./dev run does not know --prot: its only option is --port N"])


def test_an_old_python_is_named(bare: Path, programs: Path) -> None:
    fake_python(programs, 'sys.version_info = (3, 9, 2, "final", 0)')
    code, lines = dev(bare, "run", PATH=str(programs))
    assert (code, len(lines)) == (1, 1)
    assert "python3 is version 3.9" in lines[0]
    assert "PYTHON=" in lines[0]


def test_no_python_at_all_is_said(bare: Path, programs: Path) -> None:
    code, lines = dev(bare, "run", PATH=str(programs))
    assert (code, len(lines)) == (1, 1)
    assert "Python 3.11 or newer is needed, and there is none" in lines[0]


def test_a_named_python_that_is_not_there_is_said_and_no_other_taken(bare: Path) -> None:
    code, lines = dev(bare, "run", "--port", str(free_port()), PYTHON="/nowhere/python3")
    assert (code, len(lines)) == (1, 1)
    assert "there is none at /nowhere/python3" in lines[0]
    assert not (bare / ".venv").exists()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_venv_is_named_with_the_package_to_install(bare: Path, programs: Path, module: str) -> None:
    fake_python(programs, f'sys.modules["{module}"] = None')
    code, lines = dev(bare, "run", PATH=str(programs))
    assert (code, len(lines)) == (1, 1)
    assert "python3 has no venv module" in lines[0]
    assert "python3-venv" in lines[0]


@pytest.mark.timeout(180)  # it makes an environment, which takes a minute where others are at work
@pytest.mark.journey
def test_without_a_network_the_packages_are_named_and_the_log(bare: Path) -> None:
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    code, lines = dev(
        bare,
        "run",
        "--port",
        str(free_port()),
        PYTHON=sys.executable,
        PIP_INDEX_URL=f"http://127.0.0.1:{free_port()}/simple",
        **offline,
    )
    assert (code, len(lines)) == (1, 1)
    assert "check the network connection" in lines[0]
    assert (bare / "var/log/install.log").stat().st_size > 0


# ---------------------------------------------------------------- ./dev run


def hear_signals() -> None:
    """As in a terminal: who runs the tests in the background has these ignored, and a shell cannot undo that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class LocalSite:
    """`./dev run` in a copy of this checkout."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.port = free_port(with_next=True)
        self.process = subprocess.Popen(
            [checkout / "dev", "run", "--port", str(self.port)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=hear_signals,
        )

    def read_addresses(self) -> list[str]:
        """What it prints until it is up."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line.strip())
            if "Ctrl-C" in line:
                return lines
        raise AssertionError(f"it ended: {lines} {self.process.communicate()}")

    def processes(self) -> list[int]:
        """All that run from the copy, by /proc."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                at_home = (directory / "cwd").readlink() == self.checkout
                dead = "\nState:\tZ" in (directory / "status").read_text()
            except OSError:
                continue
            if at_home and not dead:
                found.append(int(directory.name))
        return found

    def find(self, *words: str) -> int:
        """The first of its processes whose command line has all of `words`."""
        for pid in sorted(self.processes()):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if set(words) <= set(command):
                return pid
        raise AssertionError(f"no process with {words}")

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send the signal. Returns the exit code and the standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all: the first to run in it finds nothing prepared."""
    checkout = tmp_path_factory.mktemp("checkout") / "100% a+b #c"
    ignored = shutil.ignore_patterns(".git", ".venv", "var", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, checkout, ignore=ignored)
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    return checkout


@pytest.fixture
def local_site(checkout: Path) -> Iterator[LocalSite]:
    site = LocalSite(checkout)
    yield site
    if site.process.poll() is None:
        site.end(signal.SIGTERM)


@pytest.mark.journey
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_shows_the_way_in_and_leaves_nothing_running(local_site: LocalSite, number: signal.Signals) -> None:
    lines = local_site.read_addresses()
    base = f"http://127.0.0.1:{local_site.port}"
    for path in ("/give/", "/demo/article/", "/staff/"):
        assert any(line.endswith(base + path) for line in lines)
    with urllib.request.urlopen(f"{base}/give/") as page:
        assert page.status == 200
    for name in ("secret-key", "webhook-secret"):
        assert (local_site.checkout / "var" / name).stat().st_mode & 0o777 == 0o600

    assert local_site.end(number) == (0, "")
    assert local_site.processes() == []


@pytest.mark.journey
@pytest.mark.parametrize(("words", "name"), [(("sandbox", "--port"), "sandbox"), (("granian",), "site")])
def test_when_one_dies_the_other_is_stopped_and_it_says_which(
    local_site: LocalSite, words: tuple[str, ...], name: str
) -> None:
    local_site.read_addresses()
    os.kill(local_site.find(*words), signal.SIGKILL)
    _, errors = local_site.process.communicate(timeout=20)
    assert local_site.process.returncode == 1
    assert errors.splitlines()[-1].startswith(f"The {name} stopped by itself")
    assert f"var/log/{name}.log" in errors
    assert local_site.processes() == []


def left_in(checkout: Path) -> dict[str, int]:
    """When each file in var that a run writes at its start alone was last written."""
    names = ("run.lock", "secret-key", "webhook-secret", "log/prepare.log")
    return {name: (checkout / "var" / name).stat().st_mtime_ns for name in names}


@pytest.mark.journey
@pytest.mark.parametrize("offset", [0, 20])
def test_a_second_run_names_the_first_and_changes_nothing(local_site: LocalSite, offset: int) -> None:
    local_site.read_addresses()
    before = left_in(local_site.checkout)
    code, lines = dev(local_site.checkout, "run", "--port", str(local_site.port + offset))
    assert (code, lines) == (1, [f"Supportsite runs from here on port {local_site.port}: stop it first."])
    assert left_in(local_site.checkout) == before
    with urllib.request.urlopen(f"http://127.0.0.1:{local_site.port}/give/") as page:
        assert page.status == 200


@pytest.mark.journey
def test_where_the_watch_was_killed_too_the_next_run_says_how_to_end_what_is_left(local_site: LocalSite) -> None:
    local_site.read_addresses()
    os.killpg(local_site.process.pid, signal.SIGKILL)
    local_site.process.communicate(timeout=20)
    code, [line] = dev(local_site.checkout, "run", "--port", str(local_site.port))
    assert code == 1
    said, _, way = line.partition(": end it with: ")
    assert said == f"A killed ./dev run left its site on port {local_site.port}"
    subprocess.run(["bash", "-c", way], check=True)
    eventually(lambda: not local_site.processes(), "its site and its sandbox are gone")
    another = LocalSite(local_site.checkout)
    another.read_addresses()
    assert another.end(signal.SIGTERM) == (0, "")


@pytest.mark.journey
def test_what_a_run_started_does_not_outlive_it_even_where_it_was_killed(local_site: LocalSite) -> None:
    local_site.read_addresses()
    os.kill(local_site.process.pid, signal.SIGKILL)
    eventually(lambda: not local_site.processes(), "its site and its sandbox are gone, too")
    local_site.process.communicate(timeout=20)
    another = LocalSite(local_site.checkout)
    another.read_addresses()
    assert another.end(signal.SIGTERM) == (0, "")


def managed(checkout: Path, *arguments: str) -> str:
    """What `./dev manage` prints."""
    done = subprocess.run(
        [checkout / "dev", "manage", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


ADDRESSES = "from django.conf import settings; print(settings.SITE_URL, settings.STRIPE_API_BASE)"


def addresses(checkout: Path) -> list[str]:
    """Where `./dev manage` takes the site and its sandbox to be."""
    return managed(checkout, "shell", "--no-imports", "-c", ADDRESSES).split()


@pytest.mark.journey
def test_manage_goes_to_the_site_that_runs(local_site: LocalSite) -> None:
    local_site.read_addresses()
    port = local_site.port
    assert addresses(local_site.checkout) == [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
    assert "sandbox: it is now" in managed(local_site.checkout, "sandbox", "--advance", "1s")
    assert "both books say the same" in managed(local_site.checkout, "reconcile")
    local_site.end(signal.SIGTERM)
    assert addresses(local_site.checkout) == ["http://127.0.0.1:8000", "http://127.0.0.1:8001"]


@pytest.mark.journey
def test_what_a_killed_site_left_does_not_lead_manage_astray(checkout: Path) -> None:
    with subprocess.Popen(["true"]) as over:
        over.wait()
    (checkout / "var").mkdir(exist_ok=True)
    left = checkout / "var/run.lock"
    for pid, port in (os.getpid(), 8810), (over.pid, 8000):
        left.write_text(f"8810 {pid} -1234 -5678")
        assert addresses(checkout)[0] == f"http://127.0.0.1:{port}"
    left.unlink()


# ---------------------------------------------------------------- tests/services.py


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.journey
@pytest.mark.parametrize("way", ["stop", "stop_at_once", "kill"])
def test_postgres_keeps_what_was_committed_however_it_ended(way: str) -> None:
    with postgres() as server:
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept (n int)")
        getattr(server, way)()
        assert not listens(server.port)
        server.start()
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    assert not server.directory.exists()


@pytest.mark.journey
def test_a_paused_redis_takes_connections_and_says_nothing() -> None:
    with redis() as server:
        client = redis_client.Redis.from_url(server.url, socket_timeout=0.3, retry=None)
        server.pause()
        with pytest.raises(redis_client.TimeoutError):
            client.ping()
        assert listens(server.port)
        server.resume()
        assert client.ping()
        client.close()


@pytest.mark.journey
def test_the_services_command_ends_as_its_command_did() -> None:
    script = 'test -n "$TEST_POSTGRES_URL" && test -n "$TEST_REDIS_URL" && exit 7'
    done = subprocess.run([sys.executable, "-m", "tests.services", "--", "sh", "-c", script], cwd=ROOT)
    assert done.returncode == 7


@pytest.mark.journey
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_services_go_with_whoever_started_them(number: signal.Signals) -> None:
    script = 'echo "$TEST_POSTGRES_URL $TEST_REDIS_URL"; exec sleep 20'
    command = [sys.executable, "-m", "tests.services", "--", "sh", "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        urls = process.stdout.readline().split()
        ports = [urllib.parse.urlparse(url).port for url in urls]
        assert all(listens(port) for port in ports)
        os.killpg(process.pid, number)
    deadline = time.monotonic() + 10
    while any(listens(port) for port in ports):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_misspelt_test_file_is_told(bare: Path) -> None:
    assert dev(bare, "test", "tests/test_nothing.py") == (
        1,
        ["There is no tests/test_nothing.py: look at the names in tests/."],
    )


def usage_and_commands() -> tuple[str, list[str]]:
    """What `./dev help` says, and the commands that the script takes."""
    source = (ROOT / "dev").read_text()
    taken = re.search(r"^    (run(?: \| [a-z]+)+)\)$", source, re.MULTILINE)
    assert taken
    done = subprocess.run([ROOT / "dev", "help"], capture_output=True, text=True, check=True)
    return done.stdout, taken[1].split(" | ")


def test_help_names_every_command_and_every_fault() -> None:
    usage, commands = usage_and_commands()
    assert {"simulate", "faults"} < set(commands)
    for command in commands:
        assert re.search(rf"^  {command}\b", usage, re.MULTILINE), command
    assert "|".join(FAULTS) in usage


@pytest.mark.journey
def test_a_fault_that_is_none_is_refused_and_the_others_are_named() -> None:
    code, lines = dev(ROOT, "faults", "kills", "fire")
    assert code == 2
    assert lines[-1].endswith(f"there is no fault fire: they are {', '.join(FAULTS)}")


@pytest.mark.journey
@pytest.mark.timeout(180)
def test_a_seed_makes_the_same_world_again() -> None:
    command = [ROOT / "dev", "simulate", "--seed", "7", "--deliveries", "1500"]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert "0 lost, 0 counted twice; 0 findings in the books" in said[0]
    worlds = [re.sub(r"in \d+ s$", "", text, flags=re.MULTILINE) for text in said]
    assert worlds[0] == worlds[1]


@pytest.mark.parametrize("on", ["", " --postgres"])
def test_a_simulation_says_the_command_that_plays_it_again(on: str) -> None:
    again = f"./dev simulate --seed 77 --deliveries 4000{on}"
    assert same_again(arguments(again.split()[2:])) == again
