"""What a comparison of stored projections with the ledger finds."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Drift:
    """A stored row that differs from what the ledger says. `stored` or `rebuilt` is None where a row is missing."""

    table: str
    key: str
    stored: dict[str, Any] | None
    rebuilt: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{self.table} {self.key}: stored {self.stored}, rebuilt {self.rebuilt}"
