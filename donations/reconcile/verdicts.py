"""What both books say of one movement: as a verdict with its cause, in sums, and as it is stored and shown.

By currency and type, the processor's sum is ours plus the differences.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why both books differ. `agreed`: they do not, once it is named; `explained`: time or a person sees to it."""

    name: str
    words: str
    remedy: str
    agreed: bool = False
    explained: bool = False


FOREIGN = Cause("foreign", "It is of other software on the same account.", "Nothing.", agreed=True)
OWN = Cause("own", "It is the account's own: no gift caused it.", "Nothing.", agreed=True)
UNSETTLED = Cause(
    "unsettled", "The money has left the balance, and the refund has not succeeded yet.", "Nothing.", agreed=True
)
AWAITED = Cause(
    "awaited", "A payment that is on its way: the processor has announced its money.", "Nothing.", agreed=True
)
OUT_AND_BACK = Cause(
    "out_and_back",
    "A refund or a payment that came to nothing: its money came back, or went back.",
    "Nothing.",
    agreed=True,
)
DISMISSED = Cause("dismissed", "Staff decided that it is not booked.", "Nothing.", agreed=True)
RECENT = Cause("recent", "The processor has not listed its movement yet.", "Nothing, for three days.", agreed=True)
WAITING = Cause(
    "waiting",
    "It waits in the inbox for what it belongs to.",
    "Nothing: after 72 hours it is quarantined.",
    explained=True,
)
CORRECTED = Cause("corrected", "Staff have corrected it by adjustments under its number.", "Nothing.", explained=True)
QUARANTINED = Cause("quarantined", "It is quarantined.", "Decide about it in the inbox.", explained=True)
ASKED_FOR = Cause(
    "asked_for",
    "The processor has it, and another process is asking for it at this moment, or was and has ended.",
    "Nothing: the next run has the answer, or asks itself.",
    explained=True,
)
MISSING_HERE = Cause(
    "missing_here",
    "The processor has it, and nothing here tells of it.",
    "It is asked for at the next run; manage.py reconcile does so at once. If it stays, look at it in the processor's "
    "dashboard.",
)
MISSING_THERE = Cause(
    "missing_there",
    "It is booked here, and the processor does not list it.",
    "Look at the entry and its inbox event: was the key changed to another account's, or a table edited? An adjustment "
    "with its number as the reference settles it.",
)
AMOUNT = Cause(
    "amount_differs",
    "Both books have it, with another amount.",
    "Compare the entry with the processor's dashboard; correct it by an adjustment with its number as the reference. "
    "Where one stands already and is not enough, enter the rest as another, with /2 after the number.",
)
UNBOOKED = Cause(
    "unbooked_type",
    "A movement of a gift's payment, of a type that is not booked.",
    "Look at it in the processor's dashboard; book it as an adjustment with its number as the reference.",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What both books say of one movement. Amounts are signed, minor units of the settlement's currency."""

    type: str
    currency: str
    reference: str
    payment: str
    theirs: int
    their_fee: int
    ours: int
    our_fee: int
    cause: Cause | None = None
    detail: str = ""
    exchange_rate: str = ""

    @property
    def is_open(self) -> bool:
        return self.cause is not None and not self.cause.agreed

    @property
    def is_unexplained(self) -> bool:
        return self.cause is not None and not (self.cause.agreed or self.cause.explained)


# ---- the sums


def add(books: Json, verdicts: Iterable[Verdict]) -> Json:
    """The sums by currency and type, with these verdicts in them."""
    sums: dict[str, dict[str, int]] = {name: dict(row) for name, row in books.items()}
    for each in verdicts:
        row = sums.setdefault(f"{each.currency} {each.type}", dict.fromkeys(COLUMNS, 0))
        row["count"] += 1
        row["theirs"] += each.theirs
        row["their_fees"] += each.their_fee
        row["ours"] += each.ours
        row["our_fees"] += each.our_fee
        if each.cause and each.cause.agreed and each.cause is not OWN:
            row["agreed"] += each.theirs - each.ours
            row["agreed_fees"] += each.their_fee - each.our_fee
    return sums


COLUMNS = ("count", "theirs", "their_fees", "ours", "our_fees", "agreed", "agreed_fees")


def as_json(verdict: Verdict) -> Json:
    """A difference as it is stored and shown."""
    cause = verdict.cause
    assert cause is not None  # noqa: S101 (only what has a cause is a difference)
    return {
        "cause": cause.name,
        "explained": cause.explained,
        "words": cause.words,
        "detail": verdict.detail,
        "remedy": cause.remedy,
        "type": verdict.type,
        "currency": verdict.currency,
        "reference": verdict.reference,
        "payment": verdict.payment,
        "theirs": verdict.theirs,
        "their_fee": verdict.their_fee,
        "ours": verdict.ours,
        "our_fee": verdict.our_fee,
    }
