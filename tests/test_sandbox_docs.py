"""docs/sandbox.md names what there is."""

import re
from pathlib import Path

import pytest

from donations.sandbox import account, control, trouble
from donations.sandbox.cards import CARDS, grouped

TEXT = (Path(__file__).resolve().parent.parent / "docs" / "sandbox.md").read_text(encoding="utf-8")
CONTROLS = [pattern.replace(r"(\w+)", "…") for pattern, _ in control.ACTIONS] + ["trouble", "clock", "seed"]


def test_every_card_is_documented_and_no_other() -> None:
    assert set(re.findall(r"`(\d{4} \d{4} \d{4} \d{4})`", TEXT)) == {grouped(number) for number in CARDS}


@pytest.mark.parametrize("path", CONTROLS)
def test_every_control_is_documented(path: str) -> None:
    assert f"`{path}`" in TEXT
    in_short = path.replace("…", "")
    assert in_short.split("/")[-1] in (control.__doc__ or "")


def test_every_control_that_is_documented_is_there() -> None:
    table = TEXT.split("## Controls")[1].split("## What")[0]
    named = {
        path for path in re.findall(r"^\| (.*?) \|", table, re.MULTILINE) for path in re.findall(r"`([^`]+)`", path)
    }
    assert named == {*CONTROLS, "state"}


def test_the_terms_are_as_documented() -> None:
    terms = account.Account()
    assert (terms.fee_basis_points, terms.fee_fixed, terms.dispute_fee) == (290, 30, 1500)
    assert (terms.retry_days, terms.available_after_days) == ("3,5,7", 2)
    assert all(f"\n    {mode} " in (trouble.__doc__ or "") for mode in trouble.MODES)
