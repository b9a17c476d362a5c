"""The test cards, and what each does: https://docs.stripe.com/testing."""

import re
from dataclasses import dataclass

from .errors import ApiError


@dataclass(frozen=True, slots=True)
class Card:
    """What a card does when it pays (`decline` is Stripe's decline code), and what happens afterwards.

    `refunds`: an outcome of `refunds`. `later`: how a renewal goes, "" (it pays), declines or authenticate.
    `dispute`: "", fraudulent or inquiry. `at_once`: its money is available at once. `does`: all of that, in words.
    """

    decline: str = ""
    message: str = ""
    refunds: str = "succeed"
    later: str = ""
    authenticates: bool = False
    dispute: str = ""
    at_once: bool = False
    does: str = ""


DECLINED = Card("generic_decline", "Your card was declined.")
NOT_AUTHENTICATED = Card("authentication_required", "Your card was declined. This transaction requires authentication.")
PLAIN = "4242424242424242"
CARDS = {
    PLAIN: Card(),
    "4000000000000002": DECLINED,
    "4000000000009995": Card(
        "insufficient_funds", "Your card has insufficient funds.", does="is declined, for want of money"
    ),
    "4000002500003155": Card(later="authenticate", authenticates=True, does="must be authenticated, each time"),
    "4000000000000341": Card(later="declines", does="pays now, and is declined when a monthly gift is renewed"),
    "4000000000000077": Card(at_once=True, does="pays, and its money is available at once"),
    "4000000000007726": Card(refunds="pending", does="pays, and its refunds stay pending"),
    "4000000000005126": Card(refunds="fail_later", does="pays, and its refunds fail later"),
    "4000000000000259": Card(dispute="fraudulent", does="pays, and is disputed as fraudulent"),
    "4000000000001976": Card(dispute="inquiry", does="pays, and its bank inquires"),
}


def digits(text: str) -> str:
    """A card's number without what stands between its digits."""
    return re.sub(r"[\s-]", "", text)


def grouped(text: str) -> str:
    """A card's number as it is printed on it."""
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def number(text: str) -> str:
    """The number of a test card. Raises ApiError."""
    found = digits(text)
    if found not in CARDS:
        raise ApiError(f"card must be one of {', '.join(CARDS)}", code="incorrect_number", param="card")
    return found
