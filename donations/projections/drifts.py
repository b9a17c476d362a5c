"""What a comparison of stored projections with the ledger finds."""

from dataclasses import dataclass
from typing import Any

from donations import money

COUNTS = frozenset({"gifts", "refunds", "awaiting_gifts", "followers"})


@dataclass(frozen=True, slots=True)
class Drift:
    """A stored row that differs from what the ledger says. `stored` or `rebuilt` is None where a row is missing.

    Whole numbers in them are minor units of `currency`, but COUNTS.
    """

    table: str
    key: str
    currency: str
    stored: dict[str, Any] | None
    rebuilt: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{self.table} {self.key}: {self.words}"

    @property
    def words(self) -> str:
        """What is stored otherwise than it comes to, figure by figure."""
        stored, rebuilt = self.stored or {}, self.rebuilt or {}
        values = {name: (stored.get(name), rebuilt.get(name)) for name in stored | rebuilt}
        return "; ".join(
            self._differs(name, *both)
            for name, both in values.items()
            if (both[0] or None) != (both[1] or None)  # what is missing is as good as nothing
        )

    def _differs(self, name: str, was: Any, comes_to: Any) -> str:
        is_, comes = ("are", "come") if name in COUNTS else ("is", "comes")
        stored, rebuilt = self._shown(name, was), self._shown(name, comes_to)
        return f"its {name.replace('_', ' ')} {is_} stored as {stored}, and {comes} to {rebuilt}"

    def _shown(self, name: str, value: Any) -> str:
        if not isinstance(value, int) or isinstance(value, bool):
            return f"{value if value is False else value or '(none)'}"
        return f"{value:,}" if name in COUNTS else money.with_code(value, self.currency)
