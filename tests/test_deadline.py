"""One deadline for a whole call to a processor, whatever its sockets do."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from donations.processors import deadline
from donations.processors.base import ProcessorRefused, ProcessorUnavailable
from donations.processors.deadline import within
from donations.processors.stripe import StripeProcessor
from tests.sandbox import eventually


def open_checkout(port: int, host: str = "127.0.0.1") -> None:
    adapter = StripeProcessor(api_key="sk_test_x", api_base=f"http://{host}:{port}", webhook_secrets=["whsec_x"])
    adapter.create_checkout({"mode": "payment"}, "k", email="", within=1.0)


@pytest.fixture
def dribbling() -> Iterator[int]:
    """The port of a server that answers a byte every 50 ms, each well within any limit of one read."""
    stopped = threading.Event()

    def dribble(caller: socket.socket) -> None:
        with closing(caller), suppress(OSError):
            caller.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stopped.wait(0.05):
                caller.sendall(b" ")

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=dribble, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield listening.getsockname()[1]
        stopped.set()


def test_a_processor_that_answers_a_byte_at_a_time_is_given_up(dribbling: int) -> None:
    began = time.monotonic()
    with pytest.raises(ProcessorUnavailable):
        open_checkout(dribbling)
    assert time.monotonic() - began < 2


def test_a_name_with_many_dead_addresses_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address takes no caller: its queue is full, and connecting waits."""
    with ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = full.getsockname()[1]
        for _ in range(4):
            caller = opened.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        addresses: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))] * 8
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        began = time.monotonic()
        with pytest.raises(ProcessorUnavailable):
            open_checkout(port, "processor.example")
        assert 0.9 < time.monotonic() - began < 2


def test_what_a_call_returns_or_raises_is_what_its_caller_gets() -> None:
    assert within(5, lambda: "answer") == "answer"

    def refuse() -> None:
        raise ProcessorRefused("no")

    with pytest.raises(ProcessorRefused):
        within(5, refuse)


def test_without_time_left_nothing_is_asked() -> None:
    asked: list[bool] = []
    with pytest.raises(ProcessorUnavailable, match="no time was left"):
        within(0, lambda: asked.append(True))
    assert asked == []


def test_late_calls_hold_so_many_places_and_give_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_free", threading.BoundedSemaphore(2))
    go_on = threading.Event()
    for _ in range(2):
        with pytest.raises(ProcessorUnavailable, match=r"no whole answer within 0\.0 s"):
            within(0.01, go_on.wait)
    with pytest.raises(ProcessorUnavailable, match="too many calls"):
        within(5, lambda: None)
    go_on.set()

    def is_free() -> bool:
        with suppress(ProcessorUnavailable):
            within(5, lambda: None)
            return True
        return False

    eventually(is_free)
