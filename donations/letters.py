"""Letters that nobody sees: some have no shape, and some turn those around them round."""

import re
from unicodedata import category

# Beside Unicode's category of formats: two texts that look the same may differ by them.
SHAPELESS = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
TURNING = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CONTROLS = r"\u0001-\u001f\u007f-\u009f\u2028\u2029"
"""Within the brackets of a pattern, Python's or PostgreSQL's; the latter knows no NUL."""
CONTROL = re.compile(rf"[\u0000{CONTROLS}]")


def first_unseen(text: str) -> str:
    """The first letter without a shape; empty where each has one. Controls and spaces are none of them."""
    return next((letter for letter in text if category(letter) == "Cf" or SHAPELESS.match(letter)), "")


def shown_name(typed: str) -> str:
    """A name as it can be shown in a line beside others; empty where nothing of it would be seen.

    Formats within a word stay: Persian and some emoji are written with them.
    """
    name = " ".join(CONTROL.sub(" ", TURNING.sub("", typed)).split())
    return name if any(not letter.isspace() and not first_unseen(letter) for letter in name) else ""
