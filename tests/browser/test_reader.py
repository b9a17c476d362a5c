"""A reader's way: from the article's button to the thank-you page and the moved bar."""

import re
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from donations import fees, money
from tests.browser.conftest import assert_accessible, open_page
from tests.browser.test_staff import sign_in
from tests.house import ROOT, House, eventually

GENERAL = "Add the payment service’s fee (2.9 % + 0.30 $) so that all of my gift arrives"


def pay(page: Page) -> None:
    """On the hosted page, with the card that works."""
    page.get_by_label("Card number").fill("4242 4242 4242 4242")
    page.get_by_role("button", name="Pay").click()


def test_from_the_article_to_the_moved_bar(page: Page, home: House) -> None:
    page.goto(f"{home.site}/demo/article/")
    buttons = page.get_by_role("link", name="Support The Daily Ledger")
    assert buttons.count() >= 2
    buttons.first.click()
    page.locator("label", has_text="500 $").first.click()
    page.get_by_role("button").filter(has_text="ontinue").click()
    pay(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Thank you", timeout=30000)
    home.await_meter(raised=50000)
    page.goto(f"{home.site}/embed/v1/meter")
    expect(page.get_by_text("500 $", exact=True).first).to_be_visible()
    assert page.context.cookies() == []


def test_what_is_being_confirmed_becomes_the_thanks_by_itself(staff_page: Page, home: House) -> None:
    page = staff_page
    checkout = home.checkout()
    page.goto(home.api(f"checkout/sessions/{checkout}")["success_url"])
    expect(page.get_by_role("heading", level=1)).to_have_text("Confirming your gift")
    assert_accessible(page)
    page.evaluate("window.same = true")
    home.pay(checkout)
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you", timeout=30000)
    expect(page).to_have_title(re.compile("^Thank you"))
    assert page.evaluate("window.same")
    assert_accessible(page)


def test_a_page_that_says_something_else_after_an_hour_looks_on(page: Page, home: House) -> None:
    checkout = home.checkout()
    thanks = home.api(f"checkout/sessions/{checkout}")["success_url"]
    page.goto(thanks)

    def an_hour_later(route: Route) -> None:
        told = route.fetch()
        route.fulfill(response=told, body=told.text().replace("Confirming your gift", "We have not heard of it"))

    page.route(thanks, an_hour_later)
    expect(page.get_by_role("heading", level=1)).to_have_text("We have not heard of it", timeout=30000)
    page.unroute(thanks)
    home.pay(checkout)
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you", timeout=30000)


def test_a_custom_amount_and_its_refusal_in_words(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    page.locator("label", has_text="Other").first.click()
    page.locator("input[name=amount]").fill("1.000")
    page.locator("input[name=name]").fill("Reader")
    page.get_by_role("button").filter(has_text="ontinue").click()
    expect(page.get_by_text("can be read in two ways").first).to_be_visible()
    expect(page.locator("input[name=name]")).to_have_value("Reader")
    page.locator("input[name=amount]").fill("1,000")
    page.get_by_role("button").filter(has_text="ontinue").click()
    pay(page)
    home.await_meter(raised=100000)


@pytest.mark.parametrize("prefix", ["", "monthly_"])
def test_a_tier_that_is_chosen_after_an_amount_was_typed_is_taken_and_the_amount_kept(
    staff_page: Page, home: House, prefix: str
) -> None:
    page, further = staff_page, staff_page.get_by_role("button", name="Continue to secure payment")
    page.goto(f"{home.site}/give/general/?frequency={'monthly' if prefix else 'once'}")
    tiers, amount = page.locator(f"#{prefix}tier"), page.locator(f"input[name={prefix}amount]")
    other = tiers.locator("label", has_text="Other amount")
    other.click()
    amount.fill("25")
    tiers.locator("label").nth(1).click()
    expect(amount).to_be_disabled()
    page.locator("input[name=email]").fill("reader")
    further.click()
    # Another mistake is the only one that is spoken of.
    expect(page.locator("#errors li")).to_have_text(["This is not an email address. It looks like name@example.org."])
    expect(amount).to_be_disabled()
    expect(amount).to_have_value("25")
    page.locator("input[name=email]").fill("")
    further.click()
    expect(page.get_by_label("Card number")).to_be_visible()
    page.go_back()
    expect(amount).to_be_disabled()
    other.click()
    expect(amount).to_be_visible()
    expect(amount).to_have_value("25")
    further.click()
    expect(page.get_by_text("25 $").or_(page.get_by_text("$25")).first).to_be_visible()


def test_without_scripts_an_amount_beside_a_tier_is_asked_about_once(browser: Browser, home: House) -> None:
    for page in open_page(browser, javascript=False):
        page.goto(f"{home.site}/give/general/")
        further = page.get_by_role("button", name="Continue to secure payment")
        page.locator("label", has_text="Other amount").first.click()
        page.locator("input[name=amount]").fill("25")
        page.locator("label", has_text="500 $").first.click()
        further.click()
        expect(page.locator("#errors")).to_contain_text("Press the button again to give 500 $")
        expect(page.locator("#amount-error")).to_be_visible()
        further.click()
        expect(page.get_by_label("Card number")).to_be_visible()


def test_the_box_adds_the_fee(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    page.locator("label", has_text="500 $").first.click()
    page.get_by_role("checkbox", name="so that all of my gift arrives").check()
    page.get_by_role("button").filter(has_text="ontinue").click()
    expect(page.get_by_text("515.24").first).to_be_visible()
    pay(page)
    expect(page.get_by_text("and with it 15.24 $ that you added")).to_be_visible(timeout=30000)
    home.await_meter(raised=50000)


def test_the_box_says_what_the_server_will_reckon(staff_page: Page, home: House, rng: Random) -> None:
    page, label = staff_page, staff_page.locator("label[for=cover]")
    page.goto(f"{home.site}/give/general/")
    page.locator("label", has_text="500 $").first.click()
    page.get_by_role("checkbox", name="Add 15.24 $ so that all of my gift arrives").check()
    expect(page.get_by_text("You pay 515.24 $ in all.")).to_be_visible()
    assert_accessible(page)
    page.locator("label", has_text="Other").first.click()
    for amount in [50, 99_999_999, *(rng.randrange(50, 10 ** rng.randrange(3, 9)) for _ in range(30))]:
        page.locator("input[name=amount]").fill(f"$ {amount / 100:,.2f}")
        cover = fees.cover(amount, "USD", fees.Formula(29_000, 30))
        within = amount + cover <= money.MAXIMUM_MINOR
        expect(label).to_contain_text(f"Add {money.format_minor(cover, 'USD')} so" if within else GENERAL)
    page.locator("input[name=amount]").fill("1.000")
    expect(label).to_contain_text(GENERAL)


def test_without_scripts_the_box_says_its_formula(browser: Browser, home: House) -> None:
    for page in open_page(browser, javascript=False):
        page.goto(f"{home.site}/give/general/")
        expect(page.locator("label[for=cover]")).to_contain_text(GENERAL)


def test_nothing_to_pay_keeps_a_follower(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    page.locator("input[name=tier][value='0']").check(force=True)
    page.locator("input[name=email]").fill("reader@example.org")
    page.locator("form button[type=submit]").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert home.meter()["raised"] == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readers_pages_have_no_accessibility_violation(staff_page: Page, home: House, scheme: str) -> None:
    staff_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    home.pay(home.checkout())
    home.await_meter(raised=50000)
    for path in ("/give/general/", "/demo/article/", "/embed/v1/meter", "/embed/"):
        staff_page.goto(home.site + path)
        assert_accessible(staff_page)
    session = home.api("checkout/sessions")["data"][0]
    staff_page.goto(session["success_url"])
    assert_accessible(staff_page)
    staff_page.goto(f"{home.sandbox}/pay/{home.checkout(tier='250000')}")
    assert_accessible(staff_page)


def test_a_narrow_page_does_not_scroll_sideways(staff_page: Page, home: House) -> None:
    staff_page.set_viewport_size({"width": 320, "height": 640})
    for path in ("/give/general/", "/embed/v1/meter", "/demo/article/"):
        staff_page.goto(home.site + path)
        assert staff_page.evaluate("document.documentElement.scrollWidth") <= 320


def test_the_bars_button_is_one_line_on_a_phone(staff_page: Page, home: House) -> None:
    staff_page.set_viewport_size({"width": 320, "height": 640})
    staff_page.goto(f"{home.site}/embed/v1/meter")
    button = staff_page.get_by_role("link", name="Support The Daily Ledger").bounding_box()
    assert button is not None
    assert button["height"] <= 45


LONG_WORDS = """
from donations.models import Campaign, Tier
Campaign.objects.update(name="Investigativjournalismusfonds")
Tier.objects.update(label="Informationsfreiheitsanfragen")
"""


@pytest.mark.parametrize("width", [320, 390])
def test_long_words_stay_within_a_narrow_page(staff_page: Page, home: House, width: int) -> None:
    home.manage("shell", "--no-imports", "-c", LONG_WORDS)
    thanks = home.api(f"checkout/sessions/{home.checkout()}")["success_url"]
    sign_in(staff_page, home)
    staff_page.set_viewport_size({"width": width, "height": 640})
    paths = ("/give/general/", "/give/general/?frequency=monthly", "/demo/article/", "/staff/")
    for address in (thanks, *(home.site + path for path in paths)):
        staff_page.goto(address)
        wide, room = staff_page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= room, address


def test_without_a_description_the_bar_keeps_its_distance_from_the_heading(staff_page: Page, home: House) -> None:
    bare = "from donations.models import Campaign; Campaign.objects.update(description='')"
    home.manage("shell", "--no-imports", "-c", bare)
    staff_page.goto(f"{home.site}/give/general/")
    heading, bar = staff_page.locator("h1").bounding_box(), staff_page.locator(".card").first.bounding_box()
    assert heading is not None
    assert bar is not None
    assert bar["y"] - (heading["y"] + heading["height"]) >= 16


@pytest.mark.parametrize("percent", [0, 3, 20, 50, 97, 100])
def test_what_was_raised_stands_above_its_bar_however_narrow_that_is(
    staff_page: Page, home: House, percent: int
) -> None:
    staff_page.set_viewport_size({"width": 320, "height": 640})
    staff_page.goto(f"{home.site}/give/general/")
    label = staff_page.locator(".ra")
    # The bar of a large amount, drawn by the page's own style.
    label.evaluate("(label, p) => { label.className = `ra p${p}`; label.textContent = '1,234,567.89 $'; }", percent)
    bar, shown = staff_page.locator(".bar").bounding_box(), label.bounding_box()
    assert bar is not None
    assert shown is not None
    assert shown["x"] >= bar["x"] - 0.5
    assert shown["x"] + shown["width"] <= bar["x"] + bar["width"] + 0.5


MARKS = """
from djmoney.money import Money
from donations import campaigning
from donations.models import Campaign
from donations.periods import Month
for slug, goal, marks in (
    ("uneven", 7500, [0, 1500, 7500]),
    ("near", 5000, [0, 100, 800, 4999, 5000]),
    ("large", 9_999_999, []),
    ("none", 0, []),
):
    campaign = Campaign.objects.create(slug=slug, name=slug, default_goal=Money(goal, "EUR"))
    scale = [mark * 100 for mark in marks]
    campaigning.set_month_goal(campaign=campaign, month=Month(2024, 11), goal_minor=goal * 100, scale=scale)
"""
# Of each mark that is shown: its words, where they begin and end, and where the bar does.
PLACED = """[...document.querySelectorAll(".sm li")].filter(each => each.checkVisibility()).map(each => {
    const bar = document.querySelector(".bar").getBoundingClientRect(), box = each.getBoundingClientRect()
    return [each.textContent, box.left - bar.left, box.right - bar.left, bar.width]
})"""
SHOWN = {
    "general": (["0 $", "2,500 $", "5,000 $"], ["0 $", "2,500 $", "5,000 $"]),
    "uneven": (["0 €", "1,500 €", "7,500 €"], ["0 €", "1,500 €", "7,500 €"]),
    "near": (["0 €", "5,000 €"], ["0 €", "800 €", "5,000 €"]),
    "large": (["0 €", "9,999,999 €"], ["0 €", "4,999,999.50 €", "9,999,999 €"]),
    "none": (["0 €"], ["0 €"]),
}


@pytest.mark.parametrize("width", [320, 1280])
def test_the_marks_stand_where_their_values_are_and_can_be_read(staff_page: Page, home: House, width: int) -> None:
    home.manage("shell", "--no-imports", "-c", MARKS)
    staff_page.set_viewport_size({"width": width, "height": 640})
    for campaign, (narrow, wide) in SHOWN.items():
        for path in (f"/give/{campaign}/?month=2024-11", f"/embed/v1/meter?campaign={campaign}&month=2024-11"):
            staff_page.goto(home.site + path)
            placed = staff_page.evaluate(PLACED)
            if "embed" in path:
                assert [words for words, *_ in placed] == (wide if width == 1280 else narrow)
                assert_accessible(staff_page)
            for (_, _, end, _), (_, begin, _, _) in pairwise(placed):
                assert end + 4 <= begin
            assert abs(placed[0][1]) < 1
            assert len(placed) == 1 or abs(placed[-1][2] - placed[-1][3]) < 1
            if campaign == "uneven" and "embed" in path:
                _, begin, end, length = placed[1]
                assert abs((begin + end) / 2 - length / 5) < 1


def test_the_frame_is_as_high_as_the_bar_in_it(staff_page: Page, home: House) -> None:
    height = re.search(r"height=&quot;(\d+)&quot;|height=\"(\d+)\"", home.client.get("/embed/").text)
    assert height
    staff_page.set_viewport_size({"width": 320, "height": int(height[1] or height[2])})
    staff_page.goto(f"{home.site}/embed/v1/meter")
    assert staff_page.evaluate("document.documentElement.scrollHeight <= innerHeight")


def test_pictures_of_the_page_and_the_bar(staff_page: Page, home: House, tmp_path: Path) -> None:
    home.pay(home.checkout())
    home.await_meter(raised=50000)
    staff_page.set_viewport_size({"width": 800, "height": 900})
    for name, path, whole in (("give", "/give/general/", True), ("bar", "/embed/v1/meter", False)):
        staff_page.set_viewport_size({"width": 800 if whole else 640, "height": 900 if whole else 220})
        staff_page.goto(home.site + path)
        picture = staff_page.screenshot(full_page=whole)
        assert len(picture) > 3000
        target = ROOT / "docs" / "images" / f"{name}.png"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture)


def test_going_back_unchanged_leads_to_the_same_checkout_and_changed_to_another(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    page.locator("label", has_text="500 $").first.click()
    page.locator("input[name=name]").fill("Reader")
    further = page.get_by_role("button").filter(has_text="ontinue")
    further.click()
    expect(page.get_by_label("Card number")).to_be_visible()
    first = page.url
    page.go_back()
    expect(further).to_be_visible()
    page.locator("input[name=name]").fill("Reader")
    further.click()
    expect(page.get_by_label("Card number")).to_be_visible()
    assert page.url == first
    page.go_back()
    page.locator("label", has_text="2,500 $").first.click()
    further.click()
    expect(page.get_by_label("Card number")).to_be_visible()
    second = page.url
    assert second != first
    eventually(lambda: "has expired" in home.client.get(first).text, "the first checkout is closed")
    page.goto(second)
    pay(page)
    home.await_meter(raised=250000)
