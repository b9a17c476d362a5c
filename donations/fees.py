"""The fee cover: what a donor adds so that after the processor's fee all of the gift arrives. No Django models here.

The setting FEE_COVER has a formula a processor, and where they differ one a currency:
`stripe=2.9%+0.30`, `stripe=2.9%+0.30 USD,2.9%+0.25 EUR`; of several processors, divided by semicolons.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache

from moneyed import CURRENCIES

from donations import money

MILLION = 1_000_000
MOST_PER_MILLION = 500_000  # a fee of half the payment is a slip of the pen

RULE = re.compile(
    r"(?P<percent>[0-9]{1,2}(?:\.[0-9]{1,4})?) ?%(?: ?\+ ?(?P<fixed>[0-9]{1,6}(?:\.[0-9]{1,3})?))?"
    r"(?: (?P<currency>[A-Z]{3}))?",
    re.ASCII,
)


class FormulaError(ValueError):
    """A FEE_COVER that cannot be read; its text is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Formula:
    """What a processor keeps of a payment: `per_million` of it, and `fixed` minor units."""

    per_million: int
    fixed: int

    def fee(self, total: int) -> int:
        """The fee of a payment, minor units: the share is rounded to the nearest unit, a half upwards."""
        return (total * self.per_million + MILLION // 2) // MILLION + self.fixed

    def words(self, currency: str) -> str:
        """`2.9 % + 0.30 $`."""
        percent = f"{Decimal(self.per_million) / 10_000:f} %"
        return f"{percent} + {money.format_minor(self.fixed, currency)}" if self.fixed else percent


def cover(amount: int, currency: str, formula: Formula) -> int:
    """The least to add to an amount, minor units, so that after the fee on both at least the amount arrives.

    Where a currency is paid in steps of its minor unit, so is this; `amount` is whole steps.
    """
    step = money.step(currency)
    share = MILLION - formula.per_million
    total = -(-(amount + formula.fixed) * MILLION // (share * step)) * step
    # Without rounding that would be it; rounding moves it by a few steps.
    while total - step - formula.fee(total - step) >= amount:
        total -= step
    while total - formula.fee(total) < amount:
        total += step
    return total - amount


def offered(setting: str, *, processor: str, currency: str) -> Formula | None:
    """The formula by which a donor may cover the fee; None where the setting has none for this currency."""
    rules = parse(setting)
    rule = rules.get((processor, currency)) or rules.get((processor, ""))
    if rule is None:
        return None
    per_million, fixed = rule
    step = money.step(currency)  # of ISK nothing smaller than a whole one can be kept
    steps = (fixed.scaleb(money.exponent(currency)) / step).to_integral_value(ROUND_CEILING)
    return Formula(per_million, int(steps) * step)


Rules = dict[tuple[str, str], tuple[int, Decimal]]


@lru_cache
def parse(setting: str) -> Rules:
    """The rules of a FEE_COVER by processor and currency ("" for every other): per million, and units of the currency.

    Raises FormulaError.
    """
    rules: Rules = {}
    for part in filter(None, (part.strip() for part in setting.split(";"))):
        processor, equals, formulas = part.partition("=")
        if not equals or not processor.strip():
            raise FormulaError(_explained(setting, f"“{part}” names no processor"))
        for formula in formulas.split(","):
            currency, rule = _rule(setting, formula.strip())
            key = (processor.strip(), currency)
            if key in rules:
                raise FormulaError(_explained(setting, f"it has two formulas for {' '.join(key).strip()}"))
            rules[key] = rule
    return rules


def check(setting: str, *, processors: Collection[str]) -> None:
    """Refuse a setting that cannot be read, or that names a processor that there is not. Raises FormulaError."""
    for processor, _ in parse(setting):
        if processor not in processors:
            raise FormulaError(
                _explained(setting, f"there is no processor “{processor}”, only {', '.join(processors)}")
            )


def _rule(setting: str, formula: str) -> tuple[str, tuple[int, Decimal]]:
    match = RULE.fullmatch(formula)
    if not match:
        raise FormulaError(_explained(setting, f"“{formula}” is no formula"))
    currency = match["currency"] or ""
    per_million, fixed = int(Decimal(match["percent"]) * 10_000), Decimal(match["fixed"] or 0)
    if currency and currency not in CURRENCIES:
        raise FormulaError(_explained(setting, f"there is no currency {currency}"))
    if currency and fixed % Decimal(1).scaleb(-money.exponent(currency)):
        raise FormulaError(_explained(setting, f"{currency} has no unit as small as in {fixed}"))
    if per_million + fixed == 0 or per_million > MOST_PER_MILLION:
        raise FormulaError(_explained(setting, f"“{formula}” is no fee: it is above 0, and of 50% at most"))
    return currency, (per_million, fixed)


def _explained(setting: str, problem: str) -> str:
    example = "stripe=2.9%+0.30, or stripe=2.9%+0.30 USD,2.9%+0.25 EUR"
    return f"FEE_COVER is “{setting}”, and {problem}. Write it like {example}; empty, it is not offered."
