"""Small books with everything in them that can be booked, waits, or was decided about; made through the front door."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from django.contrib.admin.models import ADDITION, CHANGE, LogEntry

from donations import closing, inbox, offline, processors, projections
from donations.models import (
    Campaign,
    Donor,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    MonthStatement,
    OfflineRequest,
    RecurringGift,
    RefundRequest,
)
from donations.periods import Month
from donations.processors.base import CheckoutOrder
from tests.factories import (
    Event,
    charge_event,
    checkout_event,
    deliver,
    dispute_event,
    event,
    items_of,
    lines_of,
    make_campaign,
    make_gift,
    make_recurring_gift,
    make_staff,
    movement,
    payout_event,
    refund_event,
    transaction_event,
)

BEGINS = datetime(2024, 10, 20, tzinfo=UTC)
DAYS = 70
IN_DOLLARS = {"USD": None, "EUR": "1.0875", "JPY": "0.66"}  # the account's rates, of minor units


def make_books(rng: random.Random, gifts: int = 40) -> None:
    """Fill the empty database, the same for the same random choices."""
    campaigns = [
        make_campaign("general"),
        make_campaign("water", currency="EUR", time_zone="Europe/Berlin"),
        make_campaign("schools", currency="JPY", time_zone="Asia/Tokyo"),
    ]
    given = [_gift(rng, campaign) for _ in range(gifts) for campaign in [rng.choice(campaigns)]]
    told = [told for gift in given for told in _life(rng, gift)]
    told += [told for number, campaign in enumerate(campaigns) for told in _monthly(rng, campaign, number)]
    rng.shuffle(told)
    deliver(*told, *_strangers(rng, given))
    inbox.drain()
    _decide(rng)
    _ask_for_refunds(rng)
    _follow(campaigns)
    _enter(campaigns)
    _close(campaigns)
    _erase_some_bodies(rng)


def _moment(rng: random.Random) -> datetime:
    return BEGINS + timedelta(seconds=rng.randrange(DAYS * 86_400))


def _gift(rng: random.Random, campaign: Campaign) -> Gift:
    """As a reader's form begins it, with the parameters that the processor is asked with."""
    tier = rng.choice(["500.00", "2500.00", "custom"])
    amount, cover = rng.randrange(1000, 300_000), rng.choice([0, 0, rng.randrange(100, 999)])
    gift = make_gift(campaign, amount, fee_cover=cover, tier=tier, reference=f"gift_{rng.getrandbits(80):020x}")
    order = CheckoutOrder(
        reference=gift.pk,
        monthly=False,
        campaign=campaign.pk,
        campaign_name=campaign.name,
        amount=amount,
        fee_cover=cover,
        currency=gift.currency,
        success_url="http://testserver/",
        cancel_url="http://testserver/",
        expires_at=_moment(rng),
    )
    gift.checkout_parameters = processors.default().checkout_parameters(order)
    gift.checkout_id = f"cs_test_{gift.pk[5:]}"
    gift.save(update_fields=["checkout_parameters", "checkout_id"])
    return gift


# ---- what the processor tells of a gift


def _life(rng: random.Random, gift: Gift) -> list[Event]:
    at = _moment(rng)
    kind = rng.choice(["paid"] * 6 + ["delayed", "awaiting", "failed", "expired", "pending", "other amount", "twice"])
    paid = checkout_event(gift, at=at)
    later = at + timedelta(days=rng.randrange(1, 20))
    match kind:
        case "paid":
            return [paid, *_refunds(rng, gift, later), *_settled(rng, gift, at), *_disputed(rng, gift, later)]
        case "delayed":
            settled = checkout_event(gift, "checkout.session.async_payment_succeeded", at=later)
            return [checkout_event(gift, paid=False, at=at), settled]
        case "awaiting":
            return [checkout_event(gift, paid=False, at=at)]
        case "failed":
            failed = checkout_event(gift, "checkout.session.async_payment_failed", at=later, paid=False)
            return [checkout_event(gift, paid=False, at=at), failed]
        case "expired":
            return [checkout_event(gift, "checkout.session.expired", at=at, paid=False)]
        case "other amount":
            return [checkout_event(gift, at=at, amount_total=gift.total + 100)]
        case "twice":
            return [paid, checkout_event(gift, at=later, payment=f"pi_second{gift.pk[5:]}")]
        case _:
            return []


