"""PostgreSQL and Redis, each private to whoever starts it, on a free loopback port, and gone afterwards.

As a command, for a whole test run:

    python -m tests.services -- COMMAND ...

runs COMMAND with TEST_POSTGRES_URL and TEST_REDIS_URL set, stops both servers, and exits as COMMAND did.

As a library, for a benchmark or a test of faults:

    with postgres() as server:
        connect(server.url)
        server.kill()    # or stop(), stop_at_once(), pause(), resume()
        server.start()   # on the same address, with the same data

A server outlives neither its `with` block nor the process that started it, even one that was killed.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 30.0  # seconds for a server to start or stop

# Waits until the process that holds its standard input is gone, whatever became of it; then ends the server whose
# pid file is $1 with signal $2, and removes its directory $3.
GUARD = """
cat > /dev/null
pid=$(head -n 1 "$1" 2> /dev/null) && kill -"$2" "$pid" 2> /dev/null && sleep 1
rm -rf "$3"
"""


class Missing(RuntimeError):
    """A server program is not installed. The message names it."""


class Server:
    """One private server in a directory of its own. `url` and its data stay the same from start to start."""

    name = ""
    pid_file = ""
    stop_signal = signal.SIGTERM
    panic_signal = signal.SIGKILL

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.directory = Path(tempfile.mkdtemp(prefix=f"supportsite-{self.name.lower()}-"))
        self.process: subprocess.Popen[bytes] | None = None
        account = unprivileged_account()
        self._owner = (account.pw_uid, account.pw_gid) if account else (-1, -1)
        self._as_owner: dict[str, Any] = {}
        if account:
            self._as_owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self._own(self.directory)
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", self.directory / self.pid_file, str(int(self.panic_signal)), self.directory],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start, or start again, and return once the server answers."""
        if self.process is not None:
            raise RuntimeError(f"{self.name} runs already")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_owner,
            )
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def start_if_ended(self) -> None:
        """As a service manager does where a server has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            self.process = None
            self.start()

    def stop(self) -> None:
        """An orderly stop: connections are ended, data is written."""
        self._end(self.stop_signal)

    def stop_at_once(self) -> None:
        """A stop without writing anything, as in a panic. Data is recovered at the next start."""
        self._end(self.panic_signal)

    def kill(self) -> None:
        """As when the kernel kills it: the server and all its children end in mid-sentence. Returns once they have."""
        if self.process is None:
            return
        send(self.process.pid, signal.SIGSTOP)  # it starts nobody meanwhile
        started = children(self.process.pid)
        self._send_all(signal.SIGKILL)
        self._end(signal.SIGKILL)
        while not all(has_ended(pid) for pid in started):  # each of them holds the port
            time.sleep(0.01)

    def pause(self) -> None:
        """As when it hangs: connections are accepted by the kernel, and nobody answers."""
        self._send_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_all(signal.SIGCONT)

    def close(self) -> None:
        """Stop whatever state it is in, and remove all that it wrote."""
        self.resume()
        try:
            self.stop_at_once()
        except subprocess.TimeoutExpired:
            self.kill()
        (self.directory / self.pid_file).unlink(missing_ok=True)
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        send(self.process.pid, number)
        self.process.wait(PATIENCE)
        self.process = None

    def _send_all(self, number: signal.Signals) -> None:
        if self.process is not None:
            for pid in [self.process.pid, *children(self.process.pid)]:
                send(pid, number)

    def _own(self, path: Path) -> None:
        os.chown(path, *self._owner)


class Postgres(Server):
    """A cluster with one database, `supportsite`, whose owner may create others. Made anew in about two seconds."""

    name = "PostgreSQL"
    pid_file = "data/postmaster.pid"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients to leave
    panic_signal = signal.SIGQUIT  # "immediate"; unlike a kill, it leaves no shared memory behind

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._programs = postgres_programs()
        super().__init__()
        self._settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}
        self._create()

    @property
    def url(self) -> str:
        return f"postgres://supportsite:{self.password}@127.0.0.1:{self.port}/supportsite"

    def command(self) -> list[str]:
        options = [part for key, value in self._settings.items() for part in ("-c", f"{key}={value}")]
        return [str(self._programs / "postgres"), "-D", str(self.directory / "data"), "-p", str(self.port), *options]

    def answers(self) -> bool:
        """The postmaster's pid file begins with its number and ends, once it takes connections, with "ready"."""
        try:
            text = (self.directory / self.pid_file).read_text()
        except FileNotFoundError:
            return False
        return self.process is not None and text.startswith(f"{self.process.pid}\n") and "ready" in text

    def _create(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(self.password)
        self._own(password_file)
        data = str(self.directory / "data")
        options = ["-U", "supportsite", "-A", "scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8", "--no-locale"]
        self._run([str(self._programs / "initdb"), "-D", data, "--no-sync", *options])
        # A single-user backend needs no server and no client program.
        self._run([str(self._programs / "postgres"), "--single", "-D", data, "postgres"], "CREATE DATABASE supportsite")
        password_file.unlink()

    def _run(self, command: list[str], text: str = "") -> None:
        with self.log.open("ab") as log:
            subprocess.run(
                command, cwd=self.directory, input=text.encode(), stdout=log, stderr=log, check=True, **self._as_owner
            )


class Redis(Server):
    """An empty Redis, in memory only: a stop forgets everything."""

    name = "Redis"
    pid_file = "redis.pid"

    def __init__(self) -> None:
        self._program = program("redis-server", "valkey-server", package="Redis")
        super().__init__()
        self._config = self.directory / "redis.conf"
        self._config.touch(0o600)
        self._config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\nsave ""\nappendonly no\n'
            f"dir {self.directory}\npidfile {self.directory / self.pid_file}\n"
        )
        self._own(self._config)

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        return [self._program, str(self._config)]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A running PostgreSQL. `settings` are its configuration, such as `max_connections="200"` or `fsync="off"`."""
    server = Postgres(settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def redis() -> Iterator[Redis]:
    """A running Redis."""
    server = Redis()
    try:
        server.start()
        yield server
    finally:
        server.close()


def free_port(*, with_next: bool = False) -> int:
    """A loopback port that nobody listens on now, and nobody on the next one if that is wanted too.

    Below the range that the kernel gives to outgoing connections: while a server is down, a client that tries again
    and again would otherwise, once in a while, be given the server's own port and talk to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        if all(_is_free(one) for one in ((port, port + 1) if with_next else (port,))):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def postgres_programs() -> Path:
    """The directory of the newest PostgreSQL server installed. Debian keeps it off the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return (debian[-1] if debian else Path(program("initdb", package="PostgreSQL")).resolve()).parent


def program(*names: str, package: str) -> str:
    """The path of the first of `names` that is installed. Raises Missing."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise Missing(f"{package} is not installed ({' or '.join(names)} not found)")


def unprivileged_account() -> pwd.struct_passwd | None:
    """Who the servers run as: None, ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None
    names = {account.pw_name: account for account in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def children(pid: int) -> list[int]:
    """The processes that `pid` started. Empty where there is no /proc."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or has ended and nobody has asked how. True where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def run(command: list[str]) -> int:
    """Run `command` beside both servers. Returns its exit code, 128 + n if signal n ended it."""
    with ExitStack() as stack:
        # Tests that measure or break durability start a server of their own, which syncs.
        # Which plans the tests find would depend on when a table was last vacuumed, and whether it was empty just then.
        database = stack.enter_context(postgres(fsync="off", max_connections="200", autovacuum="off"))
        broker = stack.enter_context(redis())
        environment = os.environ | {"TEST_POSTGRES_URL": database.url, "TEST_REDIS_URL": broker.url}
        process = subprocess.Popen(command, env=environment)
        # Ctrl-C reaches the command too: it ends by itself, and we wait for it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        code = process.wait()
        return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        print("Usage: python -m tests.services -- COMMAND ...", file=sys.stderr)
        return 2
    # Until the command runs, TERM unwinds as Ctrl-C does, so that nothing is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run(arguments)
    except Missing as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
