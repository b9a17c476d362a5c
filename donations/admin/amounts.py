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
    try:
        digits = money.digits_of(typed, currency)
        if digits is None:
            advice = "Type it like 2500, 2,500 or 1,000.50."
            raise ValidationError(f"“{typed.strip()}” cannot be read as an amount. {advice}")
        if len(digits[0]) > money.MOST_DIGITS:
            raise ValidationError(f"“{typed.strip()}” is too large an amount.")
        return money.minor_of(*digits, currency)
    except money.AmountError as error:
        raise ValidationError(str(error)) from error


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
