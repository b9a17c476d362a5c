"""The bar: exactly what it says, what counts on it, when a month opens, and how far behind the ledger it can be."""

import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from djmoney.money import Money
from hypothesis import given
from hypothesis import strategies as st

from donations import campaigning, embeds, inbox, ledger, projections
from donations.models import Campaign, CampaignMonth, Donor, Follower, Gift
from donations.periods import Month
from donations.selectors.bar import FRESH_SECONDS, MOST_KEPT, OLDEST_SECONDS, Bar, Fresh, UnknownCampaign, bar, marks
from donations.views.embed import METERS
from tests.factories import NOON, checkout_event, confirm, deliver, make_campaign, make_gift, refund_event
from tests.hands import Hands

pytestmark = pytest.mark.django_db
NOVEMBER = Month(2024, 11)
JSON = "/embed/v1/meter.json"
FIELDS = (
    "v campaign month label heading currency raised goal pending percent fill raised_label scale text gifts supporters "
    "cta url time_zone as_of"
)


@pytest.fixture
def campaign() -> Campaign:
    METERS.kept.clear()
    return make_campaign()


@pytest.fixture
def gift(campaign: Campaign) -> Gift:
    """The one confirmed gift of November 2024, of 500."""
    made = make_gift(campaign, 50000)
    confirm(made)
    return made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the time that it is, as ISO 8601."""

    def set_to(moment: str) -> None:
        METERS.kept.clear()
        monkeypatch.setattr(timezone, "now", lambda: datetime.fromisoformat(moment))

    return set_to


def told(client: Client, **asked: str) -> dict[str, Any]:
    answer = client.get(JSON, {"month": "2024-11"} | asked)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def a_payment(gift: Gift) -> ledger.NewEntry:
    """The booked payment of a gift, whatever mode the site is in."""
    return ledger.entry(
        campaign=gift.campaign,
        effective_at=NOON,
        kind="gift",
        processor="stripe",
        reference=f"pi_{gift.pk}",
        currency=gift.currency,
        amount=gift.amount,
        goal_amount=gift.amount,
        livemode=gift.livemode,
        gift=gift.pk,
    )


def raised(campaign: Campaign, month: Month = NOVEMBER) -> int:
    return bar(campaign.pk, month).raised


class Texts(HTMLParser):
    """The words of a bar's section, in the order of the markup, and its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.feed(page[page.index("<section") : page.index("</section>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= dict(attrs)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


# ---- what it says


def test_the_bar_of_november_reads_exactly(client: Client, gift: Gift) -> None:
    shown = told(client)
    as_of = shown.pop("as_of")
    assert shown == {
        "v": 1,
        "campaign": "general",
        "month": "2024-11",
        "label": "NOVEMBER 2024",
        "heading": "Newsroom",
        "currency": "USD",
        "raised": 50000,
        "goal": 500000,
        "pending": 0,
        "percent": 10,
        "fill": 10,
        "raised_label": "500 $",
        "scale": [
            {"value": 0, "label": "0 $"},
            {"value": 250000, "label": "2,500 $"},
            {"value": 500000, "label": "5,000 $"},
        ],
        "text": "500 $ raised of the 5,000 $ goal in November 2024",
        "gifts": 1,
        "supporters": 1,
        "cta": shown["cta"],
        "url": "http://testserver/give/general/",
        "time_zone": "America/New_York",
        "livemode": False,
    }
    assert shown["cta"].startswith("Support ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", as_of)
    assert abs(datetime.fromisoformat(as_of) - datetime.now(UTC)) < timedelta(minutes=1)


def test_every_field_of_the_contract_is_there(client: Client, campaign: Campaign) -> None:
    assert set(FIELDS.split()) <= told(client).keys()


def test_the_markup_says_the_scale_then_what_was_raised_then_the_month(client: Client, gift: Gift) -> None:
    found = Texts(client.get("/embed/v1/meter?month=2024-11").text)
    assert found.words[:5] == ["0 $", "2,500 $", "5,000 $", "500 $", "NOVEMBER 2024"]
    assert found.words[5].startswith("Support ")
    assert found.attributes["href"] == "http://testserver/give/general/"
    now, most = found.attributes["aria-valuenow"], found.attributes["aria-valuemax"]
    assert (now, most) == ("50000", "500000")
    assert found.attributes["aria-valuetext"] == "500 $ raised of the 5,000 $ goal in November 2024"


