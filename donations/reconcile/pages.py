"""A comparison as it goes on: page by page down the processor's list, and the last word at its end."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from donations import processors
from donations.processors.base import Malformed, Page, Processor, ProcessorRefused
from donations.processors.facts import TransactionSeen, fact_from_json, fact_to_json
from donations.reconcile import comparison
from donations.reconcile.comparison import MOST_DIFFERENCES, Place
from donations.reconcile.runs import Rest, read_since
from donations.reconcile.sweep import patiently
from donations.reconcile.verdicts import CORRECTED, Verdict, add, as_json

Json = dict[str, Any]
MOST_OPEN = 1000
MOST_ASKED = 50
AT_ONCE = 100


@dataclass(slots=True)
class Comparison:
    """Where a comparison stands. `state` is JSON: stored after each page, it is gone on with after a kill.

    The processor's list is read from `since` on; `until` is when that began. What differs stays open until the end: it
    may be explained by what is fetched yet. `asks`: whether what nobody told us is queued to be asked for. `show` is
    told in words how far the last word is, often enough for a run to hold its lease by it.
    """

    processor: str
    since: datetime
    until: datetime
    state: Json = field(default_factory=dict)
    differences: list[Json] = field(default_factory=list)
    asks: bool = True
    show: Callable[[str], object] = lambda _: None

    @property
    def source(self) -> Processor:
        return processors.get(self.processor)

    @property
    def sums(self) -> Json:
        """The sums of both sides, by currency and type."""
        found: Json = self.state.get("sums", {})
        return found

    @property
    def found(self) -> int:
        """How many differences there are; not all of them are kept."""
        return int(self.state.get("found", 0))

    @property
    def unexplained(self) -> int:
        """How many of them have no known cause."""
        return int(self.state.get("unexplained", 0))

    def page(self, page: Page) -> None:
        """Compare the movements on a page of the processor's list."""
        facts = self._movements(page)
        verdicts = self._judged(facts)
        waiting: list[Json] = self.state.get("open", [])
        opened = [fact for fact, verdict in zip(facts, verdicts, strict=True) if verdict.is_open]
        opened = opened[: max(0, MOST_OPEN - len(waiting))]
        kept = {fact.transaction for fact in opened}
        self._settle([verdict for verdict in verdicts if verdict.reference not in kept])
        self.state["open"] = waiting + [fact_to_json(fact) for fact in opened]
        self._look_for_ours(facts, is_last=not page.cursor)

    def conclude(self, rest: Rest) -> None:
        """The last word on what was open, and on what only our side has."""
        facts = [fact for fact in map(fact_from_json, self.state.pop("open", [])) if isinstance(fact, TransactionSeen)]
        self._settle(self._judged(facts))
        self.show("what our side alone has")
        alone = comparison.without_movement(
            self.processor,
            since=self.since,
            until=self.until,
            read_since=read_since(self.processor, self.since),
            livemode=self.source.livemode,
        )
        extra = self._unknown_there(self.state.pop("extra", []), rest)
        alone += [comparison.kept_alone(self.processor, reference) for reference in extra]
        # What was not kept, as nothing is by a look alone, may have been on a page, and in its sum.
        self._settle([each for each in alone if self.asks or each.is_open])
        self.differences.sort(key=lambda each: (each["explained"], each["cause"] == CORRECTED.name))

    def _movements(self, page: Page) -> list[TransactionSeen]:
        found = []
        for body in [row.body for row in page.sightings if row.type == "sweep.balance_transaction"]:
            with suppress(Malformed):  # the inbox has it, too, and quarantines it with the reason
                fact = self.source.interpret(body).fact
                if isinstance(fact, TransactionSeen):
                    found.append(fact)
        return found

    def _judged(self, facts: list[TransactionSeen]) -> list[Verdict]:
        found: list[Verdict] = []
        for start in range(0, len(facts), AT_ONCE):
            found += comparison.judge(self.processor, facts[start : start + AT_ONCE], asks=self.asks)
            self.show(f"{len(found):,} of {len(facts):,} compared")
        return found

    def _settle(self, verdicts: list[Verdict]) -> None:
        self.state["sums"] = add(self.sums, verdicts)
        self._keep(verdicts)

    def _keep(self, verdicts: list[Verdict]) -> None:
        opened = [as_json(each) for each in comparison.corrected(verdicts) if each.is_open]
        self.state["found"] = self.found + len(opened)
        self.state["unexplained"] = self.unexplained + sum(not each["explained"] for each in opened)
        self.differences += opened[: max(0, MOST_OPEN - len(self.differences))]

    def _look_for_ours(self, facts: list[TransactionSeen], *, is_last: bool) -> None:
        before = self.state.get("place")
        place = Place(datetime.fromisoformat(before["until"]), frozenset(before["carried"])) if before else None
        extra, place = comparison.not_listed(
            self.processor, facts, since=self.since, place=place, is_last=is_last, livemode=self.source.livemode
        )
        self.state["extra"] = (self.state.get("extra", []) + extra)[:MOST_ASKED]
        self.state["place"] = {"until": place.until.isoformat(), "carried": sorted(place.carried)}

    def _unknown_there(self, references: list[str], rest: Rest) -> list[str]:
        """Of what no page listed, what the processor does not know either: some came while we listed."""
        return [reference for reference in references if not self._is_known_there(reference, rest)]

    def _is_known_there(self, reference: str, rest: Rest) -> bool:
        self.show(f"asking for {reference}, which no list had")
        try:
            patiently(lambda: self.source.look_up("balance_transaction", reference), rest)
        except ProcessorRefused:
            return False
        return True

    def shown(self) -> list[Json]:
        """The differences that are kept, the unexplained first."""
        return self.differences[:MOST_DIFFERENCES]
