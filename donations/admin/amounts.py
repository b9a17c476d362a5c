"""Amounts as staff type them: text, read exactly in the currency that it belongs to."""

import re
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError

from donations import money
from donations.models.campaigns import LARGEST_GOAL

MOST_MARKS = 9


class AmountInput(forms.TextInput):
    """A short field for digits, with the keyboard for them."""

    class Media:
        css: ClassVar = {"all": ["donations/admin.css"]}

    def __init__(self) -> None:
        super().__init__(attrs={"inputmode": "decimal", "autocomplete": "off", "class": "vTextField amount"})


class AmountField(forms.CharField):
    """A typed amount. The form reads it with `read_amount` once it knows the currency."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_length": money.LONGEST_TYPED, "widget": AmountInput(), **options})


def read_amount(typed: str, currency: str) -> int:
    """What was typed, as minor units, 0 among them. Raises ValidationError with a sentence."""
    text = typed.strip()
    for symbol in (money.SYMBOLS.get(currency, currency), currency):
        text = text.removeprefix(symbol).removesuffix(symbol).strip()
    match = money.TYPED.fullmatch(text)
    if not match or re.match(r"0+,", text):
        raise ValidationError(f"“{typed.strip()}” cannot be read as an amount. Type it like 2500, 2,500 or 1,000.50.")
    whole, fraction = match["whole"].replace(",", ""), match["fraction"] or ""
    if len(whole) > money.MOST_DIGITS:
        raise ValidationError(f"“{typed.strip()}” is too large an amount.")
    if money.is_ambiguous(text, currency):
        raise ValidationError(money.two_ways(text, currency))
    if len(fraction) > money.exponent(currency):
        digits = money.exponent(currency)
        raise ValidationError(
            f"{currency} has {digits} digits after the point. Type no more of them."
            if digits
            else f"{currency} has no smaller unit. Type a whole amount, without a point."
        )
    return int(whole + fraction.ljust(money.exponent(currency), "0"))


def read_goal(typed: str, currency: str) -> int:
    """A goal that was typed, minor units. Raises ValidationError with a sentence."""
    goal = read_amount(typed, currency)
    if goal > LARGEST_GOAL:
        largest = money.format_minor(LARGEST_GOAL, currency)
        raise ValidationError(f"A goal can be {largest} at most.")
    return goal


def read_marks(typed: str, currency: str) -> list[int]:
    """The bar's marks that were typed, minor units in rising order; none for an empty text.

    A comma alone groups thousands; a comma and a space, or a semicolon, divides marks.
    """
    parts = [part.strip() for part in re.split(r",\s+|;|,\s*\Z", typed.strip())]
    marks = []
    for part in filter(None, parts):
        try:
            marks.append(read_goal(part, currency))
        except ValidationError as error:
            advice = "Put a comma and a space between marks, like this: 0, 2500, 5000."
            raise ValidationError(" ".join([*error.messages, advice])) from error
    if len(marks) == 1 or len(marks) > MOST_MARKS:
        raise ValidationError(f"Give between 2 and {MOST_MARKS} marks, or none.")
    if len(set(marks)) < len(marks):
        raise ValidationError("Each mark can be given once.")
    return sorted(marks)


def typed_text(minor: int, currency: str) -> str:
    """Minor units as staff would type them: `2500`, `10.50`."""
    text = money.decimal_text(minor, currency)
    whole, _, fraction = text.partition(".")
    return text if fraction.strip("0") else whole
