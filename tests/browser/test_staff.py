"""A manager's and finance's way: sign in, the month, the file."""

import re
from datetime import UTC, datetime

from playwright.sync_api import Page, expect

from tests.browser.conftest import assert_accessible
from tests.house import House


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