def _refunds(rng: random.Random, gift: Gift, at: datetime) -> list[Event]:
    """Perhaps a refund in one or two sightings, perhaps one that comes back, perhaps a second one."""
    told: list[Event] = []
    for number in range(rng.choice([0, 0, 1, 1, 2])):
        refund, amount = f"re_{number}{gift.pk[5:]}", rng.randrange(1, gift.total // 3)
        created = at + timedelta(hours=number)
        statuses = rng.choice([["succeeded"], ["pending", "succeeded"], ["succeeded", "failed"], ["pending"]])
        told += [
            refund_event(
                gift,
                amount,
                refund=refund,
                status=status,
                kind="refund.created" if not step else "refund.updated",
                created=created,
                at=created + timedelta(hours=step),
            )
            for step, status in enumerate(statuses)
        ]
    return told


def _settled(rng: random.Random, gift: Gift, at: datetime) -> list[Event]:
    """Perhaps its charge, its transaction, and the payout that carried it; the account is in dollars."""
    if rng.random() < 0.5:
        return []
    number, payout = f"txn_{gift.pk[5:]}", f"po_{gift.pk[5:]}"
    rate = IN_DOLLARS[gift.currency]
    settled = round(gift.total * Decimal(rate or 1))
    told = movement(number, settled, fee=rng.randrange(1, 900), at=at, exchange_rate=float(rate) if rate else None)
    statuses = rng.choice([["pending"], ["in_transit", "paid"], ["paid", "failed"]])
    return [
        charge_event(gift, number),
        transaction_event(gift, told),
        transaction_event(gift, told, payout=payout),
        *(payout_event(payout, told["net"], status=status, kind=f"payout.{status}") for status in statuses),
    ]


def _disputed(rng: random.Random, gift: Gift, at: datetime) -> list[Event]:
    """Perhaps a dispute that is lost, or is won: then all or half of it comes back."""
    if rng.random() < 0.6:
        return []
    of_gift = f"txn_dispute{gift.pk[5:]}"
    taken = movement(of_gift, -gift.total, fee=1500, at=at, type="adjustment")
    back = movement(f"{of_gift}back", gift.total // rng.choice([1, 2]), at=at + timedelta(days=3), type="adjustment")
    told = [dispute_event(gift, taken, at=at)]
    return told if rng.random() < 0.5 else [*told, dispute_event(gift, taken, back, status="won", at=at)]


def _monthly(rng: random.Random, campaign: Campaign, number: int) -> list[Event]:
    """An arrangement that began at its checkout, paid an invoice, failed one, asks more then, and goes on or ends."""
    cover = 59 if number else 0
    arrangement = make_recurring_gift(
        campaign, rng.randrange(500, 5000), fee_cover=cover, reference=f"recurring_{number}"
    )
    asks = [(arrangement.amount, cover), (arrangement.amount + 500, cover)]
    currency = campaign.currency.lower()
    at, subscription, payment = _moment(rng), f"sub_{number}", f"pi_monthly{number}"
    ours = {"recurring_gift": arrangement.pk, "campaign": campaign.pk}
    invoice: Event = {
        "id": f"in_{number}",
        "lines": lines_of(*asks[0]),
        "hosted_invoice_url": "https://pay.example.org/in",
    }
    invoice |= {"parent": {"subscription_details": {"subscription": subscription, "metadata": ours}}}
    paid = {"id": f"inpay_{number}", "invoice": invoice["id"], "amount_paid": arrangement.total}
    paid |= {"currency": currency, "payment": {"payment_intent": payment}}
    session = {"id": f"cs_monthly{number}", "mode": "subscription", "subscription": subscription, "metadata": ours}
    _ask_for(arrangement, session["id"], at)
    return [
        event("checkout.session.completed", session, at=at),
        event("invoice.paid", invoice, at=at),
        event("invoice.payment_failed", {**invoice, "id": f"in_failed{number}"}, at=at + timedelta(days=31)),
        event("invoice_payment.paid", paid, at=at),
        *(
            event(
                "customer.subscription.updated",
                {
                    "id": subscription,
                    "status": status,
                    "metadata": ours,
                    "currency": currency,
                    "items": items_of(*amounts, currency=currency),
                },
                at=then,
            )
            for status, then, amounts in [
                ("active", at, asks[0]),
                (rng.choice(["past_due", "canceled"]), at + timedelta(days=31), asks[1]),
            ]
        ),
    ]


def _ask_for(arrangement: RecurringGift, checkout: str, at: datetime) -> None:
    order = CheckoutOrder(
        reference=arrangement.pk,
        monthly=True,
        campaign=arrangement.campaign_id,
        campaign_name=arrangement.campaign.name,
        amount=arrangement.amount,
        fee_cover=arrangement.fee_cover,
        currency=arrangement.currency,
        success_url="http://testserver/",
        cancel_url="http://testserver/",
        expires_at=at,
    )
    arrangement.checkout_parameters = processors.default().checkout_parameters(order)
    arrangement.checkout_id = checkout
    arrangement.save(update_fields=["checkout_parameters", "checkout_id"])


def _strangers(rng: random.Random, given: list[Gift]) -> list[Event]:
    """What is not ours, of the other mode, malformed, too early, or of no meaning for the books."""
    unpaid = next(gift for gift in given)
    foreign = event("checkout.session.completed", {"id": "cs_x", "mode": "payment", "payment_intent": "pi_x"})
    wrong_mode = checkout_event(rng.choice(given))
    wrong_mode["livemode"] = True
    return [
        foreign,
        refund_event(unpaid, 100, payment="pi_x", refund="re_x"),
        wrong_mode,
        checkout_event(unpaid, amount_total="much"),
        refund_event(unpaid, 100, payment="pi_early", refund="re_early"),
        transaction_event(None, movement("txn_account", -700, fee=0, type="stripe_fee", source="fee_1")),
        charge_event(unpaid, "txn_never", payment_intent="pi_x"),
        event("customer.created", {"id": "cus_1"}),
    ]


# ---- what people do


def _decide(rng: random.Random) -> None:
    """Accept, dismiss or leave each; the admin notes it in its history."""
    staff = make_staff(superuser=True)
    quarantined = InboxEvent.objects.filter(state="quarantined", facts__isnull=False).order_by("pk")
    for position, row in enumerate(list(quarantined)):
        if position % 3 == 0:
            inbox.accept(row, user=staff, reason="the donor meant it")
        elif position % 3 == 1:
            inbox.dismiss(row, user=staff, reason="given back by hand")
    LogEntry.objects.log_actions(staff.pk, InboxEvent.objects.filter(decided_by=staff), CHANGE)


def _ask_for_refunds(rng: random.Random) -> None:
    whole = GiftState.objects.filter(charged__gt=1000, refunded=0, disputed=0, adjusted=0).order_by("pk")
    for state in whole[:4]:
        assert projections.reserve_refund(gift=state.pk, amount=500)
        status = rng.choice(["sending", "accepted"])
        RefundRequest.objects.create(
            key=f"refund_{rng.getrandbits(128):032x}", gift_id=state.pk, amount=500, status=status
        )


def _follow(campaigns: list[Campaign]) -> None:
    for number, campaign in enumerate(campaigns):
        donor = Donor.objects.create(email=f"follower{number}@example.org")
        projections.confirm_follower(Follower.objects.create(donor=donor, campaign=campaign, livemode=False))


def _enter(campaigns: list[Campaign]) -> None:
    """Offline gifts, an adjustment of one, one of a campaign, and a gift so large that a second person approves it."""
    staff, approver, day = make_staff(), make_staff(), date(2024, 11, 18)
    for campaign in campaigns:
        told = {"campaign": campaign, "day": day, "user": staff}
        given = offline.record_gift(
            amount=7_000, method="cash", reference=f"BOX {campaign.pk}", reason="in the box", **told
        )
        offline.record_adjustment(amount=-500, gift=given.gift, reference="BANK 1", reason="a false note", **told)
        offline.record_adjustment(amount=300, reference="BANK 2", reason="rounding", **told)
        asked = offline.record_gift(
            amount=offline.limit_in(campaign.currency) + 1, method="cheque", reference="7", reason="a large one", **told
        )
        # As if it had waited for a day.
        OfflineRequest.objects.filter(pk=asked.pk).update(requested_at=asked.requested_at - timedelta(days=1))
        offline.approve(asked, user=approver)


def _close(campaigns: list[Campaign]) -> None:
    """October, in spite of what is open; the admin notes it in its history."""
    staff = make_staff()
    for campaign in campaigns:
        month = Month(2024, 10)
        closing.close(campaign=campaign, month=month, user=staff, in_spite_because="as far as we know")
    LogEntry.objects.log_actions(staff.pk, MonthStatement.objects.all(), ADDITION)


def _erase_some_bodies(rng: random.Random) -> None:
    processed = list(InboxEvent.objects.filter(state="processed").order_by("pk").values_list("pk", flat=True))
    InboxEvent.objects.filter(pk__in=rng.sample(processed, len(processed) // 5)).update(body=None)
