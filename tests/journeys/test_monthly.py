"""Monthly gifts in real processes: begun, renewed, failing, saved, stopped in the portal."""

import re
from typing import Any

import httpx

from tests.house import House, eventually


def begin(home: House, card: str = "4242424242424242") -> str:
    """Give 10 $ each month; the subscription's id."""
    checkout = home.checkout(frequency="monthly", monthly_tier="1000", email="reader@example.org")
    home.control(f"sessions/{checkout}/pay", card=card)
    home.thanks_says(checkout, "Your first monthly gift of 10 $ has arrived")
    return str(home.api(f"checkout/sessions/{checkout}")["subscription"])


def mails(home: House) -> str:
    """What the site has printed, as it sends mail by default."""
    return "\n".join(path.read_text(errors="replace") for path in home.folder.glob("*.log"))


def manage_page(home: House) -> str:
    """The link in the donor's mail."""
    eventually(lambda: "/manage/" in mails(home), lambda: f"a receipt with a link: {mails(home)[-2000:]}")
    found = re.search(r"http\S+/manage/\S+", mails(home).replace("=\n", ""))
    assert found
    return found[0]


def await_status(home: House, words: str) -> None:
    page = manage_page(home)
    eventually(lambda: f"<dd>{words}</dd>" in home.client.get(page).text, lambda: home.client.get(page).text)


def await_gifts(home: House, number: int) -> list[dict[str, str]]:
    """Wait until finance's file has this many movements."""
    rows: list[list[dict[str, str]]] = []

    def there() -> bool:
        rows.append(home.movements())
        return len(rows[-1]) >= number

    eventually(there, lambda: f"{number} movements; there are {rows[-1:]}\n{home.logs()}")
    assert len(rows[-1]) == number
    return rows[-1]


def month_later(home: House) -> None:
    home.advance("1mo")
    home.advance("2h")  # an invoice is paid an hour after it was drafted


def in_portal(home: House, subscription: str, **fields: Any) -> None:
    """From the page in the mail to the processor's portal, and press a button there."""
    answer = home.client.post(manage_page(home), headers={"Origin": home.site})
    assert answer.status_code == 303, answer.text
    portal = answer.headers["Location"]
    headers = {"Origin": home.sandbox}
    done = httpx.post(portal, data={"subscription": subscription} | fields, headers=headers, trust_env=False)
    assert done.status_code == 303, done.text


def test_a_monthly_gift_from_its_first_month_to_its_end(home: House) -> None:
    subscription = begin(home)
    month_later(home)
    first, second = await_gifts(home, 2)
    assert (first["amount"], second["amount"]) == ("10.00", "10.00")
    assert first["campaign_month"] < second["campaign_month"]
    for row in (first, second):
        meter = home.client.get(f"/embed/v1/meter.json?month={row['campaign_month']}").json()
        assert (meter["raised"], meter["gifts"]) == (1000, 1)
    await_status(home, "Active")
    in_portal(home, subscription, action="cancel")
    eventually(lambda: "by itself" in home.client.get(manage_page(home)).text, "the end that was asked for is shown")
    month_later(home)
    await_status(home, "Canceled")
    await_gifts(home, 2)
    assert "every stored total is what the ledger says" in home.manage("rebuild", "--check")


def test_a_price_that_is_changed_at_the_processor_is_shown_and_then_taken(home: House) -> None:
    subscription = begin(home)
    home.control(f"subscriptions/{subscription}/price", amount=2000)
    page = manage_page(home)
    eventually(lambda: "20 $ each month" in home.client.get(page).text, lambda: home.client.get(page).text)
    month_later(home)
    first, second = await_gifts(home, 2)
    assert (first["amount"], second["amount"]) == ("10.00", "20.00")
    eventually(lambda: "gift of 20 $ to" in mails(home).replace("=\n", ""), "the receipt says what was taken")
    assert "every stored total is what the ledger says" in home.manage("rebuild", "--check")


def test_a_renewal_that_fails_is_told_and_saved_by_another_card(home: House) -> None:
    subscription = begin(home, card="4000000000000341")
    month_later(home)
    await_status(home, "Past due")
    eventually(lambda: "could not be collected" in mails(home), "the donor is written to")
    home.advance("3d")  # tried again, in vain
    in_portal(home, subscription, action="card", card="4242424242424242")
    home.advance("5d")
    await_gifts(home, 2)
    await_status(home, "Active")
    assert mails(home).count("could not be collected") == 1, "once an invoice, however often it is tried"
