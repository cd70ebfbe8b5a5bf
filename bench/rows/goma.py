"""mote-bridge before the farm: what it adds to a compile, what it carries, what it holds."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge import Bridge
from farm import Farm
from line import Line, number
from pairs import Spread
from problem import Broken, Missing
from rows.contest import compared
from stage import Stage

UNITS = 60
"""Of 300 inputs each, of which most are shared."""
ALONE = 600
"""Cached compiles of a round, one after the other."""
TOGETHER = 3000
IN_FLIGHT = 64
MIB = 1 << 20
LARGE = 8 * MIB
ENTRIES = 1_000_000

# What is aimed at: a bound is no peer, but there is none.
MEMORY_MIB = 150.0
READY_MS = 1000.0


def _client() -> str:
    path = Path(__file__).resolve().parents[2] / "target" / "release" / "examples" / "goma_load"
    if not path.is_file():
        raise Missing("goma_load: build it with `cargo build --release -p motefarm-bridge --example goma_load`")
    return str(path)


def must_have() -> None:
    _client()


def _load(*what: object) -> dict[str, float]:
    """What the client measured."""
    argv = [_client(), *map(str, what)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if ran.returncode != 0:
        raise Broken(f"{' '.join(argv[1:])}: {ran.stderr.strip()[-300:]}")
    return json.loads(ran.stdout)


def _url(farm: Farm) -> str:
    return farm.mote("reapi", "url").strip()


@contextmanager
def _bridge(stage: Stage, farm: Farm, entries_of: Path | None = None) -> Iterator[Bridge]:
    bridge = Bridge(stage.programs, stage.fresh("bridge"), _url(farm), entries_of)
    try:
        yield bridge
    finally:
        bridge.stop()


def hit(stage: Stage, rounds: int) -> list[Line]:
    """Cached compiles one by one. The server's own time is that of the same calls made to it directly."""
    through, direct = [], []
    with _bridge(stage, stage.farm) as bridge:
        _load("cold", bridge.address, UNITS, 8)
        for turn in range(rounds + 1):
            asked = _load("warm", bridge.address, UNITS, ALONE, 1)
            server = _load("direct", bridge.address, UNITS, ALONE, 1, _http(stage))
            if turn > 0:
                through.append(asked["p50_ms"])
                direct.append(server["p50_ms"])
    added = Spread.of([a - b for a, b in zip(through, direct, strict=True)])
    note = f"{number(added.median)} ms more ({number(added.least)}–{number(added.most)})"
    what = "cached compile of 300 inputs, p50 of one at a time"
    return [stage.tell(compared("goma.hit", what, "the server's calls alone", "ms", through, direct, note=note))]


def rate(stage: Stage, rounds: int) -> list[Line]:
    through, direct, p99s, costs = [], [], [], []
    with _bridge(stage, stage.farm) as bridge:
        _load("cold", bridge.address, UNITS, 8)
        for turn in range(rounds + 1):
            before = bridge.cpu()
            asked = _load("warm", bridge.address, UNITS, TOGETHER, IN_FLIGHT)
            cost = (bridge.cpu() - before) * 1000 / (TOGETHER + UNITS)
            server = _load("direct", bridge.address, UNITS, TOGETHER, IN_FLIGHT, _http(stage))
            if turn > 0:
                through.append(asked["rate"])
                direct.append(server["rate"])
                p99s.append(asked["p99_ms"])
                costs.append(cost)
        peak = bridge.peak_mib()
    p99, cost = Spread.of(p99s), Spread.of(costs)
    note = (
        f"p99 {number(p99.median)} ms (most {number(p99.most)}), {number(cost.median)} ms of the bridge's processor time"
        f" each, at most {number(peak)} MiB resident"
    )
    what = f"cached compiles of 300 inputs, {IN_FLIGHT} in flight"
    line = compared("goma.rate", what, "the server's calls alone", "a second", through, direct, is_rate=True, note=note)
    return [stage.tell(line)]


def _http(stage: Stage) -> str:
    return _url(stage.farm).replace("grpc://", "http://")


def cold(stage: Stage, rounds: int) -> list[Line]:
    """What goes to an empty server, of clients that share most of their headers and ask at the same time."""
    sent, distinct, seconds, messages = [], [], [], []
    for _ in range(rounds):
        farm = Farm(stage.programs, stage.fresh("farm"))
        try:
            with _bridge(stage, farm) as bridge:
                built = _load("cold", bridge.address, UNITS, IN_FLIGHT)
                sent.append(bridge.metric("sent_content_bytes") / 1e6)
                messages.append(bridge.metric("sent_message_bytes") / 1e6)
        finally:
            farm.stop()
        distinct.append(built["bytes"] / 1e6)
        seconds.append(built["seconds"])
    note = (
        f"and {number(Spread.of(messages).median)} MB of directories, commands and actions;"
        f" {number(Spread.of(seconds).median)} s"
    )
    what = f"cold build of {UNITS} × 300 inputs, {IN_FLIGHT} in flight, content sent to the server"
    return [stage.tell(compared("goma.cold", what, "each content once", "MB", sent, distinct, note=note))]


def memory(stage: Stage, rounds: int) -> list[Line]:
    peaks = []
    for _ in range(rounds):
        with _bridge(stage, stage.farm) as bridge:
            _load("large", bridge.address, IN_FLIGHT, LARGE)
            peaks.append(bridge.peak_mib())
    what = f"{IN_FLIGHT} requests of {LARGE // MIB} MiB at once, most memory resident"
    return [stage.tell(compared("goma.memory", what, "what is aimed at", "MiB", peaks, [MEMORY_MIB] * rounds))]


def ready(stage: Stage, rounds: int) -> list[Line]:
    full, empty = [], []
    for _ in range(rounds):
        entries = stage.fresh("map")
        _load("map", entries, ENTRIES)
        with _bridge(stage, stage.farm, entries) as bridge:
            full.append(bridge.ready_after * 1000)
        with _bridge(stage, stage.farm) as bridge:
            empty.append(bridge.ready_after * 1000)
    note = f"{number(Spread.of(empty).median)} ms with an empty one"
    what = "start with a map of a million entries, until it serves"
    return [stage.tell(compared("goma.ready", what, "what is aimed at", "ms", full, [READY_MS] * rounds, note=note))]
