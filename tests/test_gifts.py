"""A gift's reference."""

import re
import time

from donations.models.gifts import new_reference


def test_references_are_alike_in_shape_and_never_the_same() -> None:
    references = {new_reference() for _ in range(10_000)}
    assert len(references) == 10_000
    assert all(re.fullmatch(r"gift_[0-9a-hjkmnp-tv-z]{26}", reference) for reference in references)


def test_a_later_reference_sorts_after_an_earlier_one() -> None:
    earlier = new_reference()
    time.sleep(0.002)
    assert earlier < new_reference()
