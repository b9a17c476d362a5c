"""What tests are made of: campaigns, gifts, and the processor's events as signed bytes.

Events are written as the processor writes them; only the fields that we read are filled in.
"""

import hashlib
import hmac
import itertools
import json
import time
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.db import connection
from djmoney.money import Money

from donations import inbox
from donations.models import Campaign, Gift, InboxEvent, LedgerEntry, Payout, RecurringGift, Tier

NOON = datetime(2024, 11, 18, 12, tzinfo=UTC)
numbers = itertools.count(1)

Event = dict[str, Any]


# ---- what the publisher has


def make_campaign(slug: str = "general", *, goal: int = 5000, currency: str = "USD", **fields: Any) -> Campaign:
    """A campaign with tiers; `goal` is in whole units of the currency."""
    fields = {"name": "Newsroom", "time_zone": "America/New_York", "is_default": slug == "general", **fields}
    campaign = Campaign.objects.create(slug=slug, default_goal=Money(goal, currency), **fields)
    for position, amount in enumerate((0, 500, 2500, 5000)):
        Tier.objects.create(campaign=campaign, amount=Money(amount, currency), position=position)
    return campaign


def make_gift(campaign: Campaign, amount: int = 50000, **fields: Any) -> Gift:
    """A gift that was begun and not paid, minor units."""
    fields = {"tier": "custom", "currency": campaign.currency, "livemode": False, "processor": "stripe", **fields}
    return Gift.objects.create(campaign=campaign, amount=amount, **fields)


def make_recurring_gift(campaign: Campaign, amount: int = 1000, **fields: Any) -> RecurringGift:
    """A monthly gift that was begun, minor units a month; nothing was heard of it yet."""
    fields = {"tier": "custom", "currency": campaign.currency, "livemode": False, "processor": "stripe", **fields}
    return RecurringGift.objects.create(campaign=campaign, amount=amount, **fields)


def make_payout(reference: str = "po_1", amount: int = 50000, **fields: Any) -> Payout:
    """A transfer to our bank that arrived, minor units."""
    given = {"processor": "stripe", "status": "paid", "currency": "USD", "created": NOON, "arrival": NOON}
    fields = given | {"automatic": True, "livemode": False} | fields
    return Payout.objects.create(reference=reference, amount=amount, **fields)


def make_staff(*permissions: str, superuser: bool = False) -> User:
    """A member of staff with these permissions of ours, such as `view_monthtotal`."""
    user = User.objects.create_user(f"staff{next(numbers)}", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="donations"))
    return user


# ---- what the processor tells


def event(kind: str, subject: dict[str, Any], *, at: datetime = NOON, livemode: bool = False, **outside: Any) -> Event:
    """An event around an object."""
    return {
        "id": f"evt_{next(numbers):012d}",
        "object": "event",
        "type": kind,
        "created": int(at.timestamp()),
        "livemode": livemode,
        "data": {"object": {"livemode": livemode, **subject}},
        **outside,
    }


def checkout_event(
    gift: Gift,
    kind: str = "checkout.session.completed",
    *,
    payment: str = "",
    paid: bool = True,
    at: datetime = NOON,
    **fields: Any,
) -> Event:
    """What the processor tells of a gift's checkout; paid in full unless told otherwise."""
    cover = {"fee_cover": str(gift.fee_cover)} if gift.fee_cover else {}
    session = {
        "id": f"cs_test_{gift.pk[5:]}",
        "object": "checkout.session",
        "amount_total": gift.total,
        "currency": gift.currency.lower(),
        "client_reference_id": gift.pk,
        "metadata": {"gift": gift.pk, "campaign": gift.campaign_id, **cover},
        "mode": "payment",
        "payment_intent": payment or f"pi_{gift.pk[5:]}",
        "payment_status": "paid" if paid else "unpaid",
        "status": "expired" if kind.endswith("expired") else "complete",
        "customer_details": {"email": "reader@example.org", "name": "A Reader"},
        **fields,
    }
    return event(kind, session, at=at, livemode=gift.livemode)