def test_the_markup_is_the_same_in_the_frame_and_above_the_snippet(client: Client, gift: Gift) -> None:
    framed, snippets = (Texts(client.get(f"{path}?month=2024-11").text) for path in ("/embed/v1/meter", "/embed/"))
    assert framed.words[:5] == snippets.words[:5]


def test_a_months_own_marks_and_goal_are_shown(client: Client, campaign: Campaign) -> None:
    campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=800000, scale=[800000, 0, 100000, 250050])
    shown = told(client)
    assert shown["goal"] == 800000
    assert [mark["label"] for mark in shown["scale"]] == ["0 $", "1,000 $", "2,500.50 $", "8,000 $"]


def test_a_campaign_in_another_currency_speaks_it(client: Client, campaign: Campaign) -> None:
    confirm(make_gift(make_campaign("tokyo", goal=5000, currency="JPY", time_zone="Asia/Tokyo"), 500))
    shown = told(client, campaign="tokyo")
    assert (shown["raised"], shown["goal"], shown["currency"]) == (500, 5000, "JPY")
    assert [mark["label"] for mark in shown["scale"]] == ["0 ¥", "2,500 ¥", "5,000 ¥"]
    assert (shown["raised_label"], shown["percent"]) == ("500 ¥", 10)


def a_bar(raised: int, goal: int, own: tuple[int, ...] = ()) -> Bar:
    scale = marks(own, goal, "USD")
    return Bar("general", "News", NOVEMBER, "USD", "UTC", goal, scale, raised, 0, 1, 0, NOON)


def test_a_mark_stands_where_the_fill_of_its_value_ends() -> None:
    own = (150000, 250050, 400000)
    drawn = embeds.drawn_marks(a_bar(0, 750000, own))
    assert [(mark.place, mark.label) for mark in drawn] == [
        (0, "0 $"), (20, "1,500 $"), (33, "2,500.50 $"), (53, "4,000 $"), (100, "7,500 $"),
    ]  # fmt: skip
    assert [embeds.meter(a_bar(value, 750000))["fill"] for value in own] == [20, 33, 53]


def test_marks_too_near_to_one_another_keep_the_words_that_can_be_read() -> None:
    drawn = embeds.drawn_marks(a_bar(0, 500000, (10000, 80000, 250000, 499900)))
    assert [(mark.label, mark.room) for mark in drawn] == [
        ("0 $", 240),
        ("100 $", None),
        ("800 $", 384),
        ("2,500 $", 240),
        ("4,999 $", None),
        ("5,000 $", 240),
    ]
    picture = embeds.picture(embeds.context(a_bar(0, 500000, (10000, 80000, 250000, 499900))))
    assert re.findall('x="([0-9]+)" y="114"[^>]*>([^<]+)', picture) == [
        ("20", "0 $"), ("116", "800 $"), ("320", "2,500 $"), ("620", "5,000 $"),
    ]  # fmt: skip
    assert re.findall('x="([0-9]+)" y="81"', picture) == ["32", "116", "320", "614"]


def test_a_month_without_a_goal_has_one_mark_and_tells_what_was_raised(
    client: Client, campaign: Campaign, gift: Gift
) -> None:
    campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=0, scale=[0, 500000])
    shown = told(client)
    assert (shown["goal"], shown["percent"], shown["fill"]) == (0, 0, 0)
    assert shown["scale"] == [{"value": 0, "label": "0 $"}]
    assert shown["text"] == "500 $ raised in November 2024"
    found = Texts(client.get("/embed/v1/meter?month=2024-11").text)
    assert found.words[:3] == ["0 $", "500 $", "NOVEMBER 2024"]
    assert (found.attributes["role"], "aria-valuemax" in found.attributes) == ("img", False)
    for path in ("/give/general/", "/embed/", "/embed/v1/meter.svg"):
        assert client.get(f"{path}?month=2024-11").status_code == 200


@pytest.mark.parametrize(
    ("raised", "goal", "percent", "fill"),
    [
        (0, 500000, 0, 0),
        (4999, 500000, 0, 0),
        (5000, 500000, 1, 1),
        (499999, 500000, 99, 99),
        (500000, 500000, 100, 100),
        (504999, 500000, 100, 100),
        (1_500_000, 500000, 300, 100),
        (50000, 0, 0, 0),
    ],
)
def test_the_words_tell_the_truth_and_the_fill_ends_at_the_goal(
    raised: int, goal: int, percent: int, fill: int
) -> None:
    shown = embeds.meter(a_bar(raised, goal))
    assert (shown["percent"], shown["fill"]) == (percent, fill)


