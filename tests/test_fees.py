"""The fee cover: that all of a gift arrives, to the smallest unit, in every currency; and how its setting is read."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from donations import fees, money
from donations.fees import Formula, FormulaError

USUAL = Formula(29_000, 30)
formulas = st.builds(Formula, st.integers(0, fees.MOST_PER_MILLION), st.integers(0, 100_000))
currencies = st.sampled_from(["USD", "EUR", "JPY", "KRW", "ISK", "UGX", "KWD", "BHD"])


def steps(currency: str) -> st.SearchStrategy[int]:
    """Amounts of whole steps of a currency, up to what the processor takes at once."""
    step = money.step(currency)
    return st.integers(1, money.MAXIMUM_MINOR // step).map(lambda number: number * step)


amounts = currencies.flatmap(lambda currency: st.tuples(st.just(currency), steps(currency)))


def arrives(total: int, formula: Formula) -> int:
    """What is left of a payment, by decimals."""
    share = Decimal(total) * formula.per_million / 1_000_000
    return total - int(share.quantize(Decimal(1), ROUND_HALF_UP)) - formula.fixed


@given(amounts, formulas)
@example(("USD", 50000), USUAL)
@example(("USD", 1), Formula(fees.MOST_PER_MILLION, 0))
@example(("KWD", 99_999_990), Formula(fees.MOST_PER_MILLION, 99_999))
def test_with_the_cover_all_of_the_gift_arrives_and_with_a_step_less_it_would_not(
    gift: tuple[str, int], formula: Formula
) -> None:
    currency, amount = gift
    step = money.step(currency)
    total = amount + fees.cover(amount, currency, formula)
    assert total % step == 0
    assert arrives(total, formula) >= amount
    assert arrives(total - step, formula) < amount


@pytest.mark.parametrize(
    ("amount", "currency", "formula", "cover"),
    [
        (50000, "USD", USUAL, 1524),
        (250000, "USD", USUAL, 7497),
        (2500, "USD", USUAL, 106),
        (50, "USD", USUAL, 32),
        (1000, "JPY", Formula(36_000, 0), 37),
        (1000, "USD", Formula(0, 30), 30),
        (100_00, "ISK", USUAL, 400),
        (10_000, "KWD", Formula(10_000, 5), 110),
    ],
)
def test_covers_that_were_reckoned_by_hand(amount: int, currency: str, formula: Formula, cover: int) -> None:
    assert fees.cover(amount, currency, formula) == cover


# ---- the setting


@pytest.mark.parametrize(
    ("setting", "currency", "formula"),
    [
        ("stripe=2.9%+0.30", "USD", USUAL),
        ("stripe = 2.9 % + 0.30", "USD", USUAL),
        ("stripe=2.9%+0.30 USD,1.5%+0.25 EUR", "EUR", Formula(15_000, 25)),
        ("stripe=2.9%+0.30 USD, 1.5%+0.25", "EUR", Formula(15_000, 25)),
        ("other=9%;stripe=2.9%+0.30;", "USD", USUAL),
        ("stripe=3.6% JPY", "JPY", Formula(36_000, 0)),
        ("stripe=0%+1 USD", "USD", Formula(0, 100)),
        ("stripe=1.2345%", "USD", Formula(12_345, 0)),
        ("stripe=2.9%+0.30", "JPY", Formula(29_000, 1)),
        ("stripe=2.9%+0.30", "ISK", Formula(29_000, 100)),
        ("stripe=2.9%+30 ISK", "ISK", Formula(29_000, 3000)),
        ("stripe=2.9%+0.250 KWD", "KWD", Formula(29_000, 250)),
        ("stripe=2.9%+0.30 USD", "EUR", None),
        ("other=2.9%", "USD", None),
        ("", "USD", None),
        (" ; ", "USD", None),
    ],
)
def test_a_formula_is_found_for_a_processor_and_a_currency(
    setting: str, currency: str, formula: Formula | None
) -> None:
    assert fees.offered(setting, processor="stripe", currency=currency) == formula


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("2.9%+0.30", "names no processor"),
        ("=2.9%", "names no processor"),
        ("stripe=", "“” is no formula"),
        ("stripe=2.9", "“2.9” is no formula"),
        ("stripe=2,9%+0,30", "“2” is no formula"),
        ("stripe=2.9%+0.30$", "is no formula"),
        ("stripe=-1%", "is no formula"),
        ("stripe=2.9%+0.30 usd", "is no formula"),
        ("stripe=٢%", "is no formula"),
        ("stripe=1e1%", "is no formula"),
        ("stripe=2.9%+0.30 XYZ", "there is no currency XYZ"),
        ("stripe=2.9%+0.305 USD", "USD has no unit as small as in 0.305"),
        ("stripe=3%+0.5 JPY", "JPY has no unit as small as in 0.5"),
        ("stripe=0%", "is no fee"),
        ("stripe=50.0001%", "is no fee"),
        ("stripe=2.9%,3%", "it has two formulas for stripe"),
        ("stripe=2.9% USD;stripe=3% USD", "it has two formulas for stripe USD"),
    ],
)
def test_what_cannot_be_read_is_said_with_a_way_out(setting: str, said: str) -> None:
    with pytest.raises(FormulaError) as caught:
        fees.check(setting, processors=["stripe"])
    assert said in str(caught.value)
    assert f"FEE_COVER is “{setting}”" in str(caught.value)
    assert "stripe=2.9%+0.30 USD,2.9%+0.25 EUR" in str(caught.value)


def test_a_processor_that_there_is_not_is_a_slip_of_the_pen() -> None:
    with pytest.raises(FormulaError, match="there is no processor “strip”, only stripe"):
        fees.check("strip=2.9%", processors=["stripe"])


def test_a_formula_in_words() -> None:
    assert USUAL.words("USD") == "2.9 % + 0.30 $"
    assert Formula(15_000, 0).words("EUR") == "1.5 %"
    assert Formula(100_000, 1).words("JPY") == "10 % + 1 ¥"