def monthly_checkout_event(
    recurring: RecurringGift, kind: str = "checkout.session.completed", *, at: datetime = NOON, **fields: Any
) -> Event:
    """What the processor tells of a monthly gift's checkout."""
    session = {
        "id": f"cs_test_{recurring.pk[10:]}",
        "object": "checkout.session",
        "mode": "subscription",
        "metadata": {"recurring_gift": recurring.pk, "campaign": recurring.campaign_id},
        "payment_status": "paid",
        "subscription": f"sub_{recurring.pk[10:]}",
        "customer_details": {"email": "reader@example.org", "name": "A Reader"},
        **fields,
    }
    return event(kind, session, at=at, livemode=recurring.livemode)


def subscription_event(
    recurring: RecurringGift, status: str = "active", kind: str = "", *, at: datetime = NOON, **fields: Any
) -> Event:
    """What the processor tells of a monthly gift's arrangement."""
    ended = {"ended_at": int(at.timestamp())} if status == "canceled" else {}
    cover = {"fee_cover": str(recurring.fee_cover)} if recurring.fee_cover else {}
    subscription = {
        "id": f"sub_{recurring.pk[10:]}",
        "object": "subscription",
        "status": status,
        "currency": recurring.currency.lower(),
        "metadata": {"recurring_gift": recurring.pk, "campaign": recurring.campaign_id, **cover},
        **ended,
        **fields,
    }
    kind = kind or f"customer.subscription.{'deleted' if ended else 'updated'}"
    return event(kind, subscription, at=at, livemode=recurring.livemode)


def items_of(*amounts: int | None, currency: str = "usd", quantity: int = 1, **often: Any) -> dict[str, Any]:
    """The items of a subscription, by what each asks, minor units; None: a price of tiers. `often` as Stripe has it."""
    recurring = {"interval": "month", "interval_count": 1, "usage_type": "licensed", **often}
    prices = [{"currency": currency, "unit_amount": amount, "recurring": recurring} for amount in amounts]
    return {"data": [{"price": price, "quantity": quantity} for price in prices], "has_more": False}


def lines_of(*amounts: int) -> dict[str, Any]:
    """The lines of an invoice, by what each asks, minor units."""
    return {"data": [{"amount": amount} for amount in amounts], "has_more": False}


def invoice_event(
    recurring: RecurringGift, kind: str = "invoice.paid", *, invoice: str = "in_1", at: datetime = NOON, **fields: Any
) -> Event:
    """What the processor tells of an invoice of a monthly gift; no discount, tax or balance unless told so."""
    told = {
        "id": invoice,
        "object": "invoice",
        "hosted_invoice_url": f"https://pay.example.org/{invoice}",
        "parent": {
            "subscription_details": {
                "subscription": f"sub_{recurring.pk[10:]}",
                "metadata": {"recurring_gift": recurring.pk},
            }
        },
        "starting_balance": 0,
        "total": sum(line["amount"] for line in (fields.get("lines") or {"data": []})["data"]),
        **fields,
    }
    return event(kind, told, at=at, livemode=recurring.livemode)


def invoice_paid_event(
    recurring: RecurringGift, *, invoice: str = "in_1", payment: str = "", at: datetime = NOON, **fields: Any
) -> Event:
    """What the processor tells of a payment of an invoice: not whose it is."""
    told = {
        "id": f"inpay_{invoice}",
        "object": "invoice_payment",
        "invoice": invoice,
        "amount_paid": recurring.total,
        "currency": recurring.currency.lower(),
        "payment": {"type": "payment_intent", "payment_intent": payment or f"pi_{invoice}"},
        **fields,
    }
    return event("invoice_payment.paid", told, at=at, livemode=recurring.livemode)


def refund_event(
    gift: Gift,
    amount: int,
    *,
    refund: str = "",
    payment: str = "",
    status: str = "succeeded",
    kind: str = "refund.created",
    created: datetime = NOON,
    at: datetime | None = None,
    **fields: Any,
) -> Event:
    """What the processor tells of a refund, minor units; `created` is the refund's own time, `at` the event's."""
    told = {
        "id": refund or f"re_{next(numbers)}",
        "object": "refund",
        "amount": amount,
        "created": int(created.timestamp()),
        "currency": gift.currency.lower(),
        "payment_intent": payment or f"pi_{gift.pk[5:]}",
        "status": status,
        "metadata": {},
        **fields,
    }
    return event(kind, told, at=at or created, livemode=gift.livemode)


