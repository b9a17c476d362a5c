"""Reading JSON that Stripe wrote, strictly: what is not as it should be raises Malformed, and nothing is guessed."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from donations.processors.base import BadDelivery, Malformed

OBJECT_ID = re.compile(r"[a-z]{2,12}_[A-Za-z0-9_]{1,200}", re.ASCII)
CURRENCY = re.compile(r"[a-z]{3}", re.ASCII)
RATE = re.compile(r"[0-9]{1,20}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", re.ASCII)
LARGEST_RATE = Decimal(10**12)  # of minor units, either way: an Iranian rial's to a Kuwaiti dinar's is far within
LARGEST_AMOUNT = 10**12
EARLIEST_TIME = 946_771_200  # 2 January 2000: a movement's month is of 2000 or later in every zone, as pages have it
LATEST_TIME = 4_102_444_800  # the year 2100

Json = dict[str, Any]
Told = TypeVar("Told")


class Fractional(float):
    """A number that was told with a fraction. `text` is as it was told: exact sums go by that."""

    text: str

    def __new__(cls, text: str) -> "Fractional":
        """Of the text in the JSON."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def parsed(body: bytes) -> Json:
    """A body as a JSON object. Raises BadDelivery."""
    try:
        event = _loaded(body)
    except (ValueError, RecursionError) as error:
        raise BadDelivery("not JSON") from error
    if not isinstance(event, dict):
        raise BadDelivery("not an object")
    return event


READER = json.JSONDecoder(parse_float=Fractional)
# JSON has no largest number, and Python reads none of over 4,300 digits. As a text it is no amount to us.
READER_OF_LONG_NUMBERS = json.JSONDecoder(
    parse_float=Fractional, parse_int=lambda digits: int(digits) if len(digits) < 20 else digits
)


def _loaded(body: bytes) -> Any:
    text = body.decode()
    try:
        return READER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return READER_OF_LONG_NUMBERS.decode(text)


def subject_of(event: Json) -> Json:
    """The object that an event is about."""
    holder = event.get("data")
    subject = holder.get("object") if isinstance(holder, dict) else None
    if not isinstance(subject, dict):
        raise Malformed("the event has no object")
    return subject


def if_told(read: Callable[..., Told], *arguments: Any) -> Told | None:
    """What can be read, or None."""
    try:
        return read(*arguments)
    except Malformed:
        return None


def boolean(holder: Json, name: str) -> bool:
    value = holder.get(name)
    if not isinstance(value, bool):
        raise Malformed(f"{name} is not true or false")
    return value


def signed(holder: Json, name: str) -> int:
    """A whole number of minor units, below zero too."""
    value = holder.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST_AMOUNT:
        raise Malformed(f"{name} is not a whole number in range")
    return value


def amount(holder: Json, name: str = "amount") -> int:
    """A whole number of minor units, not below zero."""
    value = signed(holder, name)
    if value < 0:
        raise Malformed(f"{name} is below zero")
    return value


def moment(holder: Json, name: str) -> datetime:
    """A Unix time of 2 January 2000 to 2100, as UTC: no payment is older, and no month before has a page."""
    value = holder.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not EARLIEST_TIME <= value <= LATEST_TIME:
        raise Malformed(f"{name} is not a time in range")
    return datetime.fromtimestamp(value, UTC)


def optional_moment(holder: Json, name: str) -> datetime | None:
    return None if holder.get(name) is None else moment(holder, name)


def text(holder: Json, name: str, pattern: re.Pattern[str]) -> str:
    value = holder.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Malformed(f"{name} is not what it should be")
    return value


def currency(holder: Json) -> str:
    """An ISO code, upper case."""
    return text(holder, "currency", CURRENCY).upper()


def rate(holder: Json) -> str:
    """An exchange rate as an exact decimal in plain digits; empty where none is told, or none that can be one."""
    value = holder.get("exchange_rate")
    told = value.text if isinstance(value, Fractional) else str(value) if type(value) is int else ""
    exact = Decimal(told) if RATE.fullmatch(told) else Decimal(0)
    return f"{exact.normalize():f}" if 1 / LARGEST_RATE < exact < LARGEST_RATE else ""


def identity(holder: Json, name: str = "id") -> str:
    """An object's id, also where Stripe expanded the object."""
    found = optional_id(holder.get(name))
    if not found:
        raise Malformed(f"{name} is not what it should be")
    return found


def optional_id(value: Any) -> str:
    """An object's id, also where Stripe expanded it; empty for anything else."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and OBJECT_ID.fullmatch(value) else ""


def objects(holder: Json, name: str) -> list[Json]:
    """A list of objects; absent is none."""
    found = holder.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Malformed(f"{name} is not a list of objects")
    return found


def metadata(subject: Json, name: str, pattern: re.Pattern[str]) -> str:
    """What we wrote beside an object ourselves; empty where it is not ours."""
    ours = subject.get("metadata")
    value = ours.get(name) if isinstance(ours, dict) else None
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def plain(value: str, longest: int) -> str:
    """Text that every database takes: no NUL, no lone surrogates, no control characters, bounded."""
    return (value if value.isprintable() else "".join(c for c in value if c.isprintable()))[:longest]
