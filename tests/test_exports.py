"""Finance's files: every byte of them, from both databases; and who may take them."""

import csv
import html
import io
import os
import re
import signal
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client

from donations import exports, ledger, projections
from donations.models import Campaign, ExportRecord, Gift, MonthTotal
from donations.models.ledger import PLAIN_TEXT
from donations.selectors import finance
from donations.selectors.finance import ALL_GIFTS, FILES, LEDGER, Column, File, Selection
from tests.factories import collate_ledger, confirm, make_campaign, make_gift, make_staff

pytestmark = pytest.mark.django_db
NOVEMBER = Selection(start=date(2024, 11, 1), end=date(2024, 12, 1), livemode=False)


def book(gift: Gift, *movements: tuple[str, str, int, datetime], payment: str = "") -> None:
    """A gift paid at the first movement's time, and what became of it: kind, reference, amount, time."""
    entries: list[ledger.NewEntry] = []
    for kind, reference, amount, at in movements:
        entries.append(
            ledger.entry(
                campaign=gift.campaign,
                effective_at=at,
                kind=kind,
                processor="stripe",
                reference=reference,
                currency=gift.currency,
                amount=amount,
                livemode=gift.livemode,
                gift=gift.pk,
                tier=gift.tier,
                goal_amount=gift.amount if kind == "gift" else 0,
                campaign_month=entries[0].campaign_month if entries else "",
            )
        )
    with transaction.atomic():
        ledger.post(entries)
        projections.apply(gifts=[gift])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def text_of(name: str, selection: Selection = NOVEMBER) -> str:
    return b"".join(exports.stream(FILES[name], selection)).decode()


def rows_of(name: str, selection: Selection = NOVEMBER) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of(name, selection), newline="")))


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign()


# ---- bytes


def test_every_byte_of_the_ledger(campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000, reference="gift_0001", fee_cover=103, tier="500.00", source="article")
    book(
        gift,
        ("gift", "pi_1", 50103, at("2024-11-30 23:30:00")),
        ("refund", "re_1", -5, at("2024-12-01 04:59:59.250000")),
    )
    first, second = ledger_numbers()
    assert text_of("ledger") == (
        "entry_id,effective_at,local_date,campaign,campaign_month,kind,processor,reference,gift,tier,currency,amount,"
        "goal_amount,settlement_currency,settlement_amount,livemode\r\n"
        f"{first},2024-11-30 23:30:00,2024-11-30,general,2024-11,gift,stripe,pi_1,gift_0001,500.00,USD,501.03,500.00,,,"
        "false\r\n"
        f"{second},2024-12-01 04:59:59.25,2024-11-30,general,2024-11,refund,stripe,re_1,gift_0001,500.00,USD,-0.05,"
        "0.00,,,false\r\n"
    )


def test_every_byte_of_the_gifts(campaign: Campaign) -> None:
    gift = make_gift(campaign, 50000, reference="gift_0001", fee_cover=103, tier="custom", source="article")
    book(
        gift,
        ("gift", "pi_1", 50103, at("2024-11-18 12:00:00")),
        ("refund", "re_1", -20000, at("2024-12-18 12:00:00")),
        ("dispute_withdrawn", "txn_1", -10000, at("2025-01-18 12:00:00")),
    )
    assert text_of("gifts") == (
        "gift,campaign,campaign_month,confirmed_at,status,tier,frequency,currency,amount,fee_cover,charged,refunded,"
        "disputed,counted,source,livemode\r\n"
        "gift_0001,general,2024-11,2024-11-18 12:00:00,confirmed,custom,once,USD,500.00,1.03,501.03,200.00,100.00,"
        "201.03,article,false\r\n"
    )


def ledger_numbers() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM donations_ledgerentry ORDER BY id")
        return [row[0] for row in cursor.fetchall()]


@pytest.mark.parametrize(
    ("source", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        ("＠x", "'＠x"),
        ("\t=1", "' =1"),
        ("\r\n=1", "'  =1"),
        ("a\nb\rc\td\x07e\x7ff\x85g\u2028h", "a b c d e f g h"),
        ('quoted "so", and', '"quoted ""so"", and"'),
        ("1-2", "1-2"),
        ("ünïcödé 漢字", "ünïcödé 漢字"),
        ("", ""),
        ("'", "'"),
        (" ", " "),
        ("NULL", "NULL"),
        ("none", "none"),
        ("\\N", "\\N"),
        ("\\.", "\\."),
        ('a\\,"b\\\\', '"a\\,""b\\\\"'),
    ],
)
def test_a_readers_text_breaks_no_line_and_runs_in_no_spreadsheet(campaign: Campaign, source: str, cell: str) -> None:
    book(make_gift(campaign, source=source), ("gift", "pi_1", 50000, at("2024-11-18 12:00:00")))
    assert text_of("gifts").endswith(f",500.00,0.00,500.00,0.00,0.00,500.00,{cell},false\r\n")


