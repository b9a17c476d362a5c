"""Exact amounts: what readers type and read, and minor units to and fro, in every currency's own number of digits."""

import re
from decimal import Decimal

import pytest
from djmoney.money import Money
from hypothesis import example, given
from hypothesis import strategies as st
from moneyed import CURRENCIES

from donations import money
from donations.money import AmountError

WHOLE, USUAL, THREE = ["JPY", "KRW"], ["USD", "EUR", "CHF", "BRL", "ISK", "HUF"], ["KWD", "BHD"]
currencies = st.sampled_from([*WHOLE, *USUAL, *THREE])
every_currency = st.sampled_from(sorted(code for code in CURRENCIES if len(code) == 3))
amounts = st.integers(-(10**18), 10**18)
# Texts that are nearly amounts find more than texts of any letters.
nearly = st.text(st.sampled_from("0123456789,.$€¥- \u00a0+eE_٢²\x00\n"), max_size=16) | st.from_regex(
    r"[$]? ?[0-9]{1,4}([,.][0-9]{1,4}){0,3} ?(USD|KWD)?", fullmatch=True
)


def payable(currency: str) -> st.SearchStrategy[int]:
    """Amounts that the processor takes in a currency."""
    step = money.step(currency)
    return st.integers(-(-money.minimum(currency) // step), money.MAXIMUM_MINOR // step).map(lambda n: n * step)


currencies_with_amounts = currencies.flatmap(lambda currency: st.tuples(st.just(currency), payable(currency)))


def refusal(typed: str, currency: str = "USD") -> str:
    """The sentence that a typed amount is refused with."""
    with pytest.raises(AmountError) as caught:
        money.parse_amount(typed, currency)
    return str(caught.value)


# ---- what readers type


@pytest.mark.parametrize(
    ("typed", "currency", "minor"),
    [
        ("1,000", "USD", 100000),
        ("1000.50", "USD", 100050),
        ("1,000.5", "USD", 100050),
        ("$25", "USD", 2500),
        (" 25 ", "USD", 2500),
        ("\u00a025\t\n", "USD", 2500),
        ("25 $", "USD", 2500),
        ("$ 25", "USD", 2500),
        ("25 USD", "USD", 2500),
        ("USD 25", "USD", 2500),
        ("€25", "EUR", 2500),
        ("R$25", "BRL", 2500),
        ("25 CHF", "CHF", 2500),
        ("0.50", "USD", 50),
        ("025", "USD", 2500),
        ("999,999.99", "USD", 99_999_999),
        ("1,000", "JPY", 1000),
        ("99,999,999", "JPY", 99_999_999),
        ("100", "ISK", 10000),
        ("1.000", "KWD", 1000),
        ("1.5", "KWD", 1500),
        ("1,000", "KWD", 1_000_000),
        ("1,000.250", "KWD", 1_000_250),
    ],
)
def test_an_amount_is_read_as_people_write_it(typed: str, currency: str, minor: int) -> None:
    assert money.parse_amount(typed, currency) == minor


@pytest.mark.parametrize(
    "typed",
    ["1.000", "25.000", "999.999", "1.000.000", "1.000,50", "10,50", "1,00", "0,5", "0,500", "01.000"],
)
def test_an_amount_that_can_be_read_in_two_ways_is_refused(typed: str) -> None:
    assert refusal(typed) == (
        f"“{typed}” can be read in two ways. Write a thousand as 1000 or 1,000, and cents after a point: 10.50."
    )


@pytest.mark.parametrize("typed", ["01,000", "025,000", "00,500"])
def test_a_thousand_that_begins_with_0_is_not_said_to_be_read_in_two_ways(typed: str) -> None:
    assert refusal(typed) == "We could not read this amount. Type it in digits, such as 25 or 1,000.50."


@pytest.mark.parametrize("currency", ["USD", "EUR", "JPY", "KRW"])
def test_a_thousand_with_a_point_is_a_question_wherever_there_are_no_thousandths(currency: str) -> None:
    assert "two ways" in refusal("1.000", currency)


@pytest.mark.parametrize(
    ("typed", "currency", "words"),
    [
        ("25.001", "USD", "“25.001” can be read in two ways."),
        ("1000.505", "USD", "USD has 2 digits after the point."),
        ("1,000.505", "USD", "USD has 2 digits after the point."),
        ("25.5", "JPY", "JPY has no smaller unit."),
        ("25.0", "JPY", "JPY has no smaller unit."),
        ("1.2345", "KWD", "KWD has 3 digits after the point."),
    ],
)
def test_more_digits_than_the_currency_has_are_refused(typed: str, currency: str, words: str) -> None:
    assert refusal(typed, currency).startswith(words)


@pytest.mark.parametrize(
    ("typed", "currency", "sentence"),
    [
        ("0", "USD", "The smallest amount that can be paid is 0.50 $."),
        ("0.49", "USD", "The smallest amount that can be paid is 0.50 $."),
        ("49", "JPY", "The smallest amount that can be paid is 50 ¥."),
        ("174.99", "HUF", "The smallest amount that can be paid is 175 HUF."),
        ("0.99", "ISK", "The smallest amount that can be paid is 1 ISK."),
        ("0.009", "KWD", "The smallest amount that can be paid is 0.010 KWD."),
        ("1000000", "USD", "The largest amount that can be paid at once is 999,999.99 $."),
        ("999999999999.99", "USD", "The largest amount that can be paid at once is 999,999.99 $."),
        *[
            (typed, "USD", "The largest amount that can be paid at once is 999,999.99 $.")
            for typed in ("9" * 13, "9" * 30, "9" * 40, "$" + "9" * 30, "9" * 30 + ".99", ",".join(["999"] * 10))
        ],
        ("100,000,000", "JPY", "The largest amount that can be paid at once is 99,999,999 ¥."),
        ("100000", "KWD", "The largest amount that can be paid at once is 99,999.990 KWD."),
        ("25.50", "ISK", "In ISK an amount must be a multiple of 1 ISK. Type 25 ISK or 26 ISK."),
        ("1.005", "KWD", "In KWD an amount must be a multiple of 0.010 KWD. Type 1 KWD or 1.010 KWD."),
    ],
)
def test_an_amount_that_the_processor_would_not_take_is_refused(typed: str, currency: str, sentence: str) -> None:
    assert refusal(typed, currency) == sentence


@pytest.mark.parametrize("typed", ["-5", "−5", "-0", "- 5", "$-5", "-$5", "-1.000", "-Infinity"])
def test_a_negative_amount_is_refused(typed: str) -> None:
    assert refusal(typed) == "An amount cannot be negative. Type it in digits, such as 25."


@pytest.mark.parametrize("typed", ["", " ", "\u00a0\t\n", "$", " $ ", "USD"])
def test_an_empty_field_asks_for_an_amount(typed: str) -> None:
    assert refusal(typed) == "Type an amount, such as 25."


NO_AMOUNTS = [
    *("NaN", "nan", "sNaN", "Infinity", "inf", "+5", "1e5", "1E5", "0x19", "1_000", "five", "25 dollars", "25€"),
    *("٢٥", "２５", "२५", "²⁵", "Ⅴ", "½", "2٥", "25\x00", "2\x005", "\x0025", "25\u202e", "\u200b25", "2\n5"),
    *("25.", ".50", "10,000,0", "1,,000", "1 000", "1\u00a0000", "1'000", "25 25", "$$$", "%s", "25;", "1/2"),
    *("0" * 39, "0" * 13 + "1", "9" * 30 + "x", "9" * 30 + "e9", "1,000,000,000,00", "25.0000000"),
]


@pytest.mark.parametrize("typed", NO_AMOUNTS)
def test_what_is_no_amount_is_refused_in_words(typed: str) -> None:
    assert refusal(typed) == "We could not read this amount. Type it in digits, such as 25 or 1,000.50."


@pytest.mark.parametrize(
    "typed", ["1" + "0" * 400, " " * 41, "25" + " " * 39, "9" * 5000, "x" * 10**6, "\ud800" * 50], ids=range(6)
)
def test_a_text_that_is_too_long_is_refused_unread(typed: str) -> None:
    assert refusal(typed) == "This is too long for an amount. Type it in digits, such as 25 or 1,000.50."


@pytest.mark.parametrize(
    ("typed", "currency", "sentence"),
    [
        ("", "JPY", "Type an amount, such as 1,000."),
        ("", "HUF", "Type an amount, such as 1,000."),
        ("", "CZK", "Type an amount, such as 25."),
        ("-5", "HUF", "An amount cannot be negative. Type it in digits, such as 1,000."),
        ("1.000", "JPY", "“1.000” can be read in two ways. Write a thousand as 1000 or 1,000."),
        ("five", "JPY", "We could not read this amount. Type it in digits, such as 1,000."),
        ("1.000", "ISK", "“1.000” can be read in two ways. Write a thousand as 1000 or 1,000."),
        ("five", "UGX", "We could not read this amount. Type it in digits, such as 25."),
        ("five", "HUF", "We could not read this amount. Type it in digits, such as 1,000 or 1,000.50."),
    ],
)
def test_what_a_refusal_gives_as_an_example_is_not_refused_in_its_turn(
    typed: str, currency: str, sentence: str
) -> None:
    assert refusal(typed, currency) == sentence


@given(typed=st.text(max_size=60) | nearly, currency=every_currency)
@example(typed="\ud800", currency="USD")
def test_any_text_is_one_payable_amount_or_refused_in_a_sentence(typed: str, currency: str) -> None:
    try:
        minor = money.parse_amount(typed, currency)
    except AmountError as error:
        sentence = str(error)
    else:
        sentence = ""
    if sentence:
        assert re.fullmatch(r"[A-Z“].+\.", sentence)
        return
    assert money.minimum(currency) <= minor <= money.maximum(currency)
    assert minor % money.step(currency) == 0
    digits = "".join(mark for mark in typed if mark in "0123456789.")
    assert Decimal(minor) == Decimal(digits) * 10 ** money.exponent(currency)


# ---- what readers read


@pytest.mark.parametrize(
    ("minor", "currency", "words"),
    [
        (0, "USD", "0 $"),
        (50000, "USD", "500 $"),
        (250000, "USD", "2,500 $"),
        (500000, "USD", "5,000 $"),
        (1, "USD", "0.01 $"),
        (1050, "USD", "10.50 $"),
        (123456789, "USD", "1,234,567.89 $"),
        (-1250, "USD", "−12.50 $"),
        (-1, "USD", "−0.01 $"),
        (2500, "JPY", "2,500 ¥"),
        (2500, "KWD", "2.500 KWD"),
        (2000, "KWD", "2 KWD"),
        (250000, "GBP", "2,500 £"),
        (250000, "SEK", "2,500 SEK"),
    ],
)
def test_an_amount_reads_as_on_the_bar(minor: int, currency: str, words: str) -> None:
    assert money.format_minor(minor, currency) == money.format_minor(minor, currency, "suffix") == words


@pytest.mark.parametrize(
    ("minor", "currency", "words"),
    [(250000, "USD", "$2,500.00"), (-1250, "USD", "-$12.50"), (2500, "JPY", "¥2,500"), (250000, "EUR", "€2,500.00")],
)
def test_an_amount_reads_as_in_its_language_where_the_site_says_so(minor: int, currency: str, words: str) -> None:
    assert money.format_minor(minor, currency, "locale") == words


@given(currencies_with_amounts, st.sampled_from(["suffix", "locale"]))
def test_what_we_write_is_read_back_as_the_same_amount(priced: tuple[str, int], style: str) -> None:
    currency, minor = priced
    assert money.parse_amount(money.format_minor(minor, currency, style), currency) == minor


@given(amounts, every_currency, st.sampled_from(["suffix", "locale"]))
@example(150, "RSD", "locale")
def test_no_way_of_writing_an_amount_loses_a_part_of_it(minor: int, currency: str, style: str) -> None:
    written = money.format_minor(minor, currency, style)
    digits = "".join(re.findall(r"[0-9][0-9,.]*", written)).replace(",", "")
    assert Decimal(digits) == abs(money.decimal(minor, currency))
    assert (minor < 0) == (written[0] in "-−")


# ---- minor units


@pytest.mark.parametrize(
    ("currency", "digits"), [("JPY", 0), ("XAF", 0), ("USD", 2), ("ISK", 2), ("UGX", 2), ("KWD", 3)]
)
def test_a_currency_has_the_processors_number_of_digits(currency: str, digits: int) -> None:
    assert money.exponent(currency) == digits
    assert money.from_minor(1, currency) == Money(Decimal(1).scaleb(-digits), currency)


@pytest.mark.parametrize(
    ("minor", "currency", "whole"),
    [
        (199, "ISK", 100),
        (-199, "ISK", -200),
        (199, "UGX", 100),
        (199, "KWD", 190),
        (199, "USD", 199),
        (199, "JPY", 199),
    ],
)
def test_what_is_reckoned_is_cut_to_what_the_currency_can_have(minor: int, currency: str, whole: int) -> None:
    assert money.floored(minor, currency) == whole


@given(st.integers(1, 10**12), currencies)
def test_what_we_tell_to_type_instead_can_be_paid(minor: int, currency: str) -> None:
    words = money.step_words(minor, currency)
    named = re.findall(r"[0-9][0-9,.]*(?= [^ ]+(?: or|\.$))", words.split(". Type ")[1])
    assert named
    units = [int(Decimal(text.replace(",", "")).scaleb(money.exponent(currency))) for text in named]
    assert all(unit > 0 and money.is_in_steps(unit, currency) for unit in units), words


@given(amounts, every_currency)
def test_minor_units_become_money_and_come_back_exactly(minor: int, currency: str) -> None:
    as_money = money.from_minor(minor, currency)
    assert (money.to_minor(as_money), str(as_money.currency)) == (minor, currency)
    assert as_money.amount * 10 ** money.exponent(currency) == minor


@given(amounts, every_currency)
def test_machines_read_an_amount_with_all_of_its_digits(minor: int, currency: str) -> None:
    written = money.decimal_text(minor, currency)
    digits = money.exponent(currency)
    assert re.fullmatch(rf"-?[0-9]+\.[0-9]{{{digits}}}" if digits else r"-?[0-9]+", written)
    assert int(written.replace(".", "")) == minor


@given(amounts, currencies, st.integers(1, 9))
def test_a_part_of_a_minor_unit_is_never_rounded_away(minor: int, currency: str, part: int) -> None:
    finer = (Decimal(minor) + Decimal(part) / 10).scaleb(-money.exponent(currency))
    with pytest.raises(ValueError, match="is not a whole number of minor units"):
        money.to_minor(Money(finer, currency))


@pytest.mark.parametrize("currency", [*WHOLE, *USUAL, *THREE])
def test_the_least_amount_can_be_paid(currency: str) -> None:
    least = money.minimum(currency)
    assert least > 0
    assert money.parse_amount(money.decimal_text(least, currency), currency) == least


@pytest.mark.parametrize("currency, most", [("USD", "999,999.99"), ("ISK", "999,999"), ("KWD", "99,999.990")])
def test_the_largest_amount_that_is_named_can_be_given(currency: str, most: str) -> None:
    with pytest.raises(money.AmountError, match=f"The largest amount that can be paid at once is {most}") as refusal:
        money.parse_amount("10000000", currency)
    named = str(refusal.value).removeprefix("The largest amount that can be paid at once is ")
    assert money.parse_amount(named.split()[0].rstrip("."), currency) == money.maximum(currency)
