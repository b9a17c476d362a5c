"""What is measured with: campaigns, many gifts and entries at once, and signed deliveries."""

import json
from datetime import UTC, datetime
from hashlib import md5

from django.db import connection
from django.utils import timezone

from donations.models import Campaign
from tests.factories import make_campaign, signature_of

MOMENT = datetime(2024, 11, 18, 12, tzinfo=UTC)
BEGIN = datetime(2024, 11, 1, 12, tzinfo=UTC)
PADDING = "x" * 2300  # brings a delivery to the 3 KB and more that a completed checkout has


def campaign() -> Campaign:
    return Campaign.objects.first() or make_campaign(goal=100_000_000)


def key(number: int) -> str:
    """What tells one reference from another: first when, then chance, as in ours and in most of those of Stripe."""
    return f"{number:010x}{unordered(number)[:16]}"


def unordered(number: int) -> str:
    """The part of a reference that is chance alone, as that of Stripe's sessions."""
    return md5(str(number).encode(), usedforsecurity=False).hexdigest()


def address(number: int) -> str:
    """A donor's, in no order at all."""
    return f"{unordered(number)[:16]}@example.org"


KEY = "lpad(to_hex(i), 10, '0') || left(md5(i::text), 16)"  # the same in SQL
ADDRESS = "left(md5(i::text), 16) || '@example.org'"


def add_gifts(first: int, count: int, *, every: int = 2) -> None:
    """Gifts numbered from `first`, begun and not paid. One donor in `every` has typed an address into our form."""
    campaign()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO donations_donor (email, name, created_at) "
            f"SELECT {ADDRESS}, '', now() FROM generate_series(%s, %s, %s) i",
            [first, first + count - 1, every],
        )
        cursor.execute(
            "INSERT INTO donations_gift (reference, campaign_id, frequency, tier, currency, amount, fee_cover, "
            "public_name, message, anonymous, source, livemode, processor, created_at, page, checkout_url, refusal, "
            f"donor_id) SELECT 'gift_' || {KEY}, 'general', 'once', '500.00', 'USD', 50000, 0, '', '', false, "
            "'', false, 'stripe', now(), '', '', '', d.id FROM generate_series(%s, %s) i "
            f"LEFT JOIN donations_donor d ON d.email = {ADDRESS}",
            [first, first + count - 1],
        )


def delivery(number: int) -> str:
    """The event that gift `number` was paid, as one line."""
    session = {
        "id": f"cs_test_{unordered(number)}",
        "object": "checkout.session",
        "amount_total": 50000,
        "currency": "usd",
        "client_reference_id": f"gift_{key(number)}",
        "custom_text": {"submit": PADDING},
        "customer_details": {"email": address(number), "name": f"Reader {number}"},
        "livemode": False,
        "metadata": {"gift": f"gift_{key(number)}", "campaign": "general"},
        "mode": "payment",
        "payment_intent": f"pi_{key(number)}",
        "payment_status": "paid",
        "status": "complete",
    }
    return json.dumps(
        {
            "id": f"evt_{key(number)}",
            "object": "event",
            "created": int(MOMENT.timestamp()) + number % 86_400,
            "livemode": False,
            "type": "checkout.session.completed",
            "data": {"object": session},
        }
    )


def signed(number: int) -> tuple[str, str]:
    """A delivery with its signature of now."""
    body = delivery(number)
    return body, signature_of(body.encode())


def queue(first: int, count: int) -> None:
    """Put deliveries into the inbox, ready to be drained, with their gifts."""
    add_gifts(first, count)
    columns = (
        "processor, event_id, origin, type, received_at, body, body_sha256, state, next_try_at, attempts, reason, "
        "subject, payment, gift_reference, decision, decision_reason"
    )
    now = timezone.now()
    with connection.cursor() as cursor, cursor.cursor.copy(f"COPY donations_inboxevent ({columns}) FROM STDIN") as copy:
        for number in range(first, first + count):
            body = delivery(number).encode()
            copy.write_row(
                ("stripe", f"evt_{key(number)}", "delivery", "checkout.session.completed", now, body, bytes(32),
                 "ready", now, 0, "", "", "", "", "", "")
            )  # fmt: skip


def fill(first: int, count: int) -> None:
    """Gifts that were paid long ago: their donors, entries, states, settled events and receipts, by the million."""
    add_gifts(first, count, every=1)
    last = first + count - 1
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO donations_ledgerentry (effective_at, local_date, campaign, campaign_month, time_zone, kind, "
            "processor, reference, gift, tier, currency, amount, goal_amount, settlement_currency, livemode, "
            "booked_at) SELECT at, (at AT TIME ZONE 'America/New_York')::date, 'general', '2024-11', "
            f"'America/New_York', 'gift', 'stripe', 'pi_' || {KEY}, 'gift_' || {KEY}, '500.00', 'USD', "
            # One in ten has added the processor's fee.
            "50000 + (i %% 10 = 0)::int * 1490, 50000, '', false, now() "
            "FROM (SELECT %s + n AS i, %s::timestamptz + n * interval '2.4 s' AS at "
            "FROM generate_series(0, %s) n) moments",
            [first, BEGIN, count - 1],
        )
        cursor.execute(
            "INSERT INTO donations_giftstate (gift_id, status, campaign_id, campaign_month, local_date, livemode, "
            "currency, tier, payment, confirmed_at, charged, refunded, disputed, adjusted, counted, awaiting, "
            "refund_requested) "
            f"SELECT 'gift_' || {KEY}, 'confirmed', 'general', '2024-11', '2024-11-18', false, 'USD', '500.00', "
            f"'pi_' || {KEY}, %s, 50000, 0, 0, 0, 50000, 0, 0 FROM generate_series(%s, %s) i",
            [MOMENT, first, last],
        )
        cursor.execute(
            "INSERT INTO donations_inboxevent (processor, event_id, origin, type, received_at, body, body_sha256, "
            "state, attempts, reason, settled_at, livemode, created, subject, payment, gift_reference, decision, "
            f"decision_reason) SELECT 'stripe', 'evt_' || {KEY}, 'delivery', 'checkout.session.completed', "
            "now(), NULL, ''::bytea, 'processed', 1, '', now(), false, now(), 'cs_test_' || md5(i::text), "
            f"'pi_' || {KEY}, 'gift_' || {KEY}, '', '' FROM generate_series(%s, %s) i",
            [first, last],
        )
        cursor.execute(
            "INSERT INTO donations_outboxmessage (kind, subject_id, round, state, attempts, next_try_at, last_error, "
            f"created_at, sent_at) SELECT 'receipt', 'gift_' || {KEY}, 0, 'sent', 1, now(), '', now(), now() "
            "FROM generate_series(%s, %s) i",
            [first, last],
        )
    settle()


def settle() -> None:
    """What autovacuum does in time."""
    with connection.cursor() as cursor:
        for table in ("donor", "gift", "ledgerentry", "giftstate", "inboxevent", "outboxmessage"):
            cursor.execute(f"VACUUM ANALYZE donations_{table}")