def test_of_no_letter_the_ledger_takes_a_text_that_its_file_would_have_to_change() -> None:
    letters = [chr(code) for code in range(1, 0x10000)]  # NUL is in no text of PostgreSQL; the patterns name none above
    texts = [text for each in letters for text in (f"{each}=1", f"a{each}")]
    admitted = list(filter(re.compile(PLAIN_TEXT).search, texts))
    changed = {text for text in admitted if exports._guarded(text) != text}
    # Its check lets these two through at the very beginning, where each of its texts has a letter of a name.
    assert {text[0] for text in changed} == {"\u2028", "\u2029"}
    assert len(admitted) > len(texts) * 0.99


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "a\nb", "a\tb", " x", "＝1", "", "a\x7f"])
def test_the_ledger_takes_no_text_that_its_file_would_have_to_change(campaign: Campaign, text: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        book(make_gift(campaign), ("gift", text, 50000, at("2024-11-18 12:00:00")))


@pytest.mark.parametrize(
    ("currency", "minor", "text"),
    [("USD", 100, "1.00"), ("USD", 101, "1.01"), ("USD", 7, "0.07"), ("JPY", 7, "7"), ("JPY", 100, "100"),
     ("KWD", 10, "0.010"), ("KWD", 100000, "100.000")],
)  # fmt: skip
def test_amounts_have_their_currencys_digits(currency: str, minor: int, text: str) -> None:
    campaign = make_campaign(currency=currency)
    gift = make_gift(campaign, minor)
    book(
        gift, ("gift", "pi_1", minor, at("2024-11-18 12:00:00")), ("refund", "re_1", -minor, at("2024-11-18 13:00:00"))
    )
    assert [row["amount"] for row in rows_of("ledger")] == [text, f"-{text}"]
    assert [row["refunded"] for row in rows_of("gifts")] == [text]


# ---- which rows


def test_a_period_is_of_days_in_the_campaigns_zone_and_ends_before_its_end(campaign: Campaign) -> None:
    # New York's November 2024: from 1 November 04:00 UTC to 1 December 05:00 UTC.
    edges = ["2024-11-01 03:59:59", "2024-11-01 04:00:00", "2024-12-01 04:59:59", "2024-12-01 05:00:00"]
    for number, edge in enumerate(edges):
        book(make_gift(campaign), ("gift", f"pi_{number}", 50000, at(edge)))
    assert [row["reference"] for row in rows_of("ledger")] == ["pi_1", "pi_2"]
    assert len(rows_of("gifts")) == 2
    assert len(rows_of("ledger", Selection())) == 4
    assert len(rows_of("ledger", Selection(start=date(2024, 11, 1)))) == 3
    assert len(rows_of("ledger", Selection(end=date(2024, 12, 1)))) == 3


def test_far_zones_lose_no_day_at_the_edge() -> None:
    for slug, zone, edge in (
        ("east", "Pacific/Kiritimati", "2024-10-31 10:00"),
        ("west", "Etc/GMT+12", "2024-12-01 11:59"),
    ):
        campaign = make_campaign(slug, time_zone=zone, is_default=False)
        book(make_gift(campaign), ("gift", f"pi_{slug}", 50000, at(edge)))
    assert [row["campaign"] for row in rows_of("ledger")] == ["east", "west"]


def test_campaigns_and_modes_are_kept_apart(campaign: Campaign) -> None:
    other = make_campaign("other")
    for fund, livemode in ((campaign, False), (other, False), (campaign, True)):
        gift = make_gift(fund, livemode=livemode)
        book(gift, ("gift", f"pi_{gift.pk}", 50000, at("2024-11-18 12:00:00")))
    assert [row["campaign"] for row in rows_of("ledger", Selection(campaign="other", livemode=False))] == ["other"]
    assert [row["livemode"] for row in rows_of("ledger", Selection(livemode=True))] == ["true"]
    assert len(rows_of("gifts", Selection())) == 3


@pytest.mark.postgres
def test_what_fails_in_the_middle_of_a_page_is_an_error_and_not_the_end_of_the_file(campaign: Campaign) -> None:
    for number in range(1, 4):
        confirm(make_gift(campaign, 100 * number))
    fails_at_the_second = Column("x", "100 / (e.amount - 200)")
    broken = replace(LEDGER, columns=(*LEDGER.columns, fails_at_the_second))
    with pytest.raises(psycopg.errors.DivisionByZero), transaction.atomic():
        list(exports.stream(broken, Selection()))
    assert len(rows_of("ledger", Selection())) == 3


def test_a_gift_that_was_not_paid_has_no_row(campaign: Campaign) -> None:
    make_gift(campaign)
    assert rows_of("gifts", Selection()) == rows_of("ledger", Selection()) == []


@pytest.mark.parametrize("name", ["ledger", "gifts"])
@pytest.mark.parametrize("size", [1, 500])
def test_what_moved_in_one_second_stands_in_the_order_of_bytes_whatever_the_databases_collation(
    campaign: Campaign, name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    collate_ledger("en-x-icu")
    monkeypatch.setattr(exports, "SIZES", (size,) * 4)
    for payment in ("pi_3aB", "pi_3Ab", "pi_3_x"):
        book(make_gift(campaign, reference=f"gift_{payment}"), ("gift", payment, 50000, at("2024-11-18 12:00:00")))
    gifts = [row["gift"] for row in rows_of(name)]
    assert gifts == ["gift_pi_3Ab", "gift_pi_3_x", "gift_pi_3aB"]


@pytest.mark.parametrize("lines_at_once", [1, 3, 1024])
def test_pages_neither_lose_nor_repeat_a_row(
    campaign: Campaign, monkeypatch: Any, rng: Random, lines_at_once: int
) -> None:
    monkeypatch.setattr(exports, "LINES_AT_ONCE", lines_at_once)
    monkeypatch.setattr(exports, "SIZES", (1, 2))
    monkeypatch.setattr(exports, "SIZE", 3)
    moments = [at(f"2024-11-1{rng.randrange(3)} 12:00:00") for _ in range(40)]
    for number, moment in enumerate(moments):
        gift = make_gift(campaign, 100 + number)
        book(
            gift,
            ("gift", f"pi_{number:02d}", gift.amount, moment),
            ("refund", f"re_{number:02d}", -rng.randrange(1, 100), moment),
        )
    rows = rows_of("ledger")
    order = [(row["effective_at"], row["processor"], row["kind"], row["reference"]) for row in rows]
    assert order == sorted(order)
    assert len(set(order)) == len(order) == 80
    gifts = rows_of("gifts")
    assert sorted(row["gift"] for row in gifts) == sorted(Gift.objects.values_list("pk", flat=True))


def test_the_gifts_of_a_campaign_month_add_up_to_its_bar(campaign: Campaign, rng: Random) -> None:
    for number in range(30):
        gift = make_gift(campaign, rng.randrange(50, 100_000), fee_cover=rng.choice([0, 30]))
        moment = at(f"2024-{rng.choice([10, 11, 12])}-15 12:00:00")
        movements = [("gift", f"pi_{number}", gift.total, moment)]
        if rng.random() < 0.5:
            movements.append(("refund", f"re_{number}", -rng.randrange(1, gift.total + 1), at("2025-01-15 12:00:00")))
        if rng.random() < 0.3:
            movements.append(("dispute_withdrawn", f"txn_{number}", -gift.total, at("2025-02-15 12:00:00")))
        book(gift, *movements)
    counted: Counter[str] = Counter()
    for row in rows_of("gifts", Selection()):
        counted[row["campaign_month"]] += int(Decimal(row["counted"]) * 100)
    assert counted == Counter({total.month: total.raised for total in MonthTotal.objects.all()})
    moved = sum(Decimal(row["amount"]) for row in rows_of("ledger", Selection()))
    given = [
        Decimal(row["charged"]) - Decimal(row["refunded"]) - Decimal(row["disputed"])
        for row in rows_of("gifts", Selection())
    ]
    assert moved == sum(given)


def test_no_personal_data_is_in_either_file(campaign: Campaign) -> None:
    gift = make_gift(campaign, public_name="Ada Reader", message="For the court reports")
    book(gift, ("gift", "pi_1", 50000, at("2024-11-18 12:00:00")))
    assert "Ada" not in text_of("ledger") + text_of("gifts")
    assert "court" not in text_of("ledger") + text_of("gifts")


# ---- the command


def test_the_command_writes_the_same_file(campaign: Campaign, tmp_path: Path) -> None:
    book(make_gift(campaign), ("gift", "pi_1", 50000, at("2024-11-18 12:00:00")))
    for name in FILES:
        target = tmp_path / f"{name}.csv"
        call_command("export", name, "--start=2024-11-01", "--end=2024-12-01", f"--output={target}")
        assert target.read_bytes().decode() == text_of(name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--campaign=nothing"],
        ["--start=2024-12-01", "--end=2024-11-01"],
        ["--start=yesterday"],
        ["--output=/nowhere/at/all.csv"],
    ],
)
def test_the_command_says_what_is_wrong(campaign: Campaign, arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("export", "ledger", *arguments)


# ---- the page


def signed_in(*permissions: str) -> Client:
    client = Client()
    client.force_login(make_staff(*permissions))
    return client


@pytest.mark.parametrize("period", [{"end": "9999-12-31"}, {"start": "0001-01-01", "end": "2024-12-01"}])
def test_a_period_may_reach_to_the_ends_of_the_calendar(campaign: Campaign, period: dict[str, str]) -> None:
    book(make_gift(campaign), ("gift", "pi_1", 50000, at("2024-11-18 12:00:00")))
    answer = signed_in("add_exportrecord").post("/staff/exports/ledger.csv", {"start": "2024-11-01"} | period)
    assert b"".join(answer.streaming_content).count(b"\r\n") == 2  # type: ignore[attr-defined]


def test_a_day_in_another_order_is_refused(campaign: Campaign) -> None:
    """The second of March, to half of the world."""
    answer = signed_in("add_exportrecord").post("/staff/exports/ledger.csv", {"start": "02/03/2024"})
    assert answer.status_code == 422
    assert "Type year, month and day, like this: 2024-11-18." in answer.content.decode()
    assert not ExportRecord.objects.exists()


def test_a_download_that_breaks_off_says_so_in_its_last_line(campaign: Campaign, monkeypatch: Any) -> None:
    monkeypatch.setattr(exports, "SIZES", (1,))
    for number in range(3):
        book(make_gift(campaign), ("gift", f"pi_{number}", 50000, at("2024-11-18 12:00:00")))
    choice = {"campaign": "general", "start": "2024-11-01", "end": "2024-12-01"}
    answer = signed_in("add_exportrecord").post("/staff/exports/ledger.csv", choice)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE donations_ledgerentry RENAME TO gone")
    taken: list[bytes] = []
    with pytest.raises(DatabaseError), transaction.atomic():
        taken.extend(answer.streaming_content)  # type: ignore[attr-defined]
    lines = b"".join(taken).decode().splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("THIS FILE IS NOT COMPLETE.")
    client = signed_in("add_exportrecord")
    client.raise_request_exception = False
    with transaction.atomic():
        assert client.post("/staff/exports/gifts.csv", choice).status_code in {500, 503}
        transaction.set_rollback(True)


def test_a_download_is_the_file_and_is_recorded(campaign: Campaign) -> None:
    book(make_gift(campaign), ("gift", "pi_1", 50000, at("2024-11-18 12:00:00")))
    choice = {"campaign": "general", "start": "2024-11-01", "end": "2024-12-01"}
    answer = signed_in("add_exportrecord").post("/staff/exports/ledger.csv", choice)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    name = "ledger-general-2024-11-01-before-2024-12-01-test.csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
    assert b"".join(answer.streaming_content).decode() == text_of("ledger")  # type: ignore[attr-defined]
    record = ExportRecord.objects.get()
    assert (record.file, record.campaign, str(record.period_start), str(record.period_end)) == (
        "ledger", "general", "2024-11-01", "2024-12-01",
    )  # fmt: skip


def test_the_page_of_the_files_explains_their_columns_itself() -> None:
    said = html.unescape(signed_in("add_exportrecord").get("/staff/exports/").content.decode())
    for file in FILES.values():
        for column in file.columns:
            assert f'<th scope="row">{column.name}</th><td>{column.meaning}</td>' in said
    assert "docs/" not in said


def test_only_who_may_take_files_does() -> None:
    make_campaign()
    for client, code in ((Client(), 302), (signed_in("view_monthtotal", "view_ledgerentry"), 403)):
        assert client.get("/staff/exports/").status_code == code
        assert client.post("/staff/exports/ledger.csv").status_code == code
    finance = signed_in("add_exportrecord")
    # Who had to sign in on the way comes by GET.
    assert finance.get("/staff/exports/ledger.csv").headers["Location"] == "/staff/exports/"
    assert finance.put("/staff/exports/ledger.csv").status_code == 405
    assert finance.post("/staff/exports/secrets.csv").status_code == 404
    assert ExportRecord.objects.count() == 0
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(make_staff("add_exportrecord"))
    assert strict.post("/staff/exports/ledger.csv").status_code == 403


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"start": "2024-12-01", "end": "2024-12-01"}, "This period is empty"),
        ({"start": "nonsense"}, "This is no valid date"),
        ({"campaign": "nothing"}, "not one of the available choices"),
    ],
)
def test_a_choice_that_cannot_be_is_said_beside_it_and_kept(choice: dict[str, str], words: str) -> None:
    make_campaign()
    answer = signed_in("add_exportrecord").post("/staff/exports/gifts.csv", choice)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert ExportRecord.objects.count() == 0


