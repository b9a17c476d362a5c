"""One deadline for a whole call to a processor, whatever its sockets do."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest

from donations.processors import deadline
from donations.processors.base import ProcessorBusy, ProcessorRefused, ProcessorUnavailable
from donations.processors.deadline import LONG, RESTS, TRIES, Patience, within
from donations.processors.stripe import StripeProcessor
from tests.hands import Hands
from tests.sandbox import eventually

AMPLE = 20.0
"""Seconds: more than a call that nothing holds up takes on any machine."""


@pytest.fixture(autouse=True)
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    """The clock of a patience of the test's own, which nobody has tried yet."""
    made = Hands()
    monkeypatch.setattr(deadline, "patience", Patience(made))
    return made


def open_checkout(port: int, host: str = "127.0.0.1") -> None:
    adapter = StripeProcessor(
        api_key="sk_test_x", api_base=f"http://{host}:{port}", webhook_secrets=["whsec_x"], livemode=False
    )
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


def wait_for_nothing(hands: Hands) -> None:
    """Nobody answers, and by the clock that takes just as long as it must to count."""
    never = threading.Event()
    hands.each_look = LONG
    with pytest.raises(ProcessorUnavailable, match="no whole answer"):
        within(0.01, never.wait)
    hands.each_look = 0.0
    never.set()


@contextmanager
def one_inside() -> Iterator[None]:
    """One call is under way in the block, and is answered at its end."""
    inside, go_on, answers = threading.Event(), threading.Event(), list[bool]()

    def ask() -> bool:
        inside.set()
        return go_on.wait(AMPLE)

    asking = threading.Thread(target=lambda: answers.append(within(AMPLE, ask)))
    asking.start()
    try:
        assert inside.wait(AMPLE)
        yield
    finally:
        go_on.set()
        asking.join()
    assert answers == [True]


def test_after_a_wait_for_nothing_nobody_asks_for_a_moment_and_then_one_at_a_time(hands: Hands) -> None:
    wait_for_nothing(hands)
    hands.now += RESTS - 0.25
    assert not _is_let_through()
    hands.now += 0.25
    with one_inside(), pytest.raises(ProcessorUnavailable, match="it kept others waiting"):
        within(AMPLE, lambda: None)
    # Once it answers, all are let through again.
    assert _together(3) == 3


def test_a_trial_that_waits_for_nothing_too_begins_it_anew(hands: Hands) -> None:
    wait_for_nothing(hands)
    hands.now += RESTS
    wait_for_nothing(hands)
    assert not _is_let_through()


def test_when_nobody_tried_for_a_while_all_are_let_through(hands: Hands) -> None:
    wait_for_nothing(hands)
    hands.now += RESTS + TRIES
    assert _together(3) == 3


def test_a_refusal_says_that_the_processor_is_there(hands: Hands) -> None:
    def refuse() -> None:
        raise ProcessorRefused("no")

    wait_for_nothing(hands)
    hands.now += RESTS
    with pytest.raises(ProcessorRefused):
        within(AMPLE, refuse)
    assert _together(3) == 3


def test_the_same_call_that_is_under_way_is_not_waited_for_while_it_is_away(hands: Hands) -> None:
    """It says nothing of whether it is there: the next one is a trial still."""

    def conflict() -> None:
        raise ProcessorBusy("the key is in use")

    with pytest.raises(ProcessorBusy):
        within(AMPLE, conflict)
    wait_for_nothing(hands)
    hands.now += RESTS
    with pytest.raises(ProcessorUnavailable) as fault:
        within(AMPLE, conflict)
    assert not isinstance(fault.value, ProcessorBusy)
    with one_inside():
        assert not _is_let_through()


def _is_let_through() -> bool:
    try:
        within(AMPLE, lambda: None)
    except ProcessorUnavailable:
        return False
    return True


def _together(number: int) -> int:
    """How many of these calls, all under way at once, are let through."""
    barrier = threading.Barrier(number)
    through: list[int] = []

    def call() -> None:
        with suppress(ProcessorUnavailable, threading.BrokenBarrierError):
            through.append(within(AMPLE, lambda: barrier.wait(AMPLE / 2)))

    threads = [threading.Thread(target=call) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(through)


def test_what_a_call_returns_or_raises_is_what_its_caller_gets() -> None:
    assert within(AMPLE, lambda: "answer") == "answer"

    def refuse() -> None:
        raise ProcessorRefused("no")

    with pytest.raises(ProcessorRefused):
        within(AMPLE, refuse)


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
        within(AMPLE, lambda: None)
    go_on.set()

    def is_free() -> bool:
        with suppress(ProcessorUnavailable):
            within(AMPLE, lambda: None)
            return True
        return False

    eventually(is_free)
