"""Fetch what was missed and compare both books, here and now."""

import argparse
import logging
import re
import shutil
import time
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from donations import money, reconcile
from donations.processors.base import ProcessorRefused, ProcessorUnavailable
from donations.reconcile import EARLIEST, Run

NAMES = {
    "events": "undelivered events",
    "checkouts": "checkouts",
    "invoice_payments": "payments of monthly gifts",
    "refunds": "refunds",
    "disputes": "disputes",
    "payouts": "payouts",
    "transactions": "balance transactions",
    "lookups": "what is to be looked up",
    "comparison": "the last word",
}
AGO = re.compile(r"([0-9]{1,5})([dh])", re.ASCII)
PAGES_A_LINE = 50
QUIET_FOR = 10.0  # seconds, where each line stays
STOPPED_BY_HAND = 130  # as shells say it of SIGINT


def moment(text: str) -> datetime:
    """`2024-11-01`, `2024-11-01T08:00Z`, or how long ago: `40d`, `72h`; neither in the future, nor before any gift."""
    found = _read(text)
    if found > timezone.now():
        raise argparse.ArgumentTypeError(f"{text} is in the future: write from when on to look")
    if found < EARLIEST:
        raise argparse.ArgumentTypeError(f"{text} is before {EARLIEST:%Y-%m-%d}: no payment is as old as that")
    return found


def _read(text: str) -> datetime:
    if ago := AGO.fullmatch(text):
        hours = int(ago[1]) * (24 if ago[2] == "d" else 1)
        return timezone.now() - timedelta(hours=hours)
    try:
        day, instant = parse_date(text), parse_datetime(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} is no day of the calendar") from error
    found = instant or (datetime(day.year, day.month, day.day) if day else None)  # noqa: DTZ001 (made aware below)
    if found is None:
        raise argparse.ArgumentTypeError("write 2024-11-01, 2024-11-01T08:00Z, 40d or 72h")
    return timezone.make_aware(found) if timezone.is_naive(found) else found


