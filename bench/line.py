"""A line of the table of results, and how it is written."""

import math
from dataclasses import dataclass

from pairs import Spread


@dataclass(frozen=True)
class Line:
    row: str
    what: str
    beside: str
    ratio: Spread | None
    """Product over peer; None when the row failed."""
    product: Spread | None = None
    peer: Spread | None = None
    unit: str = ""
    is_rate: bool = False
    """More is better. Otherwise less is."""
    note: str = ""
    failure: str = ""

    def cell(self) -> str:
        if self.ratio is None:
            return f"FAILED: {' '.join(self.failure.split())[:300]}"
        of = " of its rate" if self.is_rate else ""
        text = f"{number(self.ratio.median)}{of} ({number(self.ratio.least)}–{number(self.ratio.most)})"
        if self.product and self.peer:
            text += f"; {number(self.product.median)} {self.unit} against {number(self.peer.median)}"
        return f"{text}; {self.note}" if self.note else text

    def as_json(self) -> dict:
        spread = lambda s: None if s is None else {"median": s.median, "min": s.least, "max": s.most}  # noqa: E731
        return {
            "row": self.row,
            "what": self.what,
            "beside": self.beside,
            "ratio": spread(self.ratio),
            "product": spread(self.product),
            "peer": spread(self.peer),
            "unit": self.unit,
            "better": "higher" if self.is_rate else "lower",
            "note": self.note,
            "failure": self.failure or None,
        }


def number(value: float) -> str:
    """Two digits that mean something: 0.040, 0.91, 2.35, 41, 1200."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    magnitude = math.floor(math.log10(abs(value)))
    return f"{value:.{2 if magnitude == 0 else max(0, 1 - magnitude)}f}"


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def markdown(lines: list[Line]) -> str:
    """The table; a cell that repeats the one above is left empty."""
    rows, above = ["| What | beside | ratio |", "|---|---|---|"], ""
    for line in lines:
        what = "" if line.what == above else line.what
        above = line.what
        rows.append(f"| {escaped(what)} | {escaped(line.beside)} | {escaped(line.cell())} |")
    return "\n".join(rows)
