"""Contestants taking turns, and how they compare round by round.

The machine's speed drifts and others use it: only what ran side by side is compared, and the ratio
is formed in each round before anything is averaged.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import sample
from problem import Broken
from sample import Sample


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Side:
    """A contestant."""

    name: str
    prepare: Callable[[], list[str]]
    """Untimed, before each run; gives the command."""
    env: dict[str, str]
    servers: Callable[[], list[int]]
    """The roots of the process trees that serve it. Asked after `prepare`."""
    check: Callable[[], None] = _nothing
    """Untimed, after each run; raises Broken."""
    size: int | None = None
    """How many bytes of output there must be."""


def always(*argv: str) -> Callable[[], list[str]]:
    """A command that needs nothing prepared."""
    return lambda: list(argv)


Samples = dict[str, list[Sample]]


def alternate(
    sides: list[Side],
    rounds: int,
    each_round: Callable[[int], None] = lambda _: None,
    warm_ups: int = 1,
    same_output: bool = False,
) -> Samples:
    """Every side once a round, in order. Warm-up rounds are not counted; with `same_output` the
    sides' bytes are hashed and compared there."""
    taken: Samples = {side.name: [] for side in sides}
    for number in range(-warm_ups, rounds):
        each_round(number)
        digests = {}
        for side in sides:
            got = _one(side, digest=same_output and number < 0)
            if number >= 0:
                taken[side.name].append(got)
            digests[side.name] = got.digest
        if same_output and len(set(digests.values())) > 1:
            raise Broken(f"the outputs differ: {digests}")
    return taken


def _one(side: Side, digest: bool) -> Sample:
    argv = side.prepare()
    got = sample.take(argv, side.env, side.servers(), digest)
    if got.status != 0:
        raise Broken(f"{side.name}: exit status {got.status}: {got.errors.strip() or 'it said nothing'}")
    if side.size is not None and got.size != side.size:
        raise Broken(f"{side.name}: {got.size} bytes of output instead of {side.size}")
    side.check()
    return got


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))


def ratios(product: list[float], peer: list[float]) -> Spread:
    """Product over peer, pair by pair."""
    return Spread.of([ours / theirs for ours, theirs in zip(product, peer, strict=True)])


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of them lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
