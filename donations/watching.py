"""Watch over the site: run the checks that are due, and tell staff of what needs a person.

Called by Celery's beat, by the ticker where there is no Redis or its workers are away, and by `manage.py check_books`.
Any number of processes may call it: each check is claimed by one.
"""

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from django.utils import timezone

from donations import health, inbox, invariants, processors
from donations.health import Result
from donations.invariants import Finding
from donations.models import CheckResult
from donations.selectors import health as wellbeing

log = logging.getLogger(__name__)
Kind = CheckResult.Kind
OVERDUE = timedelta(minutes=10)


def check_books(tell: Callable[[Finding], object] | None = None) -> Result:
    """Check every invariant now, tell each finding as it comes, and store the result that staff see.

    What this version reads and the one before did not is read again first: else it would be held against what that one
    made of it. A check that cannot be ended is stored as a finding, beside those that it came to, before its error is
    raised.
    """
    tally: Counter[str] = Counter()
    number = 0
    words: list[str] = []
    try:
        inbox.read_newly_known(processors.default().name)
        for finding in invariants.check(tally):
            number += 1
            if len(words) < health.WORDS_KEPT:
                words.append(str(finding))
                log.error("the books are not equal: %s", finding)
            if tell:
                tell(finding)
    except Exception as error:
        unended = (
            f"The check could not be ended: {type(error).__name__}. Run manage.py check_books, and read the error."
        )
        health.keep(Kind.BOOKS, Result(findings=number + 1, words=(unended, *words), checked=dict(tally)))
        raise
    result = Result(findings=number, words=tuple(words), checked=dict(tally))
    health.keep(Kind.BOOKS, result)
    return result


def check_books_if_due() -> bool:
    """Check the books unless that was done within ten minutes, or another process is at it; whether it was done now."""
    if not health.claim(Kind.BOOKS):
        return False
    with health.held(Kind.BOOKS):
        check_books()
    return True


def was_ever_checked() -> bool:
    """Whether anybody, worker or command, has ever had the books checked here."""
    return CheckResult.objects.filter(kind=Kind.BOOKS).exists()


def is_left_lying() -> bool:
    """Whether a check is overdue: whoever should watch is away, with Redis perhaps. Until the first one, nobody is."""
    return CheckResult.objects.filter(kind=Kind.BOOKS, due_at__lt=timezone.now() - OVERDUE).exists()


def look() -> None:
    """Learn once an hour how often the processor calls, and begin and end alerts."""
    if health.claim(Kind.DELIVERIES):
        health.keep(Kind.DELIVERIES, Result(findings=0, longest_gap=wellbeing.longest_gap()))
    look_at_troubles()


def look_at_troubles() -> None:
    """Begin and end alerts now: a few rows by their indexes, for who has just decided what was a trouble before."""
    health.note(wellbeing.troubles(wellbeing.health()))
