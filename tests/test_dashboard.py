"""The month at a glance: what managers are told, and what it costs to tell them."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from djmoney.money import Money

from donations import ledger, projections
from donations.models import (
    Campaign,
    CampaignMonth,
    Donor,
    Follower,
    Gift,
    GiftState,
    InboxEvent,
    RecurringGift,
    RefundRequest,
    Tier,
)
from donations.periods import Month
from donations.selectors import dashboard
from donations.views import staff
from tests.factories import make_campaign, make_recurring_gift

pytestmark = pytest.mark.django_db

NOVEMBER = "/staff/news/2024-11/"
MIDDLE = datetime(2024, 11, 18, 12, tzinfo=UTC)


@pytest.fixture
def campaign() -> Campaign:
    campaign = Campaign.objects.create(
        slug="news", name="Newsroom", default_goal=Money(5000, "USD"), time_zone="America/New_York", is_default=True
    )
    for amount, label in ((0, "Follow"), (500, "A day"), (2500, "A week"), (5000, "A month")):
        Tier.objects.create(campaign=campaign, amount=Money(amount, "USD"), label=label)
    return campaign


@pytest.fixture
def manager() -> Client:
    return client_of("view_monthtotal")


@pytest.fixture
def at_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noon of 18 November 2024, in UTC."""
    monkeypatch.setattr(timezone, "now", lambda: MIDDLE)


def client_of(*permissions: str) -> Client:
    user = User.objects.create_user("-".join(permissions) or "nobody", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions, content_type__app_label="donations"))
    client = Client()
    client.force_login(user)
    return client


def give(
    campaign: Campaign, amount: int, *, at: datetime = MIDDLE, refund: int = 0, livemode: bool = False, **fields: Any
) -> Gift:
    """A confirmed gift, booked as the inbox books one; minor units."""
    gift = Gift.objects.create(
        campaign=campaign,
        amount=amount,
        currency=campaign.currency,
        livemode=livemode,
        processor="stripe",
        **{"tier": "custom", **fields},
    )
    common = {"campaign": campaign, "processor": "stripe", "gift": gift.pk, "tier": gift.tier, "livemode": livemode}
    common |= {"currency": gift.currency, "effective_at": at}
    entries = [ledger.entry(kind="gift", reference=f"pi_{gift.pk}", amount=gift.total, goal_amount=amount, **common)]
    if refund:
        month = entries[0].campaign_month
        entries.append(
            ledger.entry(kind="refund", reference=f"re_{gift.pk}", amount=-refund, campaign_month=month, **common)
        )
    with transaction.atomic():
        ledger.post(entries)
        projections.apply(gifts=[gift])
    return gift


def await_money(campaign: Campaign, amount: int, **fields: Any) -> Gift:
    gift = Gift.objects.create(
        campaign=campaign, amount=amount, currency=campaign.currency, livemode=False, processor="stripe", **fields
    )
    with transaction.atomic():
        projections.apply(gifts=[gift], news=[projections.CheckoutNews(gift.pk, "awaiting", MIDDLE)])
    return gift


def follow(campaign: Campaign, name: str) -> None:
    donor = Donor.objects.create(email=f"{name or 'x'}@example.org".lower(), name=name)
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    projections.confirm_follower(follower)


def receive(number: int, *, state: str = "processed", age: timedelta = timedelta(0)) -> None:
    """Rows of the inbox in one state, of an age."""
    unsettled = state in {"ready", "waiting"}
    InboxEvent.objects.bulk_create(
        InboxEvent(
            processor="stripe",
            event_id=f"evt_{state}_{each}",
            type="payment_intent.succeeded",
            received_at=timezone.now() - age,
            body_sha256=sha256(b"").digest(),
            state=state,
            next_try_at=timezone.now() if unsettled else None,
        )
        for each in range(number)
    )


def words(response: HttpResponse) -> str:
    """What a page says, without its tags, unbreakable spaces and line breaks."""
    text = re.sub(r"<[^>]+>", " ", response.content.decode())
    return " ".join(text.replace("\u00a0", " ").replace("&nbsp;", " ").split())


def read(client: Client, address: str = NOVEMBER) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return words(response)