def test_the_dashboards_link_fills_in_the_choice() -> None:
    make_campaign()
    answer = signed_in("add_exportrecord").get("/staff/exports/?campaign=general&start=2024-11-01&end=2024-12-01")
    page = answer.content.decode()
    assert 'value="2024-11-01"' in page
    assert '<option value="general" selected>' in page


# ---- while others work


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_a_reader_is_slow(campaign: Campaign, monkeypatch: Any) -> None:
    monkeypatch.setattr(exports, "CHUNK", 16)
    book(make_gift(campaign), ("gift", "pi_1", 50000, at("2024-11-18 12:00:00")))
    for chunk in exports.stream(LEDGER, Selection()):
        assert chunk
        assert not connection.in_atomic_block
        if connection.vendor == "postgresql":
            assert connection.connection.info.transaction_status.name == "IDLE"


def test_what_is_booked_meanwhile_waits_for_the_next_file(campaign: Campaign, monkeypatch: Any) -> None:
    monkeypatch.setattr(exports, "SIZES", (1,))
    for number in range(3):
        book(make_gift(campaign), ("gift", f"pi_{number}", 50000, at("2024-11-18 12:00:00")))
    chunks = exports.stream(ALL_GIFTS, Selection())
    head = [next(chunks), next(chunks)]
    book(make_gift(campaign), ("gift", "pi_9", 50000, at("2024-11-19 12:00:00")))
    assert b"".join([*head, *chunks]).count(b"\r\n") == 4


