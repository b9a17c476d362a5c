"""Reconciliations in the middle of the world, with whatever else happens between two of their pages."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from donations import reconcile
from donations.models import InboxEvent, Reconciliation

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE_AND_MORE = timedelta(minutes=2)
LISTED_FOR = timedelta(days=25)  # and some days more, at the processor


class Killed(Exception):
    """The process that reconciles is gone."""


class Reconciliations:
    """The real runs, over HTTP. `wrong` is what they did not find, could not explain, or did though they may not."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.wrong: list[str] = []

    def run(self, since: datetime | None = None) -> Reconciliation:
        """From its beginning to its end, and nothing in between."""
        return reconcile.run(since=since, rest=lambda _: None)

    def look_up(self) -> None:
        """What events named and did not tell is asked for."""
        reconcile.look_up()

    def run_in_the_middle(self) -> None:
        """It may be killed, and is then gone on with by the next; or taken for dead, and be overtaken by another."""
        self.overtaken = False
        try:
            with self.world.crew.at_work(batches=20):
                row = reconcile.run(rest=lambda _: None, tell=self._meanwhile)
        except Killed:
            self.world.done["reconcile killed"] += 1
        except reconcile.LostLease:
            self.world.done["reconcile overtaken"] += 1
        else:
            self._heed(row)
            if self.overtaken:
                self.wrong.append("a reconciliation went on though another had taken it up")

    def _heed(self, row: Reconciliation) -> None:
        """It explains all that it finds, and has found whatever was lost in its time."""
        self.world.done["reconcile"] += 1
        self.wrong += [str(each) for each in row.differences if not each["explained"]]
        first = max(row.since, datetime.now(UTC) - LISTED_FOR).timestamp()
        lost = [event for event, made in self.world.lost.items() if first <= made < row.started_at.timestamp()]
        found = set(InboxEvent.objects.filter(event_id__in=lost).values_list("event_id", flat=True))
        self.wrong += [f"{event} was lost, and no reconciliation found it" for event in lost if event not in found]

    def _meanwhile(self, run: reconcile.Run) -> None:
        how = self.world.rng.random()
        if run.row.finished_at or self.overtaken:
            return
        if how < 0.2:
            self.world.deliver_due(at_most=self.world.rng.randint(1, 50))
            self.world.crew.work()
        elif how < 0.25:
            self.world.staff_act()
        elif how < 0.28:
            raise Killed
        elif how < 0.3:
            self._start_a_second()
        elif how < 0.32:
            self.overtaken = True
            self.world.move_clock(LEASE_AND_MORE)
            self._heed(self.run())

    def _start_a_second(self) -> None:
        try:
            self.run()
        except reconcile.Busy:
            self.world.done["reconcile busy"] += 1
        else:
            self.wrong.append("two reconciliations ran at once")