# ---- who may see it, and under which address


def test_a_stranger_is_sent_to_the_login(campaign: Campaign) -> None:
    response = Client().get(NOVEMBER)
    assert response.status_code == 302
    assert response["Location"] == f"/admin/login/?next={NOVEMBER}"
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("address", ["/staff/", NOVEMBER])
def test_staff_without_the_permission_are_refused(campaign: Campaign, address: str) -> None:
    answer = client_of().get(address)
    assert answer.status_code == 403
    assert "not among what you may see" in answer.text


def test_the_permission_alone_is_not_enough(campaign: Campaign, manager: Client) -> None:
    User.objects.update(is_staff=False)
    assert manager.get(NOVEMBER).status_code == 403


def test_the_page_is_never_stored(campaign: Campaign, manager: Client) -> None:
    assert manager.get(NOVEMBER)["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "address", ["/staff/other/2024-11/", "/staff/news/2024-13/", "/staff/news/2024-1/", "/staff/news/nonsense/"]
)
def test_an_unknown_campaign_or_month_is_not_found(campaign: Campaign, manager: Client, address: str) -> None:
    assert manager.get(address).status_code == 404


def test_nothing_is_posted_to_it(campaign: Campaign, manager: Client) -> None:
    assert manager.post(NOVEMBER).status_code == 405


@pytest.mark.parametrize("now, month", [("2024-12-01T04:59Z", "2024-11"), ("2024-12-01T05:00Z", "2024-12")])
def test_the_short_address_leads_to_this_month_by_the_campaigns_clocks(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, now: str, month: str
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: datetime.fromisoformat(now))
    assert client_of("view_monthtotal").get("/staff/")["Location"] == f"/staff/news/{month}/"


def test_without_a_campaign_the_page_says_so(manager: Client) -> None:
    assert "No campaign yet" in read(manager, "/staff/")


@pytest.mark.parametrize("month", ["2000-01", "2999-12"])
def test_the_first_and_the_last_month_link_to_no_month_beyond(campaign: Campaign, manager: Client, month: str) -> None:
    page = manager.get(f"/staff/news/{month}/").content.decode()
    assert "/staff/news/1999-12/" not in page
    assert "/staff/news/3000-01/" not in page


# ---- what it says


@pytest.mark.usefixtures("at_the_middle")
def test_a_month_under_way(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000, tier="500.00", public_name="Ada", at=MIDDLE - timedelta(days=10))
    give(campaign, 150_000, public_name="Bea", anonymous=True)
    give(campaign, 10_000, refund=4_000, public_name="Cleo")
    await_money(campaign, 70_000, tier="custom", public_name="Dora")
    follow(campaign, "Eve")
    page = read(manager)
    assert "Raised 2,060 $ 41% of 5,000 $ 2,940 $ to go" in page
    assert "Pace −940 $ behind an even pace by the end of day 18" in page
    assert "Forecast 3,433.33 $ if the pace holds 68% of the goal" in page
    assert "Awaiting 700 $ 1 gift, not counted yet" in page
    assert "Refunds 40 $ 1 gift 1.9% of what was paid" in page
    assert "Followers 1 confirmed in this month" in page
    assert "Test mode." in page


@pytest.mark.usefixtures("at_the_middle")
def test_the_latest_of_each_kind(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000, tier="500.00", public_name="Ada")
    give(campaign, 150_000, public_name="Bea", anonymous=True)
    give(campaign, 10_000, refund=4_000, public_name="Cleo")
    await_money(campaign, 70_000, tier="custom", public_name="Dora")
    follow(campaign, "Eve")
    page = read(manager)
    assert "Ada 500 $ · confirmed 500 $ 18 Nov, 07:00" in page
    assert "Anonymous Other amount · confirmed 1,500 $" in page
    assert "Bea" not in page
    assert "Latest awaiting Dora Other amount · awaiting 700 $" in page
    assert "Latest refunds Cleo Other amount · partly refunded 40 $ of 100 $ 18 Nov, 07:00" in page
    assert "Latest followers A follower" in page