def movement(transaction: str, amount: int, *, fee: int = 0, at: datetime = NOON, **fields: Any) -> Event:
    """A balance transaction, minor units of the settlement's currency, signed."""
    return {
        "id": transaction,
        "object": "balance_transaction",
        "type": "charge",
        "amount": amount,
        "fee": fee,
        "net": amount - fee,
        "currency": "usd",
        "exchange_rate": None,
        "created": int(at.timestamp()),
        "available_on": int(at.timestamp()) + 2 * 86_400,
        "source": None,
        **fields,
    }


def dispute_event(
    gift: Gift,
    *movements: Event,
    amount: int = 0,
    status: str = "needs_response",
    kind: str = "charge.dispute.updated",
    at: datetime = NOON,
    **fields: Any,
) -> Event:
    """What the processor tells of a dispute: all that it has moved so far."""
    told = {
        "id": f"du_{gift.pk[5:]}",
        "object": "dispute",
        "amount": amount or gift.total,
        "currency": gift.currency.lower(),
        "payment_intent": f"pi_{gift.pk[5:]}",
        "reason": "fraudulent",
        "status": status,
        "balance_transactions": list(movements),
        **fields,
    }
    return event(kind, told, at=at, livemode=gift.livemode)


def charge_event(gift: Gift, transaction: str | None, kind: str = "charge.updated", **fields: Any) -> Event:
    """What the processor tells of a gift's charge."""
    told = {"id": f"ch_{gift.pk[5:]}", "object": "charge", "payment_intent": f"pi_{gift.pk[5:]}", **fields}
    return event(kind, {**told, "balance_transaction": transaction}, livemode=gift.livemode)


def transaction_event(gift: Gift | None, told: Event, *, payout: str = "", livemode: bool = False) -> Event:
    """A balance transaction that was asked for; of a gift's charge, or of none."""
    source = {"id": f"ch_{gift.pk[5:]}", "payment_intent": f"pi_{gift.pk[5:]}"} if gift else told["source"]
    around = event("sweep.balance_transaction", {**told, "source": source}, livemode=livemode)
    around["data"]["payout"] = payout or None
    return around


def payout_event(payout: str, amount: int, *, status: str = "paid", kind: str = "payout.paid", **fields: Any) -> Event:
    """What the processor tells of a payout, minor units of its currency."""
    told = {
        "id": payout,
        "object": "payout",
        "amount": amount,
        "currency": "usd",
        "status": status,
        "automatic": True,
        "created": int(NOON.timestamp()),
        "arrival_date": int(NOON.timestamp()) + 2 * 86_400,
        "reconciliation_status": "in_progress",
        **fields,
    }
    return event(kind, told)


def body_of(told: Event) -> bytes:
    """An event as the bytes that are delivered."""
    return json.dumps(told, indent=2).encode()


def signature_of(body: bytes, *, at: float | None = None, secret: str = "") -> str:
    """The header that the processor signs a delivery with; the scheme is documented at docs.stripe.com/webhooks."""
    moment = int(time.time() if at is None else at)
    key = (secret or settings.STRIPE_WEBHOOK_SECRETS[0]).encode()
    return f"t={moment},v1={hmac.new(key, b'%d.' % moment + body, hashlib.sha256).hexdigest()}"


def deliver(*events: Event) -> None:
    """Receive events, each signed, through the real front door of the inbox; nothing is processed yet."""
    for told in events:
        body = body_of(told)
        inbox.receive(processor="stripe", body=body, signature=signature_of(body))


def told(*events: Event) -> list[str]:
    """Have events delivered and processed, one after the other; the states that they end in."""
    for one in events:
        deliver(one)
        inbox.drain()
    rows = dict(InboxEvent.objects.values_list("event_id", "state"))
    return [rows[one["id"]] for one in events]


def confirm(gift: Gift, **fields: Any) -> None:
    """Have a gift paid: its event delivered and processed."""
    deliver(checkout_event(gift, **fields))
    inbox.drain()


# ---- the database


def collate_ledger(collation: str) -> None:
    """Make the ledger's texts of a PostgreSQL collation, as in a database that was made with it. Elsewhere nothing."""
    if connection.vendor == "postgresql":
        connection.check_constraints()  # none may be pending
        with connection.cursor() as cursor:
            for field in map(LedgerEntry._meta.get_field, ("processor", "kind", "reference")):
                column = f"{field.column} TYPE {field.db_type(connection)}"
                cursor.execute(f'ALTER TABLE {LedgerEntry._meta.db_table} ALTER COLUMN {column} COLLATE "{collation}"')
