"""A reader gives each month: the choice without a script, the thank-you page, the page to stop it, the portal."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import assert_accessible
from tests.browser.test_reader import pay
from tests.house import House, eventually


def choose(page: Page, words: str) -> None:
    page.locator("label", has_text=words).locator("visible=true").first.click()


def further(page: Page) -> None:
    page.get_by_role("button").filter(has_text="ontinue").click()


def manage_page(home: House) -> str:
    """The link in the receipt, which the site prints."""

    def link() -> str:
        found = re.search(r"http\S+/manage/\S+", (home.folder / "site.log").read_text(errors="replace"))
        return found[0] if found else ""

    eventually(lambda: bool(link()), "a receipt with a link")
    return link()


def test_from_the_choice_of_monthly_to_the_portal_and_back(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    expect(page.get_by_text("How much each month?")).to_be_hidden()
    choose(page, "Monthly")
    expect(page.get_by_text("How much?", exact=True)).to_be_hidden()
    expect(page.get_by_text("taken every month until you stop it")).to_be_visible()
    choose(page, "10 $")
    page.locator("input[name=email]").fill("reader@example.org")
    further(page)
    pay(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Thank you", timeout=30000)
    expect(page.get_by_text("Your first monthly gift of 10 $ has arrived")).to_be_visible()
    home.await_meter(raised=1000, gifts=1)
    page.goto(manage_page(home))
    page.get_by_role("button", name="Change the card, or stop").click()
    page.get_by_role("button", name=re.compile("Stop when this month ends")).click()
    page.get_by_role("link", name="Back to the site").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your monthly gift")
    eventually(lambda: bool(page.reload()) and page.get_by_text("by itself").count() == 1, "its end is shown")
    assert page.context.cookies() == []


def test_a_monthly_amount_of_ones_own_and_its_refusal_in_words(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/?frequency=monthly")
    choose(page, "Other amount")
    page.locator("input[name=monthly_amount]").fill("1.000")
    further(page)
    expect(page.get_by_text("can be read in two ways").first).to_be_visible()
    expect(page.locator("input[name=monthly_amount]")).to_be_visible()
    expect(page.locator("input[name=amount]")).to_be_hidden()
    page.locator("input[name=monthly_amount]").fill("12.50")
    further(page)
    expect(page.get_by_text("12.50").first).to_be_visible()
    page.go_back()
    choose(page, "One time")
    choose(page, "500 $")
    further(page)
    pay(page)
    home.await_meter(raised=50000, gifts=1)


def test_nothing_to_pay_is_offered_once_and_not_each_month(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    page.locator("input[name=tier][value='0']").check(force=True)
    expect(page.get_by_role("button", name="Count me in")).to_be_visible()
    choose(page, "Monthly")
    expect(page.locator("input[value='0']:visible")).to_have_count(0)
    expect(page.get_by_role("button", name="Continue to secure payment")).to_be_visible()


def test_the_box_reckons_with_the_choice_that_counts(staff_page: Page, home: House) -> None:
    page, label = staff_page, staff_page.locator("label[for=cover]")
    page.goto(f"{home.site}/give/general/")
    choose(page, "500 $")
    expect(label).to_contain_text("Add 15.24 $ so")
    choose(page, "Monthly")
    choose(page, "10 $")
    page.get_by_role("checkbox", name="Add 0.61 $ so that all of my gift arrives").check()
    expect(page.get_by_text("You pay 10.61 $ each month.")).to_be_visible()
    choose(page, "Other amount")
    page.locator("input[name=monthly_amount]").fill("25")
    expect(page.get_by_text("You pay 26.06 $ each month.")).to_be_visible()
    choose(page, "One time")
    expect(page.get_by_text("You pay 515.24 $ in all.")).to_be_visible()


def test_the_choice_is_made_with_the_keyboard(page: Page, home: House) -> None:
    page.goto(f"{home.site}/give/general/")
    page.locator("input[name=frequency][value=once]").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    expect(page.locator("input[name=monthly_tier][value='1000']")).to_be_checked()


def test_pages_of_monthly_gifts_have_no_accessibility_violation(staff_page: Page, home: House, tmp_path: Path) -> None:
    session = home.checkout(frequency="monthly", monthly_tier="1000", email="reader@example.org")
    home.control(f"sessions/{session}/pay", card="4242424242424242")
    thanks = home.api(f"checkout/sessions/{session}")["success_url"]
    home.thanks_says(session, "has arrived")
    for scheme in ("light", "dark"):
        staff_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for address in (f"{home.site}/give/general/?frequency=monthly", thanks, manage_page(home)):
            staff_page.goto(address)
            assert_accessible(staff_page)
            staff_page.set_viewport_size({"width": 320, "height": 640})
            assert staff_page.evaluate("document.documentElement.scrollWidth") <= 320
            staff_page.set_viewport_size({"width": 800, "height": 900})