class Command(BaseCommand):
    help = (
        "Fetch from the processor what was not delivered, put it into the inbox, and compare both books. One run "
        "at a time; one that was killed is gone on with. Exits 1 when a difference has no known cause, 2 "
        "when there was no run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take --since and --check."""
        parser.add_argument(
            "--since",
            type=moment,
            help="look farther back than the last whole run makes needed: to 2024-11-01, 40d or 72h ago; with --check, "
            "compare from then on",
        )
        parser.add_argument("--check", action="store_true", help="compare only; nothing is fetched or stored")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run, or only compare, and say what was found."""
        try:
            with Progress(self) as progress:
                if options["check"]:
                    compared = reconcile.check(since=options["since"], show=progress.show)
                else:
                    row = reconcile.run(since=options["since"], tell=progress.tell)
        except KeyboardInterrupt:
            goes_on = "" if options["check"] else " What was fetched is kept, and the next run goes on from there."
            raise CommandError(f"Stopped.{goes_on}", returncode=STOPPED_BY_HAND) from None
        except reconcile.Busy as reason:
            raise CommandError(
                f"Nothing was done: {reason}. A run that was killed is taken up after that.", returncode=2
            ) from reason
        except (ProcessorUnavailable, ProcessorRefused, reconcile.LostLease) as problem:
            goes_on = "Nothing was changed." if options["check"] else "The next run goes on from there."
            raise CommandError(f"It stands still: {problem}. {goes_on}", returncode=2) from problem
        if options["check"]:
            self._report(compared.sums, compared.shown(), compared.unexplained)
            return
        self.stdout.write(f"{row.unseen:,} rows of the processor's were not here")
        self._report(row.books, row.differences, row.unexplained)

    def _report(self, sums: dict[str, dict[str, int]], differences: list[dict[str, Any]], unexplained: int) -> None:
        for name, row in sorted(sums.items()):
            self.stdout.write(_sum_line(name, row))
        for each in differences:
            self.stdout.write(_difference(each))
        if unexplained:
            raise CommandError(f"Both books differ, in {unexplained} ways of no known cause. See docs/operating.md.")
        self.stdout.write("both books differ, for the reasons above" if differences else "both books say the same")


def _sum_line(name: str, row: dict[str, int]) -> str:
    currency, kind = name.split(" ", 1)

    def text(minor: int) -> str:
        return f"{money.decimal(minor, currency)}"

    movements = f"{row['count']:,} movement{'' if row['count'] == 1 else 's'}"
    line = f"  {currency} {kind}: {movements}, theirs {text(row['theirs'])}, ours {text(row['ours'])}"
    line += f", fees {text(row['their_fees'])} and {text(row['our_fees'])}"
    return line + (f", agreed {text(row['agreed'])}" if row["agreed"] else "")


def _difference(each: dict[str, Any]) -> str:
    currency = each["currency"]
    sides = f"theirs {money.decimal(each['theirs'], currency)}, ours {money.decimal(each['ours'], currency)} {currency}"
    if each["their_fee"] != each["our_fee"]:
        sides += (
            f"; fees: theirs {money.decimal(each['their_fee'], currency)}, "
            f"ours {money.decimal(each['our_fee'], currency)} {currency}"
        )
    detail = f" ({each['detail']})" if each["detail"] else ""
    return f"! {each['type']} {each['reference']}: {sides}. {each['words']}{detail} {each['remedy']}"


class Progress:
    """What a terminal shows while a run goes on: one line that changes; elsewhere a line now and then."""

    def __init__(self, command: Command) -> None:
        self.output = command.stdout
        self.is_terminal = bool(command.stdout.isatty())
        self.begun, self.step, self.pages, self.written = time.monotonic(), "", 0, 0.0

    def __enter__(self) -> "Progress":
        """Have the log's lines make way for the one that changes, as they are on the same terminal."""
        for handler in logging.getLogger().handlers:
            handler.addFilter(self._make_way)
        return self

    def __exit__(self, *_: object) -> None:
        """Let what follows begin on a line of its own."""
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._make_way)
        self._end_line()

    def tell(self, run: Run) -> None:
        """Show where a run stands."""
        is_new = run.row.step != self.step
        if is_new:
            self._end_line()
            self.step, self.pages = run.row.step, 0
        self.pages += not run.doing
        self._write(self._line(run), now=is_new or self._is_worth_a_line(run))

    def show(self, doing: str) -> None:
        """Show how far a comparison is that is no run."""
        is_new, self.step = not self.step, "check"
        self._write(f"{self._seconds()}  {doing}", now=is_new or self._was_quiet())

    def _write(self, line: str, *, now: bool) -> None:
        """A terminal shows each; elsewhere a line is written where it is worth one."""
        if self.is_terminal:
            # A line that is wider than the terminal would not be written over.
            self.output.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", ending="")
            self.output.flush()
        elif now:
            self.output.write(line)
            self.written = time.monotonic()

    def _is_worth_a_line(self, run: Run) -> bool:
        if not run.doing and (self.pages % PAGES_A_LINE == 0 or not run.row.cursor):
            return True
        return self._was_quiet()

    def _was_quiet(self) -> bool:
        return time.monotonic() - self.written >= QUIET_FOR

    def _seconds(self) -> str:
        return f"{time.monotonic() - self.begun:6.1f} s"

    def _line(self, run: Run) -> str:
        row = run.row
        count = row.counts.get(row.step, {"listed": 0, "new": 0})
        numbers = f": {count['listed']:,} looked at, {count['new']:,} new" if row.step in row.counts else ""
        doing = f" · {run.doing}" if run.doing else ""
        return f"{self._seconds()}  {NAMES[row.step]}{numbers}{doing}"

    def _make_way(self, _: logging.LogRecord) -> bool:
        if self.is_terminal and self.step:
            self.output.write("\r\x1b[K", ending="")
            self.output.flush()
        return True

    def _end_line(self) -> None:
        if self.is_terminal and self.step:
            self.output.write("")