@given(st.integers(0, 10**15), st.integers(0, 10**12))
def test_percent_is_floored_and_fill_stays_between_nothing_and_all(raised: int, goal: int) -> None:
    shown = embeds.context(a_bar(raised, goal))
    assert shown["percent"] * goal <= raised * 100
    assert not goal or raised * 100 < (shown["percent"] + 1) * goal
    assert shown["fill"] == min(100, shown["percent"])
    assert 0 <= shown["now"] <= goal


def test_more_than_the_goal_is_said_and_stays_within_the_scale(client: Client, campaign: Campaign) -> None:
    confirm(make_gift(campaign, 1_500_000))
    found = Texts(client.get("/embed/v1/meter?month=2024-11").text)
    assert "15,000 $" in found.words
    assert found.attributes["aria-valuenow"] == found.attributes["aria-valuemax"] == "500000"
    assert (told(client)["percent"], told(client)["fill"]) == (300, 100)


# ---- what counts on it


def test_a_refund_lowers_it_and_takes_the_gift_away_when_nothing_is_left(campaign: Campaign, gift: Gift) -> None:
    deliver(refund_event(gift, 20000))
    inbox.drain()
    assert (raised(campaign), bar(None, NOVEMBER).gifts) == (30000, 1)
    deliver(refund_event(gift, 30000))
    inbox.drain()
    assert (raised(campaign), bar(None, NOVEMBER).gifts) == (0, 0)


def test_the_fee_cover_does_not_count(campaign: Campaign) -> None:
    confirm(make_gift(campaign, 50000, fee_cover=1500))
    assert raised(campaign) == 50000


def test_an_open_checkout_is_nothing_and_a_completed_one_is_pending(client: Client, campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000)
    assert told(client)["pending"] == 0
    deliver(checkout_event(gift, paid=False))
    inbox.drain()
    METERS.kept.clear()
    shown = told(client)
    assert (shown["pending"], shown["raised"], shown["gifts"], shown["raised_label"]) == (50000, 0, 0, "0 $")
    confirm(gift, kind="checkout.session.async_payment_succeeded")
    METERS.kept.clear()
    shown = told(client)
    assert (shown["pending"], shown["raised"], shown["gifts"]) == (0, 50000, 1)


def test_a_follower_is_a_supporter_and_no_money(campaign: Campaign, clock: Callable[[str], None]) -> None:
    clock("2024-11-20T12:00:00+00:00")
    donor = Donor.objects.create(email="reader@example.org")
    follower = Follower.objects.create(donor=donor, campaign=campaign, livemode=False)
    assert bar(None, None).supporters == 0
    projections.confirm_follower(follower)
    shown = bar(None, None)
    assert (shown.supporters, shown.gifts, shown.raised) == (1, 0, 0)


def test_what_was_raised_before_the_currency_was_changed_does_not_count(campaign: Campaign) -> None:
    confirm(make_gift(campaign, 7000, currency="EUR"))
    assert raised(campaign) == 0
    confirm(make_gift(campaign, 500))
    assert raised(campaign) == 500
    campaign.default_goal = Money(5000, "EUR")
    campaign.save()
    assert raised(campaign) == 7000


def test_another_campaign_currency_month_and_mode_do_not_count(
    campaign: Campaign, gift: Gift, go_live: Callable[[], None]
) -> None:
    confirm(make_gift(make_campaign("second"), 7000))
    confirm(make_gift(campaign, 7000, currency="EUR"))
    confirm(make_gift(campaign, 7000), at=datetime(2024, 12, 1, 5, tzinfo=UTC))
    assert raised(campaign) == 50000
    live = make_gift(campaign, 900, livemode=True)
    ledger.post([a_payment(live)])
    projections.apply(gifts=[live])
    assert raised(campaign) == 50000
    go_live()
    assert raised(campaign) == 900
    assert embeds.meter(bar(None, NOVEMBER))["livemode"] is True


def test_the_last_instant_of_a_month_counts_in_it_and_the_next_in_the_next(campaign: Campaign) -> None:
    confirm(make_gift(campaign, 100), at=datetime(2024, 12, 1, 4, 59, 59, tzinfo=UTC))
    confirm(make_gift(campaign, 20), at=datetime(2024, 12, 1, 5, 0, 0, tzinfo=UTC))
    assert (raised(campaign), raised(campaign, NOVEMBER.next)) == (100, 20)


