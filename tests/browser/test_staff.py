"""A manager's and finance's way: sign in, the month, the file."""

import re
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import assert_accessible
from tests.house import House, eventually


def sign_in(page: Page, home: House) -> None:
    match = re.search(r"staff / (\S+)", home.manage("demo", "--staff"))
    assert match
    page.goto(f"{home.site}/staff/")
    page.get_by_label("Username").fill("staff")
    page.get_by_label("Password").fill(match[1])
    page.get_by_role("button", name="Log in").click()


def test_from_sign_in_to_the_dashboard_and_the_file(staff_page: Page, home: House) -> None:
    home.pay(home.checkout(name="Reader One"))
    home.await_meter(raised=50000)
    sign_in(staff_page, home)
    expect(staff_page.get_by_role("heading", level=1)).to_contain_text(str(datetime.now(UTC).year))
    expect(staff_page.get_by_text("500 $").first).to_be_visible()
    assert_accessible(staff_page)
    staff_page.goto(f"{home.site}/staff/health/")
    expect(staff_page.get_by_text("The books in themselves")).to_be_visible()
    assert_accessible(staff_page)
    staff_page.goto(f"{home.site}/staff/exports/")
    assert_accessible(staff_page)
    with staff_page.expect_download() as download:
        staff_page.get_by_role("button", name=re.compile("ownload")).first.click()
    lines = download.value.path().read_bytes().decode().split("\r\n")
    assert lines[0].startswith("entry_id,effective_at,local_date,campaign")
    # The fee is asked for by and by, and may stand there already.
    assert [",gift,stripe,pi_" in line for line in lines[1:]].count(True) == 1


def test_a_refund_from_the_admin_comes_back_as_an_entry(staff_page: Page, home: House) -> None:
    home.pay(home.checkout())
    home.await_meter(raised=50000)
    sign_in(staff_page, home)
    gift = home.movements()[0]["gift"]
    staff_page.goto(f"{home.site}/admin/donations/gift/{gift}/change/")
    staff_page.get_by_role("link", name=re.compile("efund")).first.click()
    staff_page.get_by_label(re.compile("mount")).fill("200")
    staff_page.get_by_role("button", name=re.compile("efund")).click()
    home.await_meter(raised=30000)


GOALS = """
from djmoney.money import Money
from donations.models import Campaign
for currency, amount in ("USD", 100_000), ("ISK", 5_000_000), ("KWD", 12_345_678):
    Campaign.objects.create(slug=currency.lower(), name=currency, default_goal=Money(amount, currency))
"""
# What stands out of its card, or is cut off by it.
OUTSIDE = """[...document.querySelectorAll(".kpi > div")].flatMap(card => [...card.querySelectorAll("dt, b, small")]
    .filter(each => each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display != "inline"
        || each.getBoundingClientRect().right > card.getBoundingClientRect().right)
    .map(each => each.textContent))"""


# How many cards stand in each row.
ROWS = """[...Map.groupBy(document.querySelectorAll(".kpi > div"), card => card.offsetTop).values()]
    .map(row => row.length)"""