@pytest.mark.usefixtures("at_the_middle")
def test_a_refund_is_set_against_the_charge_with_its_fee_cover(campaign: Campaign, manager: Client) -> None:
    give(campaign, 2_500, fee_cover=106, refund=2_605)
    page = read(manager)
    assert "partly refunded 26.05 $ of 26.06 $ 18 Nov" in page
    assert "Latest gifts Anonymous Other amount · partly refunded 25 $ 18 Nov" in page


@pytest.mark.usefixtures("at_the_middle")
def test_who_followed_is_told_to_those_who_may_see_donors(campaign: Campaign, manager: Client) -> None:
    follow(campaign, "Zoe")
    assert "Zoe" not in read(manager)
    assert "Latest followers Zoe" in read(client_of("view_monthtotal", "view_donor"))


def refund(gift: Gift, amount: int, reference: str, *, at: datetime, kind: str = "refund") -> None:
    """A later movement of a gift, booked as the inbox books one."""
    entry = ledger.entry(
        campaign=gift.campaign,
        processor="stripe",
        kind=kind,
        reference=reference,
        gift=gift.pk,
        tier=gift.tier,
        currency=gift.currency,
        amount=-amount if kind == "refund" else amount,
        effective_at=at,
        campaign_month="2024-11",
        livemode=False,
    )
    with transaction.atomic():
        ledger.post([entry])
        projections.apply(gifts=[gift])


@pytest.mark.usefixtures("at_the_middle")
def test_what_was_taken_back_otherwise_is_not_called_refunded_nor_denied(campaign: Campaign, manager: Client) -> None:
    refund(give(campaign, 5_000), -5_000, "R1", at=MIDDLE, kind="adjustment")
    refund(give(campaign, 7_000), -7_000, "txn_1", at=MIDDLE, kind="dispute_withdrawn")
    page = read(manager)
    assert "Latest refunds No refunds of this month’s gifts." in page
    assert "Other amount · reversed" in page
    assert "Other amount · disputed" in page
    assert "given back" not in page


@pytest.mark.usefixtures("at_the_middle")
def test_the_newest_refund_stands_first_whenever_its_gift_was_given(campaign: Campaign, manager: Client) -> None:
    early, late = (
        give(campaign, 10_000, public_name=name, at=MIDDLE - timedelta(days=days))
        for name, days in (("Ada", 9), ("Bea", 2))
    )
    refund(late, 2_000, "re_1", at=MIDDLE - timedelta(days=1))
    refund(early, 3_000, "re_2", at=MIDDLE)
    refund(early, 1_000, "re_3", at=MIDDLE - timedelta(days=3))
    came_back = MIDDLE - timedelta(hours=1)
    refund(late, 500, "re_4", at=came_back)
    refund(late, 500, "re_4", at=came_back, kind="refund_reversal")
    lines = read(manager).partition("Latest refunds ")[2].partition(" Latest followers")[0]
    assert lines == (
        "Ada Other amount · partly refunded 30 $ of 100 $ 18 Nov, 07:00 "
        "Bea Other amount · partly refunded 20 $ of 100 $ 17 Nov, 07:00 "
        "Ada Other amount · partly refunded 10 $ of 100 $ 15 Nov, 07:00"
    )


@pytest.mark.usefixtures("at_the_middle")
def test_tiers_with_their_share(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000, tier="500.00")
    give(campaign, 150_000)
    give(campaign, 200_000, tier="2000.00")
    follow(campaign, "Eve")
    page = read(manager)
    assert "5,000 $ A month 0% 0 $ 0 gifts" in page
    assert "2,000 $ 50% 2,000 $ 1 gift, 25% of supporters" in page
    assert "500 $ A day 12.5% 500 $ 1 gift, 25% of supporters" in page
    assert "Other amount 37.5% 1,500 $ 1 gift, 25% of supporters" in page
    assert "0 $ Follow no money asked – 1 follower, 25% of supporters" in page


@pytest.mark.usefixtures("at_the_middle")
def test_who_followed_is_shown_where_following_is_no_longer_offered(campaign: Campaign, manager: Client) -> None:
    campaign.tiers.filter(amount=0).delete()
    assert "no money asked" not in read(manager)
    follow(campaign, "Eve")
    assert "0 $ no money asked – 1 follower, 100% of supporters" in read(manager)