@pytest.mark.sqlite
def test_sqlite_reads_pages_by_the_ledgers_index() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN QUERY PLAN SELECT e.id FROM donations_ledgerentry e WHERE e.id <= 9 AND "
            "(e.effective_at, e.processor, e.kind, e.reference) > ('2024-11-01', 'a', 'b', 'c') "
            "ORDER BY e.effective_at, e.processor, e.kind, e.reference LIMIT 5"
        )
        plan = " ".join(row[-1] for row in cursor.fetchall())
    assert "entries_in_order" in plan
    assert "TEMP B-TREE" not in plan


def postgresqls_plan(file: File) -> str:
    """How PostgreSQL reads a page that is not the first."""
    key = (at("2024-11-01 12:00:00"), "a", "b", "c")
    sql, parameters = finance.page(file, NOVEMBER, cell=lambda column: column.sql, newest=9, after=key, size=5)
    with connection.cursor() as cursor:
        # Of an empty table any plan is cheap.
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {sql}", parameters)
        return " ".join(row[0] for row in cursor.fetchall())


@pytest.mark.postgres
def test_postgresql_reads_pages_by_the_ledgers_index(campaign: Campaign) -> None:
    plan = postgresqls_plan(LEDGER)
    assert "Index Scan using entries_in_order" in plan
    assert (
        "ROW(effective_at, (processor)::text, (kind)::text, (reference)::text) > " in plan.partition("Index Cond:")[2]
    )
    assert "Sort" not in plan


@pytest.mark.postgres
def test_postgresql_reads_the_entries_of_each_gift_by_an_index_however_few_gifts_it_expects(campaign: Campaign) -> None:
    plan = postgresqls_plan(ALL_GIFTS)
    assert "Index Cond: ((gift)::text = (e.gift)::text)" in plan


class PipeWithoutReader(io.RawIOBase):
    """The standard output of a command whose reader has gone."""

    def __init__(self) -> None:
        self.ends = os.pipe()
        os.close(self.ends[0])

    @property
    def buffer(self) -> "PipeWithoutReader":
        return self

    def writable(self) -> bool:
        return True

    def write(self, chunk: Any) -> int:
        return os.write(self.ends[1], chunk)

    def fileno(self) -> int:
        return self.ends[1]


def test_a_reader_that_has_read_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", PipeWithoutReader())
    with pytest.raises(SystemExit) as end:
        call_command("export", "ledger")
    assert end.value.code == 128 + signal.SIGPIPE
    assert capsys.readouterr().err == ""
