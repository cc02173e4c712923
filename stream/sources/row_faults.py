"""What is wrong with the rows of a table: the first fault of each."""

from collections.abc import Callable

import msgspec
import polars as pl


class Faults(msgspec.Struct, frozen=True):
    """By row: a fault in general, and the reason in full; null where the row is good."""

    fault: pl.Series
    reason: pl.Series

    @classmethod
    def of(cls, rows: int) -> "Faults":
        """No fault in that many rows."""
        nothing = pl.Series([None], dtype=pl.String).new_from_index(0, rows)
        return cls(nothing, nothing)

    def plus(self, bad: pl.Series, fault: str, reason: str | Callable[[int], str]) -> "Faults":
        """With the fault of the rows (Boolean) that have none yet; `reason` may depend on the row's number."""
        rows = (bad & self.fault.is_null()).arg_true()
        if not len(rows):
            return self
        reasons = pl.Series([reason if isinstance(reason, str) else reason(row) for row in rows], dtype=pl.String)
        # scatter changes its series, hence the clones
        return Faults(self.fault.clone().scatter(rows, fault), self.reason.clone().scatter(rows, reasons))

    def table(self) -> pl.DataFrame:
        """As columns fault and reason."""
        return pl.DataFrame({"fault": self.fault, "reason": self.reason})