def assert_no_sideways_scrolling(page: Page, address: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, address


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_the_figures_of_a_large_goal_stay_in_their_cards(staff_page: Page, home: House, width: int) -> None:
    home.manage("shell", "--no-imports", "-c", GOALS)
    sign_in(staff_page, home)
    month = f"{datetime.now(UTC):%Y-%m}"
    for campaign in ("general", "usd", "isk", "kwd"):
        assert_no_sideways_scrolling(staff_page, f"{home.site}/staff/{campaign}/{month}/", width)
        assert staff_page.evaluate(OUTSIDE) == []


MONTHLY = """
from donations.models import Campaign
from tests.factories import make_recurring_gift
make_recurring_gift(Campaign.objects.get(pk="general"), status="active")
"""


def test_the_figures_stand_in_even_rows(staff_page: Page, home: House) -> None:
    home.manage("shell", "--no-imports", "-c", GOALS)
    sign_in(staff_page, home)
    month = f"{datetime.now(UTC):%Y-%m}"
    rows = {("general", 600): [3, 3], ("general", 1200): [6], ("isk", 1200): [3, 3], ("isk", 768): [3, 3]}
    for (campaign, width), expected in rows.items():
        assert_no_sideways_scrolling(staff_page, f"{home.site}/staff/{campaign}/{month}/", width)
        assert (campaign, width, staff_page.evaluate(ROWS)) == (campaign, width, expected)
    home.manage("shell", "--no-imports", "-c", MONTHLY)
    assert_no_sideways_scrolling(staff_page, f"{home.site}/staff/general/{month}/", 1200)
    assert staff_page.evaluate(ROWS) == [4, 3]


DOWNLOADS = """
from datetime import date
from django.contrib.auth.models import User
from donations.models import ExportRecord
for file in "ledger", "gifts":
    ExportRecord.objects.create(file=file, campaign="general", period_start=date(2024, 1, 1),
        period_end=date(2025, 1, 1), requested_by=User.objects.first())
"""


@pytest.mark.parametrize("width", [320, 1280])
def test_the_latest_downloads_scroll_within_their_card(staff_page: Page, home: House, width: int) -> None:
    sign_in(staff_page, home)
    home.manage("shell", "--no-imports", "-c", DOWNLOADS)
    assert_no_sideways_scrolling(staff_page, f"{home.site}/staff/exports/", width)
    assert "from 2024-01-01" in staff_page.get_by_role("region", name="Latest downloads: table").inner_text()


OFFLINE = """
from datetime import date
from django.contrib.auth.models import User
from donations import offline
from donations.models import Campaign
user = User.objects.create_user("bookkeeper.of-the-newsroom")
campaign = Campaign.objects.first()
campaign.pk = "a-campaign-of-a-long-name-for-the-newsroom"
campaign.is_default = False
campaign.save(force_insert=True)
offline.record_gift(campaign=campaign, amount=200_000_000, day=date(2024, 9, 15), method="cash", reason="a box",
    user=user, reference="STATEMENT 2024-09-15 TRANSFER-12345678901234567890")
"""


def test_all_columns_of_what_staff_entered_are_to_be_seen(staff_page: Page, home: House) -> None:
    home.manage("shell", "--no-imports", "-c", OFFLINE)
    sign_in(staff_page, home)
    assert_no_sideways_scrolling(staff_page, f"{home.site}/admin/donations/offlinerequest/", 1200)
    box = "document.querySelector('.results')"
    assert staff_page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    assert "bookkeeper.of-the-newsroom" in staff_page.locator(".field-entered_by").inner_text().replace("\n", "")


FINDINGS = """
from donations import health
from donations.health import Result
words = ("entry 1 (pi_3QabcdefGHIJKLMNOPQRSTUVWXYZ0123): wrong", "entry 2: wrong")
health.keep("books", Result(findings=2, words=words))
"""
# Where what a table's cells say begins, by column.
BEGINS = """table => [...table.rows[0].cells].map((_, column) => new Set([...table.rows].map(row => {
    const range = document.createRange()
    range.selectNodeContents(row.cells[column])
    return Math.round(Math.min(...[...range.getClientRects()].map(box => box.left)))
})).size)"""


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_what_was_found_can_be_read_on_the_health_page(staff_page: Page, home: House, width: int) -> None:
    sign_in(staff_page, home)

    def shows_findings() -> bool:
        """The site's own first check may be under way, and find nothing just after."""
        home.manage("shell", "--no-imports", "-c", FINDINGS)
        assert_no_sideways_scrolling(staff_page, f"{home.site}/staff/health/", width)
        return staff_page.locator(".findings li").count() == 2

    eventually(shows_findings, "the page shows what was found")
    for name in ("books", "watched"):
        assert staff_page.locator(f"[aria-labelledby={name}] table").evaluate(BEGINS) == [1, 1]
    border = "each => getComputedStyle(each).borderBlockEndStyle"
    assert staff_page.locator(".findings li").first.evaluate(border) == "solid"
    heading, card = staff_page.locator("h1").bounding_box(), staff_page.locator(".card").first.bounding_box()
    assert heading
    assert card
    assert card["y"] - heading["y"] - heading["height"] >= 8
