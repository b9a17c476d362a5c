"""Edits straight in the tables are found. The whole of ten thousand is `python -m tests.faults.tampering`."""

import random

import pytest

from tests.faults.tampering import tamper

pytestmark = pytest.mark.django_db
EDITS = 150


@pytest.mark.slow
@pytest.mark.sqlite  # tests.test_lies lies to both
@pytest.mark.timeout(300)
def test_random_edits_straight_in_the_tables_are_found(rng: random.Random) -> None:
    seed = rng.randrange(2**32)
    print(f"seed {seed}: python -m tests.faults.tampering --edits {EDITS} --seed {seed}")
    report = tamper(random.Random(seed), EDITS)
    assert report.missed == []
    assert report.fared["found"] == EDITS
