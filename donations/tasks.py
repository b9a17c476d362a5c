"""Celery shells over what the rooms below do. No task's loss matters: the tables are the queues."""

from celery import shared_task

from donations import inbox, outbox, watching
from donations import reconcile as reconciling


@shared_task(name="donations.drain")
def drain() -> None:
    """Process the inbox for up to 10 s."""
    inbox.drain(seconds=10)


@shared_task(name="donations.send_mail")
def send_mail() -> None:
    """Send what is due."""
    outbox.send_due()


@shared_task(name="donations.look_up")
def look_up() -> None:
    """Ask the processor for what events named and did not tell."""
    reconciling.look_up()


@shared_task(name="donations.reconcile")
def reconcile() -> None:
    """Fetch what was missed and compare both books, if that is due."""
    reconciling.tick()


@shared_task(name="donations.check_books")
def check_books() -> None:
    """Check every invariant of the books, unless another process does."""
    watching.check_books_if_due()


@shared_task(name="donations.watch")
def watch() -> None:
    """Tell staff of what needs them."""
    watching.look()