@pytest.mark.usefixtures("at_the_middle")
def test_an_empty_month(campaign: Campaign, manager: Client) -> None:
    page = read(manager)
    assert "Raised 0 $ 0% of 5,000 $ 5,000 $ to go" in page
    assert "Pace −3,000 $ behind an even pace by the end of day 18" in page
    assert "Forecast – nothing to go by yet" in page
    assert "Awaiting 0 $ no gifts" in page
    assert "No gifts are confirmed in this month." in page
    assert "No event was ever received" in page


@pytest.mark.usefixtures("at_the_middle")
def test_a_month_without_a_goal(campaign: Campaign, manager: Client) -> None:
    CampaignMonth.objects.create(campaign=campaign, month="2024-11", goal=0)
    give(campaign, 18_000)
    page = read(manager)
    assert "Raised 180 $ no goal is set" in page
    assert "Pace – no goal to keep pace with" in page
    assert "Forecast 300 $ if the pace holds Awaiting" in page
    assert "Even pace" not in page
    assert "November 2024: no goal" in manager.get(NOVEMBER).content.decode()


@pytest.mark.usefixtures("at_the_middle")
def test_a_month_above_its_goal(campaign: Campaign, manager: Client) -> None:
    CampaignMonth.objects.create(campaign=campaign, month="2024-11", goal=100_000)
    give(campaign, 250_050)
    page = read(manager)
    assert "Raised 2,500.50 $ 250% of 1,000 $ 1,500.50 $ above the goal" in page
    assert "Pace +1,900.50 $ ahead of an even pace by the end of day 18" in page


@pytest.mark.usefixtures("at_the_middle")
def test_no_figure_has_a_fraction_that_its_currency_cannot_have(manager: Client) -> None:
    campaign = Campaign.objects.create(
        slug="news", name="Fréttir", default_goal=Money(500_000, "ISK"), time_zone="UTC", is_default=True
    )
    give(campaign, 70_100)
    page = read(manager)
    assert "Pace −299,299 ISK behind an even pace by the end of day 18" in page
    assert "Forecast 1,168 ISK if the pace holds" in page
    assert re.findall(r"[0-9]\.[0-9]+\sISK", manager.get(NOVEMBER).content.decode()) == []


@pytest.mark.usefixtures("at_the_middle")
def test_a_past_month_is_compared_with_its_whole_goal(campaign: Campaign, manager: Client) -> None:
    give(campaign, 500_000, at=datetime(2024, 10, 31, 12, tzinfo=UTC))
    page = read(manager, "/staff/news/2024-10/")
    assert "Raised 5,000 $ 100% of 5,000 $ exactly the goal" in page
    assert "Pace 0 $ exactly on the goal; the month is over" in page
    assert "Forecast – the month is over" in page
    assert " 31 5,000 $ 5,000 $" in page


@pytest.mark.usefixtures("at_the_middle")
def test_a_coming_month_has_no_pace(campaign: Campaign, manager: Client) -> None:
    page = read(manager, "/staff/news/2024-12/")
    assert "Pace – the month has not begun" in page
    assert "Forecast – the month has not begun" in page
    assert " 31 not yet 5,000 $" in page


@pytest.mark.usefixtures("at_the_middle")
def test_a_month_before_that_is_still_under_way_ends_today(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000)
    response = manager.get("/staff/news/2024-12/")
    assert "November 2024 has so far 500\u00a0$." in response.content.decode()
    assert " 18 not yet 2,903.22 $ 500 $ 19 not yet 3,064.51 $ not yet" in words(response)
    assert " 31 not yet 5,000 $ no such day" in words(response)


@pytest.mark.usefixtures("at_the_middle")
def test_the_table_says_what_the_curve_draws(campaign: Campaign, manager: Client) -> None:
    give(campaign, 100_000, at=datetime(2024, 10, 2, 12, tzinfo=UTC))
    give(campaign, 20_000, at=datetime(2024, 11, 2, 3, tzinfo=UTC))
    give(campaign, 30_000, at=datetime(2024, 11, 3, 12, tzinfo=UTC))
    page = read(manager)
    assert " 1 200 $ 166.66 $ 0 $" in page
    assert " 3 500 $ 500 $ 1,000 $" in page
    assert " 30 not yet 5,000 $ 1,000 $" in page