# ---- months and goals


@pytest.mark.parametrize(
    ("zone", "before", "after"),
    [
        ("America/New_York", "2024-12-01T04:59:59.999999+00:00", "2024-12-01T05:00:00+00:00"),
        ("Asia/Tokyo", "2024-11-30T14:59:59.999999+00:00", "2024-11-30T15:00:00+00:00"),
        ("UTC", "2024-11-30T23:59:59.999999+00:00", "2024-12-01T00:00:00+00:00"),
    ],
)
def test_a_month_opens_by_itself_on_the_first_in_the_campaigns_zone(
    client: Client, clock: Callable[[str], None], zone: str, before: str, after: str
) -> None:
    campaign = make_campaign(time_zone=zone)
    clock(before)
    confirm(make_gift(campaign, 50000))
    shown = client.get(JSON).json()
    assert (shown["label"], shown["raised"]) == ("NOVEMBER 2024", 50000)
    clock(after)
    shown = client.get(JSON).json()
    assert (shown["label"], shown["raised"], shown["goal"], shown["raised_label"]) == (
        "DECEMBER 2024",
        0,
        500000,
        "0 $",
    )
    assert told(client)["raised"] == 50000


def test_looking_at_a_month_makes_no_row(campaign: Campaign) -> None:
    for month in ("2024-11", "2999-12", "2000-01"):
        shown = bar(None, Month.parse(month))
        assert (shown.raised, shown.goal, str(shown.month)) == (0, 500000, month)
    assert not CampaignMonth.objects.exists()


def opened(campaign: Campaign, moment: str) -> None:
    Campaign.objects.filter(pk=campaign.pk).update(opened_at=datetime.fromisoformat(moment))
    campaign.refresh_from_db()


def goals(campaign: Campaign, *months: str) -> list[int]:
    return [bar(campaign.pk, Month.parse(month)).goal for month in months]


def test_changing_the_default_goal_keeps_the_months_that_have_begun(
    campaign: Campaign, clock: Callable[[str], None]
) -> None:
    opened(campaign, "2024-09-10T12:00:00+00:00")
    campaigning.set_month_goal(campaign=campaign, month=Month(2024, 10), goal_minor=1)
    campaigning.set_month_goal(campaign=campaign, month=Month(2025, 1), goal_minor=2)
    clock("2024-11-18T12:00:00+00:00")
    campaigning.change_default_goal(campaign, Money(8000, "USD"))
    assert campaign.default_goal == Campaign.objects.get().default_goal == Money(8000, "USD")
    months = ("2024-09", "2024-10", "2024-11", "2024-12", "2025-01", "2025-02")
    assert goals(campaign, *months) == [500000, 1, 500000, 800000, 2, 800000]
    clock("2024-12-18T12:00:00+00:00")
    campaigning.change_default_goal(campaign, Money(100, "USD"))
    assert goals(campaign, *months) == [500000, 1, 500000, 800000, 2, 10000]


@pytest.mark.parametrize(("zone", "december"), [("America/New_York", 800000), ("Asia/Tokyo", 500000)])
def test_whether_a_month_has_begun_is_the_campaigns_zones_to_say(
    clock: Callable[[str], None], zone: str, december: int
) -> None:
    campaign = make_campaign(time_zone=zone)
    opened(campaign, "2024-11-10T12:00:00+00:00")
    clock("2024-11-30T20:00:00+00:00")
    campaigning.change_default_goal(campaign, Money(8000, "USD"))
    assert goals(campaign, "2024-11", "2024-12") == [500000, december]


def test_a_month_with_money_keeps_its_goal_though_the_campaign_opened_later(campaign: Campaign, gift: Gift) -> None:
    opened(campaign, "2025-06-01T12:00:00+00:00")
    campaigning.change_default_goal(campaign, Money(8000, "USD"))
    assert goals(campaign, "2024-11") == [500000]


def test_the_same_goal_again_settles_nothing(campaign: Campaign) -> None:
    campaigning.change_default_goal(campaign, Money(5000, "USD"))
    assert not CampaignMonth.objects.exists()


def test_a_goal_in_another_currency_is_refused(campaign: Campaign) -> None:
    with pytest.raises(ValueError, match="this campaign raises USD"):
        campaigning.change_default_goal(campaign, Money(8000, "EUR"))
    assert Campaign.objects.get().default_goal == Money(5000, "USD")


