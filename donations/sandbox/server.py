"""The sandbox behind the standard library's HTTP server: a thread a request, on loopback unless told otherwise."""

import socket
import socketserver
import threading
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from .app import Sandbox
from .clock import Clock
from .deliveries import Target

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread a request; none is waited for at the end."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler], *, ipv6: bool = False) -> None:
        self.address_family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self._away_for: float | None = None
        self._stopping = threading.Event()
        super().__init__(address, handler)

    def leave(self, seconds: float) -> None:
        """Stop listening for a while: who calls then is refused. Returns at once."""
        self._away_for = seconds
        threading.Thread(target=self.shutdown, name="leaving", daemon=True).start()

    def work(self, poll: float) -> None:
        """Answer until `stop`, but for the times when it is told to leave."""
        self.serve_forever(poll)
        while self._away_for is not None and not self._stopping.is_set():
            self.socket.close()
            self._stopping.wait(self._away_for)
            self._away_for = None
            if self._listen_again():
                self.serve_forever(poll)

    def _listen_again(self) -> bool:
        """Listen at the same port as before; wait while somebody else has it. False: told to stop instead."""
        while not self._stopping.is_set():
            self.socket = socket.socket(self.address_family, self.socket_type)
            try:
                self.server_bind()
                self.server_activate()
            except OSError:
                self.socket.close()
                self._stopping.wait(0.1)
            else:
                return True
        return False

    def stop(self) -> None:
        """Stop for good."""
        self._stopping.set()
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for our name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hung up is no news."""


class Handler(WSGIRequestHandler):
    """Without an access log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        return

    def address_string(self) -> str:
        return str(self.client_address[0])


@dataclass(slots=True)
class Running:
    """A sandbox that answers at `url`."""

    sandbox: Sandbox
    server: Server
    url: str
    _thread: threading.Thread = field(repr=False)

    def close(self) -> None:
        """Stop at once."""
        self.server.stop()
        self.sandbox.close()
        self._thread.join(timeout=2)


def serve(
    state: Path,
    target: Target,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    public_url: str = "",
    clock: Clock | None = None,
    poll: float = 0.05,
) -> Running:
    """Start a sandbox; port 0 takes a free one. `poll`: every how many seconds it looks whether to stop.

    Raises OSError for a busy port, StateUnusable for a bad state file.
    """
    server = Server((host, port), Handler, ipv6=":" in host)
    try:
        sandbox = Sandbox(state, target, public_url=public_url, clock=clock)
    except BaseException:
        server.server_close()
        raise
    server.set_app(sandbox)
    sandbox.trouble.leave = server.leave
    if _is_loopback(host):
        sandbox.own_names = LOOPBACK | {urlsplit(public_url).hostname or _in_url(host)}
    thread = threading.Thread(target=server.work, args=(poll,), name="sandbox", daemon=True)
    running = Running(sandbox, server, f"http://{_in_url(host)}:{server.server_port}", thread)
    sandbox.start()
    thread.start()
    return running


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