@pytest.mark.usefixtures("at_the_middle")
def test_the_last_six_months_by_their_own_goals(campaign: Campaign, manager: Client) -> None:
    give(campaign, 100_000, at=datetime(2024, 8, 15, tzinfo=UTC))
    CampaignMonth.objects.filter(month="2024-08").update(goal=200_000)
    page = manager.get(NOVEMBER).content.decode()
    assert 'aria-label="August 2024: 50% of the goal"' in page
    assert 'aria-label="June 2024: 0% of the goal"' in page
    assert "May 2024" not in page


@pytest.mark.usefixtures("at_the_middle")
def test_the_other_mode_is_not_shown(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000, livemode=True, public_name="Ada")
    page = read(manager)
    assert "Raised 0 $" in page
    assert "Ada" not in page


@pytest.mark.usefixtures("at_the_middle")
def test_live_figures_carry_no_notice_of_test_mode(
    campaign: Campaign, manager: Client, go_live: Callable[[], None]
) -> None:
    go_live()
    give(campaign, 50_000, livemode=True)
    page = read(manager)
    assert "Raised 500 $" in page
    assert "Test mode" not in page


@pytest.mark.usefixtures("at_the_middle")
def test_money_from_before_a_change_of_currency_is_named_and_not_added(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000)
    campaign.default_goal = Money(4000, "EUR")
    campaign.save()
    page = read(manager)
    assert "Raised 0 €" in page
    assert "This month also raised 500 $" in page


@pytest.mark.usefixtures("at_the_middle")
def test_names_are_text_and_never_markup(campaign: Campaign, manager: Client) -> None:
    give(campaign, 50_000, public_name="<script>x</script>")
    page = manager.get(NOVEMBER).content.decode()
    assert "<script" not in page
    assert " style=" not in page


# ---- health


@pytest.mark.usefixtures("at_the_middle")
def test_a_healthy_inbox_warns_of_nothing(campaign: Campaign, manager: Client) -> None:
    receive(3, age=timedelta(minutes=2))
    receive(2, state="waiting", age=timedelta(hours=2))
    page = read(manager)
    assert "Last event 2 hours ago · nothing unprocessed · 2 waiting · 0 quarantined · 0 of the wrong mode" in page
    assert "0 refunds unanswered." in page
    assert 'class="alarm"' not in manager.get(NOVEMBER).content.decode()


@pytest.mark.usefixtures("at_the_middle")
def test_quarantine_is_told_in_words(campaign: Campaign, manager: Client) -> None:
    receive(2, state="quarantined")
    receive(1, state="wrong_mode")
    page = read(manager)
    assert "2 events are in quarantine and not in the figures" in page
    assert "2 quarantined · 1 of the wrong mode ·" in page
    assert "Open the quarantine" not in page


@pytest.mark.usefixtures("at_the_middle")
@pytest.mark.parametrize("seconds, late", [(60, False), (61, True)])
def test_a_minute_unprocessed_is_late(campaign: Campaign, manager: Client, seconds: int, late: bool) -> None:
    receive(1, state="ready", age=timedelta(seconds=seconds))
    page = read(manager)
    assert "1 unprocessed, the oldest for 1 minute" in page
    assert ("these figures lag behind" in page) is late


@pytest.mark.usefixtures("at_the_middle")
def test_a_refund_without_an_answer_for_a_day_is_told_with_a_way_on(campaign: Campaign, manager: Client) -> None:
    asked = RefundRequest.objects.create(gift=give(campaign, 10_000), amount=4_000)
    RefundRequest.objects.update(requested_at=MIDDLE - timedelta(hours=22, minutes=59))
    assert "1 refund is without an answer from the processor for over an hour." in read(manager)
    RefundRequest.objects.update(requested_at=MIDDLE - timedelta(hours=23))
    page = read(manager)
    assert "1 refund unanswered." in page
    assert "1 refund got no answer from the payment service for 23 hours, and is not sent again" in page
    gift_page = f"/admin/donations/gift/{quote(asked.gift_id)}/change/"
    assert gift_page not in manager.get(NOVEMBER).content.decode()
    assert gift_page in alarm(client_of("view_monthtotal", "view_gift"))


