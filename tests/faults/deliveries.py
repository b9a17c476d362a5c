"""Signed deliveries to a real house: what is told, who tells it, and what must be in the books in the end.

The sender does as the processor does: what was not answered 200 is told again, and some is told twice all the same.
What was answered 200 is what must not be lost. Django must be set up, on the house's own database.
"""

import http.client
import json
import random
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.db import connection

from donations import invariants
from donations.models import Campaign, Gift, InboxEvent, LedgerEntry
from tests.factories import Event, checkout_event, refund_event, signature_of
from tests.house import House, eventually

SECRET = "whsec_journeys"
Movement = tuple[str, str, int]  # kind, reference, minor units
REPEATED = 0.1


@dataclass(frozen=True)
class Delivery:
    """One event as bytes, and the movement of money that it must end as."""

    event: str
    body: bytes
    movement: Movement


def deliveries(count: int, *, padding: int = 0) -> list[Delivery]:
    """So many events: gifts that were paid, of which every fifth was refunded in part. Their gifts are made first."""
    campaign = Campaign.objects.get(is_default=True)
    mark = secrets.token_hex(4)
    gifts = [
        Gift(reference=f"gift_{mark}x{number}", campaign=campaign, amount=1000 + number, tier="custom",
             currency=campaign.currency, livemode=False, processor="stripe")
        for number in range(count)
    ]  # fmt: skip
    Gift.objects.bulk_create(gifts, batch_size=500)
    connection.close()  # the database will be broken before we look again
    return [made for number, gift in enumerate(gifts) for made in _of(gift, number, padding)][:count]


def _of(gift: Gift, number: int, padding: int) -> Iterator[Delivery]:
    extra = secrets.token_hex(padding // 2)
    yield _delivery(checkout_event(gift, custom=extra), ("gift", f"pi_{gift.pk[5:]}", gift.amount))
    if number % 5 == 0:
        refund = f"re_{gift.pk[5:]}"
        yield _delivery(refund_event(gift, 500, refund=refund), ("refund", refund, -500))


def _delivery(told: Event, movement: Movement) -> Delivery:
    told["id"] = f"evt_{secrets.token_hex(12)}"
    return Delivery(told["id"], json.dumps(told).encode(), movement)


@dataclass
class Sender:
    """Tells deliveries to a house from some threads, about `rate` a second, until it is stopped."""

    home: House
    fresh: deque[Delivery]
    rate: float
    threads: int = 4
    seed: int = 0
    begun: dict[str, Delivery] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    answers: Counter[int] = field(default_factory=Counter)  # by status; 0 is no answer
    seconds: list[float] = field(default_factory=list)  # that each acknowledgement took

    def __post_init__(self) -> None:
        self.again: deque[Delivery] = deque()
        self.stopping = threading.Event()
        self.running: list[threading.Thread] = []

    def start(self) -> None:
        self.stopping.clear()
        self.running = [threading.Thread(target=self._run, args=(number,)) for number in range(self.threads)]
        for thread in self.running:
            thread.start()

    def stop(self) -> None:
        """Returns once no request is under way."""
        self.stopping.set()
        for thread in self.running:
            thread.join()

    def send_all(self) -> None:
        """Tell all that is left, some at a time, once each; returns when each was answered or was not."""
        client, left = self._connection(), [*self.again, *self.fresh]
        self.again.clear()
        self.fresh.clear()
        for delivery in left:
            self._tell(client, delivery)

    def insist(self, revive: Callable[[], object], patience: float = 120) -> None:
        """Tell again whatever was begun and never acknowledged, until all is; `revive` starts what has ended."""
        end = time.monotonic() + patience
        while unheard := [delivery for key, delivery in self.begun.items() if key not in self.acknowledged]:
            assert time.monotonic() < end, f"{len(unheard)} were never acknowledged: {self.answers}\n{self.home.logs()}"
            revive()
            self.again = deque(unheard)
            self.send_all()
        self.again.clear()

    def _run(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        client = self._connection()
        while not self.stopping.is_set():
            began = time.monotonic()
            if delivery := self._next():
                status = self._tell(client, delivery)
                if status == 200 and rng.random() < REPEATED:
                    self.again.append(delivery)
            self.stopping.wait(max(0.0, self.threads / self.rate - (time.monotonic() - began)))
        client.close()

    def _next(self) -> Delivery | None:
        for source in (self.again, self.fresh):
            try:
                return source.popleft()
            except IndexError:
                continue
        return None

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", int(self.home.ports["site"]), timeout=30)

    def _tell(self, client: http.client.HTTPConnection, delivery: Delivery) -> int:
        """The status of the answer, or 0 where there was none."""
        self.begun[delivery.event] = delivery
        headers = {"Stripe-Signature": signature_of(delivery.body, secret=SECRET), "Content-Type": "application/json"}
        began = time.perf_counter()
        try:
            client.request("POST", "/webhooks/stripe/", delivery.body, headers)
            answer = client.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            client.close()
            status = 0
        self.answers[status] += 1
        if status == 200:
            self.seconds.append(time.perf_counter() - began)
            self.acknowledged.add(delivery.event)
        else:
            self.again.append(delivery)
        return status


# ---- the verdict


def unsettled() -> int:
    """How many events are not at their end."""
    return InboxEvent.objects.filter(next_try_at__isnull=False).count()


def settled(patience: float = 120) -> float:
    """Wait until every event is at its end; how many seconds that took."""
    began = time.monotonic()
    eventually(lambda: not unsettled(), lambda: f"{unsettled()} events are not at their end", patience)
    connection.close()  # the database may be broken before we look again
    return time.monotonic() - began


@dataclass(frozen=True)
class Verdict:
    """What the books say beside what was acknowledged."""

    acknowledged: int
    lost: list[str]
    unprocessed: int
    missing: list[Movement]
    unexpected: list[Movement]
    findings: list[str]

    @property
    def holds(self) -> bool:
        return not (self.lost or self.unprocessed or self.missing or self.unexpected or self.findings)

    def __str__(self) -> str:
        said = (
            f"{self.acknowledged:,} events acknowledged: {len(self.lost)} lost, {self.unprocessed} unprocessed; "
            f"{len(self.missing)} movements missing, {len(self.unexpected)} counted twice or wrong, "
            f"{len(self.findings)} findings in the books: {'holds' if self.holds else 'DOES NOT HOLD'}"
        )
        return "\n  ".join([said, *map(str, [*self.lost, *self.missing, *self.unexpected, *self.findings][:20])])


def verdict(sender: Sender) -> Verdict:
    """Compare inbox and ledger with all that the sender has told; exactly these movements, each once."""
    stored = dict(InboxEvent.objects.values_list("event_id", "state"))
    told = Counter(delivery.movement for delivery in sender.begun.values())
    booked = Counter(LedgerEntry.objects.values_list("kind", "reference", "amount"))
    return Verdict(
        acknowledged=len(sender.acknowledged),
        lost=sorted(sender.acknowledged - stored.keys()),
        unprocessed=sum(stored.get(key) != InboxEvent.State.PROCESSED for key in sender.begun),
        missing=sorted((told - booked).elements()),
        unexpected=sorted((booked - told).elements()),
        findings=[str(finding) for finding in invariants.check()],
    )
