"""The whole way in real processes: from the form to the hosted page, the webhook, the ledger and the bar."""

import signal
import time

from donations.giving import LONGEST_OPENING
from tests.house import House, eventually


def test_a_paid_gift_moves_the_bar_and_reaches_finance(home: House) -> None:
    assert home.meter()["raised"] == 0
    checkout = home.checkout(email="reader@example.org", name="A reader")
    payment = home.pay(checkout)
    home.await_meter(raised=50000, raised_label="500 $", gifts=1, percent=10)
    home.thanks_says(checkout, "Thank you")
    rows = home.movements()
    assert [(row["kind"], row["reference"], row["amount"]) for row in rows] == [("gift", payment, "500.00")]
    assert "every stored total is what the ledger says" in home.manage("rebuild", "--check")
    assert "the books are whole" in home.manage("check_books")


def test_declined_delayed_and_abandoned_gifts_count_only_when_paid(home: House) -> None:
    declined, delayed, failing, abandoned = (home.checkout(tier="custom", amount=str(n)) for n in (11, 12, 13, 14))
    home.control(f"sessions/{declined}/pay", card="4000000000000002")
    for checkout in (delayed, failing):
        home.control(f"sessions/{checkout}/pay", method="delayed")
    home.await_meter(pending=2500, raised=0)
    home.control(f"payments/{home.api(f'checkout/sessions/{delayed}')['payment_intent']}/settle")
    home.control(f"payments/{home.api(f'checkout/sessions/{failing}')['payment_intent']}/fail")
    home.await_meter(pending=0, raised=1200)
    assert home.api(f"checkout/sessions/{abandoned}")["status"] == "open"
    home.control(f"sessions/{abandoned}/expire")
    home.thanks_says(abandoned, "This checkout is over")
    home.thanks_says(failing, "The payment did not go through")
    assert home.api(f"checkout/sessions/{declined}")["payment_status"] == "unpaid"
    home.pay(declined)
    home.await_meter(raised=2300, gifts=2)


def test_refunds_in_part_and_whole_lower_the_bar(home: House) -> None:
    payment = home.pay(home.checkout())
    home.await_meter(raised=50000)
    home.control("refunds", payment_intent=payment, amount=20000, outcome="succeed")
    home.await_meter(raised=30000, gifts=1)
    home.control("refunds", payment_intent=payment, amount=30000, outcome="succeed")
    home.await_meter(raised=0, gifts=0)
    assert sorted(row["amount"] for row in home.movements()) == ["-200.00", "-300.00", "500.00"]
    assert "the books are whole" in home.manage("check_books")


def test_a_fee_cover_is_paid_and_told_apart_and_never_counts(home: House) -> None:
    checkout = home.checkout(email="reader@example.org", cover="on")
    assert home.api(f"checkout/sessions/{checkout}")["amount_total"] == 51524
    hosted = home.client.get(f"{home.sandbox}/pay/{checkout}").text
    assert "Fee cover" in hosted
    payment = home.pay(checkout)
    home.await_meter(raised=50000, raised_label="500 $", gifts=1)
    home.thanks_says(checkout, "Your gift of 500 $ has arrived, and with it 15.24 $ that you added")
    charge = home.api(f"payment_intents/{payment}?expand[]=latest_charge.balance_transaction")["latest_charge"]
    assert charge["balance_transaction"]["net"] == 50000
    home.control("refunds", payment_intent=payment, amount=1524, outcome="succeed")
    eventually(lambda: len(home.movements()) == 2, "the refund is booked")
    assert home.meter()["raised"] == 50000
    home.control("refunds", payment_intent=payment, amount=20000, outcome="succeed")
    home.await_meter(raised=30000)
    paid = home.movements()[0]
    assert (paid["amount"], paid["goal_amount"]) == ("515.24", "500.00")


def test_deliveries_that_come_twice_or_late_count_once(home: House) -> None:
    home.control("deliveries", mode="never")
    payment = home.pay(home.checkout())
    home.control("refunds", payment_intent=payment, amount=10000, outcome="succeed")
    time.sleep(1)
    assert home.meter()["raised"] == 0
    home.control("deliveries", mode="twice")
    home.await_meter(raised=40000, gifts=1)
    assert len(home.movements()) == 2


def test_a_processor_that_is_down_costs_nothing_but_a_second_press(home: House) -> None:
    page = home.page_token()
    home.control("trouble", mode="down")
    answer = home.give(page=page, name="Kept")
    assert answer.status_code == 503
    assert "Kept" in answer.text
    # Whoever waited all of it, or asked a second time, would have an answer.
    home.control("trouble", mode="slow", seconds=10, calls=1)
    assert home.give(page=page, name="Kept").status_code == 503
    assert LONGEST_OPENING < 4
    home.control("trouble", mode="429")
    assert home.give(page=page, name="Kept").status_code == 503
    home.control("trouble", mode="refuse")
    # Once it kept a reader waiting, it is left alone for a second.
    eventually(lambda: home.give(page=page, name="Kept").status_code == 422, "it is asked again")
    home.control("trouble", mode="none")
    first, second = home.give(page=page, name="Kept"), home.give(page=page, name="Kept")
    assert first.status_code == 303
    assert first.headers["Location"] == second.headers["Location"]
    assert len(home.api("checkout/sessions")["data"]) == 1


def test_a_sandbox_that_is_gone_is_a_kind_page_too(home: House) -> None:
    page = home.page_token()
    home.stop("sandbox", signal.SIGKILL)
    assert home.give(page=page).status_code == 503
    home.start_sandbox()
    assert home.give(page=page).status_code == 303


def test_a_changed_form_is_another_gift_and_closes_the_first(home: House) -> None:
    page = home.page_token()
    first, again = home.checkout(page=page), home.checkout(page=page)
    assert first == again
    changed = home.checkout(page=page, tier="250000")
    assert changed != first
    eventually(lambda: home.api(f"checkout/sessions/{first}")["status"] == "expired", "the first one is closed")
    home.pay(changed)
    home.await_meter(raised=250000)


def test_a_killed_site_loses_nothing(home: House) -> None:
    checkout = home.checkout()
    home.stop("site", signal.SIGKILL)
    payment = home.pay(checkout)
    home.start_site()
    home.await_meter(raised=50000)
    assert [row["reference"] for row in home.movements()] == [payment]
