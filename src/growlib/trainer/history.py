"""History: what happened in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


class History:
    """What happened in a run, as plain values.

    Args:
        records: One dict an epoch.
        changes: One dict a structural change: the fields of Change, and the epoch.
        losses: The training loss of every optimizer step.
        readings: One dict a signal, layer and step at which somebody asked: step, layer, signal, value.
        starts: The step at which every task began.
    """

    def __init__(self, records=(), changes=(), losses=(), readings=(), starts=()):
        self.records, self.changes, self.losses = list(records), list(changes), list(losses)
        self.readings, self.starts = list(readings), list(starts)

    def log(self, step: int, **values):
        """Adds values to the record of this step, which is made if it is not there."""
        if not self.records or self.records[-1]["step"] != step:
            self.records.append({"step": step})
        self.records[-1].update(values)

    def column(self, name: str, since: int = -1) -> list[float]:
        """The values of a column in the records after a step."""
        if self.records and not any(name in record for record in self.records):
            known = sorted({key for record in self.records for key in record})
            raise ValueError(f"no column {name!r} in History: there are {', '.join(known)}")
        return [record[name] for record in _after(self.records, since) if name in record]

    def read(self, signal: str, layer: str, since: int = -1) -> list[float]:
        """What a signal said of a layer after a step, in order."""
        return [
            reading["value"]
            for reading in _after(self.readings, since)
            if reading["signal"] == signal and reading["layer"] == layer
        ]

    def frame(self) -> pd.DataFrame:
        """The records as a table; the widths in columns such as `widths.hidden1`."""
        import pandas as pd

        return pd.json_normalize(self.records)

    def state_dict(self) -> dict:
        return dict(vars(self))

    def load_state_dict(self, state: dict):
        self.__init__(**state)

    def __repr__(self) -> str:
        last = self.records[-1] if self.records else {}
        values = ", ".join(f"{name} {last[name]:.4f}" for name in ("val_loss", "val_accuracy") if name in last)
        return f"History({len(self.records)} epochs, {len(self.losses)} steps, {len(self.changes)} changes; {values})"


def _after(rows: list[dict], step: int) -> list[dict]:
    """The rows after a step; they are in its order, so only these are looked at."""
    start = len(rows)
    while start and rows[start - 1]["step"] > step:
        start -= 1
    return rows[start:]
