"""Exact amounts: integers in a currency's minor unit, and the words in which people read and type them.

Minor units are the processor's, so the exponents are the processor's too; CLDR's differ for ISK and UGX.
"""

import re
from decimal import Decimal
from fractions import Fraction
from math import floor

from django.conf import settings
from djmoney.money import Money
from moneyed.l10n import format_money

# Source: the processor's "Supported currencies" page: zero-decimal and three-decimal currencies; all others have 2.
ZERO_DECIMAL = frozenset("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split())
THREE_DECIMAL = frozenset("BHD JOD KWD OMR TND".split())
# Sent with two decimals that must be 00 (ISK, UGX), and with three of which the last must be 0.
STEPS = {"ISK": 100, "UGX": 100} | dict.fromkeys(THREE_DECIMAL, 10)

TAKEN = frozenset(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF "
    "CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR "
    "ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR "
    "MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR "
    "SEK SGD SHP SLE SOS SRD SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XOF XPF "
    "YER ZAR ZMW".split()
)
"""What the processor takes payments in. Source: its "Supported currencies" page; an account may take fewer."""

MAXIMUM_MINOR = 99_999_999
"""The most that the processor takes in one payment, in any currency's minor unit."""

# Source: the processor's "Minimum and maximum charge amounts". They drift; the processor has the last word.
MINIMUM_MINOR = {
    **dict.fromkeys("USD EUR AUD CAD CHF BRL INR NZD SGD JPY".split(), 50),
    **dict.fromkeys("NOK SEK".split(), 300),
    **dict.fromkeys("AED MYR PLN RON".split(), 200),
    "GBP": 30,
    "DKK": 250,
    "HKD": 400,
    "MXN": 1000,
    "CZK": 1500,
    "HUF": 17500,
}

SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CHF": "CHF", "INR": "₹", "KRW": "₩", "BRL": "R$"}

LONGEST_TYPED = 40
# Plain numbers are read however large they are, to be told that they are too large; LONGEST_TYPED bounds them.
TYPED = re.compile(
    r"(?P<whole>[0-9]{1,12}|[1-9][0-9]{12,39}|[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.(?P<fraction>[0-9]{1,6}))?", re.ASCII
)
MOST_DIGITS = 12
"""Of whole units: whatever has more of them is more than can be given, raised or booked."""
# A thousand does not begin with 0: "01,000" is none. "0,500" may be a half.
AMBIGUOUS = re.compile(
    r"(?!0[0-9]+,[0-9]{3})[0-9]{1,3}(?:[.,][0-9]{3})+|[0-9]+,[0-9]{1,2}|[0-9.]*\.[0-9]{3},[0-9]+", re.ASCII
)


class AmountError(ValueError):
    """A typed amount that is refused; its text is a sentence for the reader."""


def exponent(currency: str) -> int:
    """How many decimals the processor's minor unit has: 0, 2 or 3."""
    return 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2


def to_minor(amount: Money) -> int:
    """Money as minor units, exactly. Raises ValueError when a fraction of a unit would be lost."""
    scaled = amount.amount.scaleb(exponent(amount.currency.code))
    minor = int(scaled)
    if minor != scaled:
        raise ValueError(f"{amount.amount} {amount.currency.code} is not a whole number of minor units")
    return minor


def from_minor(minor: int, currency: str) -> Money:
    """Minor units (signed) as Money."""
    return Money(decimal(minor, currency), currency)


def decimal(minor: int, currency: str) -> Decimal:
    """Minor units (signed) as an exact decimal with all of the currency's digits."""
    return Decimal(minor).scaleb(-exponent(currency))


def decimal_text(minor: int, currency: str) -> str:
    """Minor units (signed) as machines read them: `-12.50`."""
    return f"{decimal(minor, currency):f}"


def with_code(minor: int, currency: str) -> str:
    """Minor units (signed) for staff who compare them: `12.50 USD`."""
    return f"{decimal_text(minor, currency)} {currency}"


def step(currency: str) -> int:
    """What the sums of a currency are multiples of at the processor, minor units: 1 of most."""
    return STEPS.get(currency, 1)


def minimum(currency: str) -> int:
    """The least that can be given, minor units: the processor's minimum, and never less than one unit's step."""
    return max(MINIMUM_MINOR.get(currency, 1), step(currency))


def maximum(currency: str) -> int:
    """The most that can be given at once, minor units, in a sum that the currency can have."""
    return floored(MAXIMUM_MINOR, currency)


def floored(minor: int, currency: str) -> int:
    """A reckoned sum, minor units, cut to one that the currency can have: of ISK to a whole one."""
    return minor - minor % step(currency)


def is_in_steps(minor: int, currency: str) -> bool:
    """Whether the processor can move such a sum, minor units, however large: of ISK whole ones alone."""
    return minor % step(currency) == 0


def exchange_slack(settled: Fraction | Decimal) -> int:
    """How far a sum may be from the product of another and an exchange rate, minor units, and be that product rounded.

    However the processor rounds, it is less than one unit away from the exact one; of large sums some more, as the rate
    is told rounded itself, to six digits or so.
    """
    return 1 + abs(floor(settled)) // 100_000


def step_words(minor: int, currency: str) -> str:
    """The sentence for a sum above zero that is not in steps: what is wrong with it, and what to type."""
    below = floored(minor, currency)
    beside = [format_minor(typed, currency) for typed in (below, below + step(currency)) if typed]
    return (
        f"In {currency} an amount must be a multiple of {format_minor(step(currency), currency)}. "
        f"Type {' or '.join(beside)}."
    )


def parse_amount(typed: str, currency: str) -> int:
    """What a reader typed, as minor units: "1,000", "1000.50", "$25", " 25 ". Commas group, a point divides.

    Raises AmountError with a sentence for whatever is not plainly one amount of this currency.
    """
    if len(typed) > LONGEST_TYPED:
        raise AmountError(f"This is too long for an amount. Type it in digits, such as {_examples(currency)}.")
    digits = digits_of(typed, currency)
    if digits is None:
        raise AmountError(_refusal(_without_symbol(typed, currency), currency))
    return _within_limits(minor_of(*digits, currency), currency)


def digits_of(typed: str, currency: str) -> tuple[str, str] | None:
    """The digits of a typed amount, before the point and after it; None where it cannot be read.

    Raises AmountError with a sentence where it can be read in two ways.
    """
    text = _without_symbol(typed, currency)
    match = TYPED.fullmatch(text)
    if not match:
        return None
    if _is_ambiguous(text, currency):
        raise AmountError(_two_ways(text, currency))
    return match["whole"].replace(",", ""), match["fraction"] or ""


def minor_of(whole: str, fraction: str, currency: str) -> int:
    """Minor units from the digits before and after the point. Raises AmountError where the currency has not so many."""
    if len(fraction) > exponent(currency):
        raise AmountError(_too_precise(currency))
    return int(whole + fraction.ljust(exponent(currency), "0"))


def _without_symbol(typed: str, currency: str) -> str:
    text = typed.strip()
    for symbol in (SYMBOLS.get(currency, currency), currency):
        text = text.removeprefix(symbol).removesuffix(symbol).strip()
    return text


def _is_ambiguous(text: str, currency: str) -> bool:
    """Whether a point could be meant either way: "1.000" is a thousand to half of the world."""
    return exponent(currency) != 3 and re.fullmatch(r"[0-9]{1,3}\.[0-9]{3}", text, re.ASCII) is not None


def _refusal(text: str, currency: str) -> str:
    if not text:
        return f"Type an amount, such as {_example(currency)}."
    if text.startswith(("-", "−")):
        return f"An amount cannot be negative. Type it in digits, such as {_example(currency)}."
    if AMBIGUOUS.fullmatch(text):
        return _two_ways(text, currency)
    return f"We could not read this amount. Type it in digits, such as {_examples(currency)}."


def _two_ways(text: str, currency: str) -> str:
    """A sentence about an ambiguous amount, and how to write it."""
    cents = ", and cents after a point: 10.50" if _has_cents(currency) else ""
    return f"“{text}” can be read in two ways. Write a thousand as 1000 or 1,000{cents}."


def _example(currency: str) -> str:
    """An amount that is not refused in its turn."""
    return "25" if exponent(currency) and minimum(currency) <= 25 * 10 ** exponent(currency) else "1,000"


def _examples(currency: str) -> str:
    return f"{_example(currency)} or 1,000.50" if _has_cents(currency) else _example(currency)


def _has_cents(currency: str) -> bool:
    return bool(step(currency) < 10 ** exponent(currency))


def _too_precise(currency: str) -> str:
    digits = exponent(currency)
    if digits == 0:
        return f"{currency} has no smaller unit. Type a whole amount, without a point."
    return f"{currency} has {digits} digits after the point. Type no more of them."


def _within_limits(minor: int, currency: str) -> int:
    if minor < minimum(currency):
        raise AmountError(f"The smallest amount that can be paid is {format_minor(minimum(currency), currency)}.")
    if minor > maximum(currency):
        raise AmountError(
            f"The largest amount that can be paid at once is {format_minor(maximum(currency), currency)}."
        )
    if not is_in_steps(minor, currency):
        raise AmountError(step_words(minor, currency))
    return minor


def format_minor(minor: int, currency: str, style: str | None = None) -> str:
    """An amount for people. `suffix`: `2,500 $`, decimals only where they are not zero; `locale`: `$2,500.00`.

    The words around it are English, so `locale` is as CLDR writes it for en_US, whoever reads. The space of the suffix
    style never breaks (U+00A0 in HTML is for templates to add); here it is a plain space.
    """
    if (style or settings.AMOUNT_STYLE) == "locale":
        # Not quantized: where CLDR gives a currency fewer digits than the processor, an amount is never rounded.
        return str(format_money(from_minor(minor, currency), locale="en_US", decimal_quantization=False))
    units = 10 ** exponent(currency)
    whole, fraction = divmod(abs(minor), units)
    digits = f"{whole:,}" + (f".{fraction:0{exponent(currency)}d}" if fraction else "")
    return f"{'−' if minor < 0 else ''}{digits} {SYMBOLS.get(currency, currency)}"
