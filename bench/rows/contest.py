"""What every row does: the product's side, the peers' sides, and lines from their samples."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pairs
from farm import Farm
from line import Line
from pairs import Samples, Side, Spread
from sample import Sample
from stage import Stage

OURS = "mote"


def ours(farm: Farm, *arguments: str, size: int | None = None) -> Side:
    return Side(OURS, pairs.always(*farm.command(*arguments)), farm.env, farm.servers, size=size)


def over_ssh(stage: Stage, name: str, host: str, remote: str, size: int | None = None) -> Side:
    """A command for the remote shell of one of our sshd's hosts."""
    return Side(name, pairs.always(*stage.ssh.ssh(host, remote)), stage.ssh.env, stage.ssh.servers, size=size)


@dataclass(frozen=True)
class Measure:
    """A figure of a sample."""

    of: Callable[[Sample], float]
    unit: str
    is_rate: bool = False


MILLISECONDS = Measure(lambda taken: taken.wall * 1000, "ms")
SECONDS = Measure(lambda taken: taken.wall, "s")
FIRST_BYTE = Measure(lambda taken: (taken.first or taken.wall) * 1000, "ms")
MEGABYTES = Measure(lambda taken: taken.size / 1e6 / taken.wall, "MB/s", is_rate=True)
CPU_PER_GB = Measure(lambda taken: taken.cpu / (taken.size / 1e9), "CPU s per GB")


@dataclass
class Contest:
    """A row under way."""

    stage: Stage
    row: str
    samples: Samples
    lines: list[Line] = field(default_factory=list)

    @classmethod
    def hold(cls, stage: Stage, row: str, sides: list[Side], rounds: int, **options) -> "Contest":
        samples = pairs.alternate(sides, rounds, **options)
        stage.record(row, samples)
        return cls(stage, row, samples)

    def line(
        self,
        what: str,
        beside: str,
        label: str,
        measure: Measure = MILLISECONDS,
        product: str = OURS,
        note: str = "",
    ) -> None:
        """One more line: the product against the side named `beside`, which the table calls `label`."""
        ours, theirs = ([measure.of(taken) for taken in self.samples[name]] for name in (product, beside))
        made = compared(self.row, what, label, measure.unit, ours, theirs, measure.is_rate, note)
        self.lines.append(self.stage.tell(made))


def compared(
    row: str,
    what: str,
    beside: str,
    unit: str,
    product: list[float],
    peer: list[float],
    is_rate: bool = False,
    note: str = "",
) -> Line:
    """A line from one figure a round and side."""
    ratio = pairs.ratios(product, peer)
    return Line(row, what, beside, ratio, Spread.of(product), Spread.of(peer), unit, is_rate, note)
