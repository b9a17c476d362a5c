"""Finance's files from the command line: the same bytes as from the staff's page."""

import argparse
import os
import signal
import sys
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from donations import exports
from donations.models import Campaign
from donations.selectors.finance import FILES, Selection


def day(text: str) -> date:
    """A day such as 2024-11-01."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("write a day like 2024-11-01") from error


def _end_quietly() -> NoReturn:
    """End as a program does whose reader has read enough, `head` for one: without a word, by the shell's own number."""
    # Python writes out what is left at its end, and would complain then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(128 + signal.SIGPIPE)


class Command(BaseCommand):
    help = "Write one of finance's files as CSV: every movement of the ledger, or every gift with what became of it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the file and what is chosen of it."""
        parser.add_argument("file", choices=sorted(FILES), help="which file")
        parser.add_argument("--campaign", default="", help="of this campaign alone")
        parser.add_argument("--start", type=day, help="from this day on, in the campaign's time zone")
        parser.add_argument("--end", type=day, help="up to this day, which is not included")
        parser.add_argument("--output", type=Path, help="to this file; else to the standard output")
        parser.add_argument("--all-modes", action="store_true", help="both live and test rows, told apart by livemode")

    def handle(self, *args: Any, **options: Any) -> None:
        """Write the file."""
        campaign, start, end = options["campaign"], options["start"], options["end"]
        if campaign and not Campaign.objects.filter(pk=campaign).exists():
            raise CommandError(f"There is no campaign “{campaign}”.")
        if start and end and start >= end:
            raise CommandError("The period is empty: --end is the first day after it.")
        livemode = None if options["all_modes"] else settings.LIVEMODE
        selection = Selection(campaign=campaign, start=start, end=end, livemode=livemode)
        output: Path | None = options["output"]
        try:
            with output.open("wb") if output else nullcontext(sys.stdout.buffer) as target:
                for chunk in exports.stream(FILES[options["file"]], selection):
                    target.write(chunk)
                target.flush()
        except BrokenPipeError as error:
            if output:
                raise CommandError(f"The file could not be written: {error}") from error
            _end_quietly()
        except OSError as error:
            raise CommandError(f"The file could not be written: {error}") from error
