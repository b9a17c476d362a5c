"""The test cards, and what each does: https://docs.stripe.com/testing."""

import re
from dataclasses import dataclass

from .errors import ApiError


@dataclass(frozen=True, slots=True)
class Card:
    """What a card does when it pays (`decline` is Stripe's decline code), and what happens afterwards.

    `refunds`: an outcome of `refunds`. `later`: how a renewal goes, "" (it pays), declines or authenticate.
    `dispute`: "", fraudulent or inquiry.
    """

    decline: str = ""
    message: str = ""
    refunds: str = "succeed"
    later: str = ""
    authenticates: bool = False
    dispute: str = ""
    at_once: bool = False


DECLINED = Card("generic_decline", "Your card was declined.")
NOT_AUTHENTICATED = Card("authentication_required", "Your card was declined. This transaction requires authentication.")
PLAIN = "4242424242424242"
CARDS = {
    PLAIN: Card(),
    "4000000000000002": DECLINED,
    "4000000000009995": Card("insufficient_funds", "Your card has insufficient funds."),
    "4000000000000077": Card(at_once=True),
    "4000000000007726": Card(refunds="pending"),
    "4000000000005126": Card(refunds="fail_later"),
    "4000000000000341": Card(later="declines"),
    "4000002500003155": Card(later="authenticate", authenticates=True),
    "4000000000000259": Card(dispute="fraudulent"),
    "4000000000001976": Card(dispute="inquiry"),
}


def digits(text: str) -> str:
    """A card's number without what stands between its digits."""
    return re.sub(r"[\s-]", "", text)


def number(text: str) -> str:
    """The number of a test card. Raises ApiError."""
    found = digits(text)
    if found not in CARDS:
        raise ApiError(f"card must be one of {', '.join(CARDS)}", code="incorrect_number", param="card")
    return found
