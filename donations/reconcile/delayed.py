"""Payments whose money is announced when they begin, and taken back days later when they fail: bank debits.

https://docs.stripe.com/reports/balance-transaction-types.
"""

from collections import defaultdict

from donations.models import BalanceTransaction
from donations.processors.facts import TransactionSeen
from donations.selectors.settlements import PAYMENTS

FAILURES = {"payment_failure_refund"}  # of payments by other means than a card


def kept_of(processor: str, facts: list[TransactionSeen]) -> dict[str, list[BalanceTransaction]]:
    """What is kept of their payments, by payment: what brought money and what took it back, the oldest first."""
    payments = {fact.payment for fact in facts if fact.type in {"payment", *FAILURES}} - {""}
    kept = BalanceTransaction.objects.filter(payment__in=payments, type__in={*PAYMENTS, *FAILURES}).exclude(payment="")
    found = defaultdict[str, list[BalanceTransaction]](list)
    for movement in sorted(kept, key=lambda each: (each.created, each.reference)):
        if movement.processor == processor:
            found[movement.payment].append(movement)
    return dict(found)


def in_vain(moved: list[BalanceTransaction], *, has_gift: bool) -> set[str]:
    """Of a payment's movements, the oldest first, those of charges that failed and those that took their money back.

    Which charge one took back is told by its source, or else by their order. A gift stands for a charge that did not
    fail, or for the last one.
    """
    charges = [each for each in moved if each.type in PAYMENTS]
    named, pairs = {each.source for each in charges}, dict[str, str]()
    for back in sorted((each for each in moved if each.type in FAILURES), key=lambda each: each.source not in named):
        left = [each for each in charges if each.reference not in pairs]
        if left:
            own = next((each for each in left if each.source == back.source), left[0])
            pairs[own.reference] = back.reference
    if has_gift and len(pairs) == len(charges) > 0:
        del pairs[charges[-1].reference]
    return {*pairs, *pairs.values()}