def alarm(client: Client) -> str:
    return client.get(NOVEMBER).content.decode().partition('class="alarm"')[2].partition("</section>")[0]


# ---- links for those who may follow them


@pytest.mark.usefixtures("at_the_middle")
def test_finances_files_are_linked_for_finance_alone(campaign: Campaign, manager: Client) -> None:
    link = "/staff/exports/?campaign=news&amp;start=2024-11-01&amp;end=2024-12-01"
    assert link not in manager.get(NOVEMBER).content.decode()
    finance = client_of("view_monthtotal", "add_exportrecord")
    assert link in finance.get(NOVEMBER).content.decode()


# ---- what it costs


def queries(client: Client) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert client.get(NOVEMBER).status_code == 200
    return len(captured)


# ---- monthly gifts


@pytest.mark.usefixtures("at_the_middle")
def test_monthly_gifts_are_summed_as_they_stand_now(campaign: Campaign, manager: Client) -> None:
    assert "Each month" not in read(manager)
    elsewhere = make_campaign("elsewhere", is_default=False)
    for status, amount in (("active", 1000), ("active", 2500), ("past_due", 500), ("unpaid", 700), ("canceled", 9900)):
        make_recurring_gift(campaign, amount, status=status, fee_cover=59)
        make_recurring_gift(campaign, amount, status=status, livemode=True)
    make_recurring_gift(elsewhere, 100, status="past_due")
    page = read(manager)
    assert "Each month 35 $ 2 monthly gifts, as of now and 12 $ past due or unpaid (2)" in page
    now = {"now_amount": 4000, "now_fee_cover": 59, "now_currency": "USD", "now_interval": "month"}
    RecurringGift.objects.filter(campaign=campaign, amount=1000).update(**now)
    RecurringGift.objects.filter(campaign=campaign, amount=500).update(**now)
    assert "Each month 65 $ 2 monthly gifts, as of now and 47 $ past due or unpaid (2)" in read(manager)
    for not_here in ({"now_currency": "EUR"}, {"now_interval": "year"}):
        RecurringGift.objects.filter(campaign=campaign, amount=1000).update(**now | not_here)
        assert "Each month 25 $ 1 monthly gift, as of now" in read(manager)
    RecurringGift.objects.filter(amount=1000).update(**now)
    assert "Monthly gifts: 3 past due or unpaid, in all campaigns. Their donors are told by mail." in page
    assert "/admin/donations/recurringgift/?status=failing" not in manager.get(NOVEMBER).text
    assert (
        "/admin/donations/recurringgift/?status=failing"
        in client_of("view_monthtotal", "view_recurringgift").get(NOVEMBER).text
    )