@pytest.mark.parametrize("goal", [-1, 10**11])
def test_a_months_goal_is_within_reason(campaign: Campaign, goal: int) -> None:
    with pytest.raises(ValueError, match="a goal is not negative, and not that large"):
        campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=goal)


def test_a_bar_goes_from_nothing_to_the_goal_whatever_its_marks(campaign: Campaign) -> None:
    for own, shown in ([2, 7], (0, 2, 7, 10)), ([0, 10], (0, 10)), ([10, 11], (0, 10)), ([], (0, 5, 10)):
        campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=10, scale=own)
        assert bar(None, NOVEMBER).scale == shown
    assert marks((), 1, "JPY") == (0, 1)
    assert marks((), 500_100, "ISK") == (0, 250_000, 500_100)


def test_another_goal_keeps_the_marks_unless_others_are_given(campaign: Campaign) -> None:
    campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=100, scale=[100, 0])
    campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=300)
    assert (bar(None, NOVEMBER).goal, bar(None, NOVEMBER).scale) == (300, (0, 100, 300))
    campaigning.set_month_goal(campaign=campaign, month=NOVEMBER, goal_minor=300, scale=[])
    assert bar(None, NOVEMBER).scale == (0, 150, 300)


# ---- how it is asked for


def test_a_bar_that_has_not_changed_is_not_sent_again(client: Client, campaign: Campaign, gift: Gift) -> None:
    first = client.get(f"{JSON}?month=2024-11")
    tag = first.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}'):
        again = client.get(f"{JSON}?month=2024-11", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["Access-Control-Allow-Origin"] == "*"
    confirm(make_gift(campaign, 100))
    METERS.kept.clear()
    changed = client.get(f"{JSON}?month=2024-11", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != tag


@pytest.mark.parametrize("path", [JSON, "/embed/v1/meter"])
def test_any_site_may_read_it_for_a_second(client: Client, gift: Gift, path: str) -> None:
    answer = client.get(path, headers={"Origin": "https://elsewhere.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cache-Control"] == "public, no-cache"
    assert not answer.cookies
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


def test_any_site_may_frame_it(client: Client, campaign: Campaign) -> None:
    answer = client.get("/embed/v1/meter")
    assert "frame-ancestors *" in re.split(r"; *", answer.headers["Content-Security-Policy"])
    assert "X-Frame-Options" not in answer.headers


@pytest.mark.parametrize("slug", ["nothing", "", "General", "general ", "a" * 5000, "general\x00", "\x00", "٣", "*"])
@pytest.mark.parametrize("path", [JSON, "/embed/v1/meter", "/embed/v1/meter.svg", "/embed/"])
def test_an_unknown_campaign_is_not_found(client: Client, campaign: Campaign, path: str, slug: str) -> None:
    assert client.get(path, {"campaign": slug}).status_code == 404


def test_without_a_default_campaign_there_is_no_bar(client: Client) -> None:
    METERS.kept.clear()
    make_campaign("second")
    assert client.get(JSON).status_code == 404
    assert client.get(f"{JSON}?campaign=second").status_code == 200
    with pytest.raises(UnknownCampaign):
        bar(None, None)


@pytest.mark.parametrize(
    "month", ["", "2024-13", "2024-1", "1999-12", "3000-01", "2024-11-01", "now", "2024-11\n", "\x00"]
)
def test_a_malformed_month_is_refused(client: Client, campaign: Campaign, month: str) -> None:
    answer = client.get(JSON, {"month": month})
    assert (answer.status_code, answer.json()) == (400, {"error": "Write the month like 2024-11."})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert client.get("/embed/v1/meter", {"month": month}).status_code == 400


def test_a_malformed_month_is_refused_of_a_bar_that_is_kept(client: Client, gift: Gift) -> None:
    assert client.get(f"{JSON}?month=2024-11").status_code == 200
    assert client.get(f"{JSON}?month=2024-1١").status_code == 400


# ---- how far behind


@pytest.mark.slow
def test_the_bar_is_at_most_a_second_behind_the_ledger(client: Client, campaign: Campaign, gift: Gift) -> None:
    seen = told(client)["raised"]
    for amount in (100, 1000):
        confirm(make_gift(campaign, amount))
        seen += amount
        end = time.monotonic() + 1
        while time.monotonic() < end and told(client)["raised"] != seen:
            time.sleep(0.02)
        assert told(client)["raised"] == seen


def test_what_is_kept_is_asked_of_the_database_once(
    client: Client, gift: Gift, django_assert_num_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METERS, "clock", Hands())
    told(client)
    with django_assert_num_queries(0):
        for _ in range(20):
            told(client)


def together(threads: int, work: Callable[[], None]) -> None:
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


class Numbers:
    """Makes 1, 2, 3 … and remembers when by the clock it began each; a closed gate lets none out."""

    def __init__(self, hands: Hands, seconds: float = 0) -> None:
        self.hands = hands
        self.seconds = seconds
        self.begun: list[float] = []
        self.making, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()

    def __call__(self, campaign: str | None, month: str | None) -> int:
        self.begun.append(self.hands())
        number = len(self.begun)
        self.making.release()
        assert self.gate.wait(10)
        time.sleep(self.seconds)
        return number


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_a_bar_is_kept_while_it_is_fresh_and_then_made_anew(hands: Hands) -> None:
    make = Numbers(hands)
    cache = Fresh(make, hands)
    for age, number in ((0, 1), (FRESH_SECONDS - 0.01, 1), (0.02, 2), (FRESH_SECONDS + 0.01, 3), (3600, 4), (0, 4)):
        hands.now += age
        assert cache.get("general", "2024-11") == number
    assert cache.get("general", "2024-12") == 5
    assert cache.get("second", "2024-11") == 6


def test_many_readers_at_once_have_a_bar_made_once(hands: Hands) -> None:
    make, got = Numbers(hands, seconds=0.1), list[int]()
    cache = Fresh(make, hands)
    together(20, lambda: got.append(cache.get("general", None)))
    assert got == [1] * 20
    assert len(make.begun) == 1


@pytest.mark.parametrize(
    ("age", "waits"), [((FRESH_SECONDS + OLDEST_SECONDS) / 2, False), (OLDEST_SECONDS + 0.01, True)]
)
def test_while_a_bar_is_made_anew_the_last_one_serves_until_it_is_too_old(
    hands: Hands, age: float, waits: bool
) -> None:
    make, got = Numbers(hands), list[int]()
    cache = Fresh(make, hands)
    assert cache.get("general", None) == 1
    assert make.making.acquire(timeout=10)
    hands.now += age
    make.gate.clear()
    maker, reader = (threading.Thread(target=lambda: got.append(cache.get("general", None))) for _ in range(2))
    maker.start()
    assert make.making.acquire(timeout=10)
    reader.start()
    reader.join(0.1 if waits else 10)
    assert reader.is_alive() is waits
    assert got == ([] if waits else [1])
    make.gate.set()
    maker.join()
    reader.join()
    assert got == ([2, 2] if waits else [1, 2])
    assert len(make.begun) == 2


def test_no_reader_is_ever_served_a_bar_that_was_a_second_old(hands: Hands, rng: random.Random) -> None:
    """Six read at once, moment by moment, for 1.4 seconds."""
    assert FRESH_SECONDS < OLDEST_SECONDS < 1
    make, ages = Numbers(hands), list[float]()
    cache, begun = Fresh(make, hands), hands.now
    moments = sorted(begun + rng.uniform(0, 1.4) for _ in range(200))
    following = iter(moments)

    def move() -> None:
        hands.now = next(following)

    together_again = threading.Barrier(6, move)

    def read() -> None:
        for asked in moments:
            together_again.wait(20)
            value = cache.get(None, None)
            ages.append(asked - make.begun[value - 1])

    together(6, read)
    assert len(ages) == 6 * len(moments)
    assert max(ages) < 1
    assert len(make.begun) == 2


def test_what_could_not_be_made_is_not_kept_and_blocks_nobody() -> None:
    answers: list[int | Exception] = [LookupError(), LookupError(), 3]

    def make(campaign: str | None, month: str | None) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = Fresh(make)
    for _ in range(2):
        with pytest.raises(LookupError):
            cache.get("nothing", None)
    assert not cache.kept
    assert cache.get("nothing", None) == cache.get("nothing", None) == 3


def test_no_more_bars_are_kept_than_a_process_has_room_for() -> None:
    cache = Fresh(lambda campaign, month: month)
    for number in range(3 * MOST_KEPT):
        assert cache.get("general", str(number)) == str(number)
    assert len(cache.kept) == MOST_KEPT