@pytest.mark.slow
@pytest.mark.usefixtures("at_the_middle")
def test_a_thousand_gifts_cost_the_queries_of_ten(
    campaign: Campaign, manager: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(10):
        give(campaign, 1000 + number, refund=number % 2, public_name=f"Donor {number}")
    with_ten = queries(manager)
    many = [give_unbooked(campaign, number) for number in range(990)]
    book(campaign, many)
    assert (
        dashboard.glance(campaign=campaign, month=Month.parse("2024-11"), livemode=False, now=MIDDLE).sums.gifts == 1000
    )
    assert queries(manager) == with_ten
    with django_assert_max_num_queries(24):
        manager.get(NOVEMBER)


def give_unbooked(campaign: Campaign, number: int) -> Gift:
    return Gift(
        campaign=campaign, amount=1000, currency="USD", livemode=False, processor="stripe", tier=f"{number % 7}.00"
    )


def book(campaign: Campaign, gifts: list[Gift]) -> None:
    Gift.objects.bulk_create(gifts)
    with transaction.atomic():
        ledger.post(
            [
                ledger.entry(
                    campaign=campaign,
                    effective_at=MIDDLE,
                    kind="gift",
                    processor="stripe",
                    reference=f"pi_{gift.pk}",
                    currency="USD",
                    amount=1000,
                    livemode=False,
                    gift=gift.pk,
                    tier=gift.tier,
                    goal_amount=1000,
                )
                for gift in gifts
            ]
        )
        projections.apply(gifts=gifts)


@pytest.mark.usefixtures("at_the_middle")
def test_no_query_reads_more_of_the_ledger_than_the_latest_refunds(campaign: Campaign, manager: Client) -> None:
    give(campaign, 1000, refund=500)
    with CaptureQueriesContext(connection) as captured:
        manager.get(NOVEMBER)
    [refunds] = [query["sql"] for query in captured if "donations_ledgerentry" in query["sql"]]
    assert "kind = 'refund'" in refunds
    assert f"LIMIT {dashboard.LATEST}" in refunds


@pytest.mark.sqlite
@pytest.mark.usefixtures("at_the_middle")
def test_every_query_finds_its_rows_by_an_index(campaign: Campaign) -> None:
    give(campaign, 1000, refund=500)
    plans: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        """How SQLite finds the rows of this query, with its parameters bound as the site binds them."""
        execute(f"EXPLAIN QUERY PLAN {sql}", params, many, context)
        plans.extend(row[3] for row in context["cursor"].fetchall())
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        dashboard.glance(campaign=campaign, month=Month.parse("2024-11"), livemode=False, now=MIDDLE)
    states = [plan for plan in plans if "donations_giftstate" in plan]
    of_the_month = [plan for plan in states if "states_of_a_month" in plan]
    assert (len(of_the_month), len(states)) == (2, 3)
    assert all("states_of_a_month (campaign_id=? AND livemode=? AND campaign_month=?" in plan for plan in of_the_month)
    refunds = [plan for plan in plans if "donations_ledgerentry" in plan]
    assert any("refunds_of_a_month (campaign=? AND livemode=? AND campaign_month=?" in plan for plan in refunds)
    assert [plan for plan in plans if "refunds_unanswered (requested_at<?" in plan]
    assert any("COVERING INDEX recurring_sums" in plan for plan in plans)
    assert any("INDEX recurring_in_trouble (livemode=?)" in plan for plan in plans)
    assert any("INDEX offline_to_approve" in plan for plan in plans)
    # The newest event by the primary key, from its end, of one row; the few checks; and two counts, a row of no table.
    scans = {plan for plan in plans if plan.startswith("SCAN")}
    unfinished = "SCAN donations_reconciliation USING INDEX one_reconciliation_at_a_time"  # one row a processor at most
    assert scans - {"SCAN CONSTANT ROW"} == {"SCAN donations_inboxevent", "SCAN donations_checkresult", unfinished}


# ---- the small things


@pytest.mark.parametrize(
    "value, amount", [("500.00", 50_000), ("0.00", 0), ("custom", None), ("NaN", None), ("Infinity", None), ("", None)]
)
def test_a_tiers_text_as_an_amount(value: str, amount: int | None) -> None:
    assert dashboard.tier_amount(value, "USD") == amount


@pytest.mark.parametrize(
    "part, whole, text", [(0, 5, "0%"), (1, 3, "33.3%"), (1, 100_000, "under 0.1%"), (5, 5, "100%"), (19, 1000, "1.9%")]
)
def test_a_share_in_words(part: int, whole: int, text: str) -> None:
    assert staff.share_text(part, whole) == text


@pytest.mark.parametrize(
    "age, text",
    [
        (timedelta(seconds=-5), "0 seconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(minutes=59, seconds=59), "59 minutes"),
        (timedelta(hours=47), "1 day"),
    ],
)
def test_an_age_in_its_largest_unit(age: timedelta, text: str) -> None:
    assert staff.ago(age) == text


@pytest.mark.parametrize(
    "state, text",
    [
        (GiftState(status="confirmed", charged=10, disputed=10, refunded=0), "disputed"),
        (GiftState(status="confirmed", charged=10, refunded=10), "refunded"),
        (GiftState(status="confirmed", charged=10, refunded=1), "partly refunded"),
        (GiftState(status="confirmed", charged=10), "confirmed"),
        (GiftState(status="awaiting"), "awaiting"),
    ],
)
def test_what_became_of_a_gift(state: GiftState, text: str) -> None:
    assert dashboard._status(state) == text
