"""A hundred runs at a time."""

from collections.abc import Callable
from dataclasses import asdict

import burst
import pairs
from burst import Burst
from line import Line
from problem import Broken
from rows.contest import OURS, compared, ours, over_ssh
from stage import Stage

AT_ONCE, TOTAL = 100, 500
PEER = "ssh, multiplexed"


def hundred(stage: Stage, rounds: int) -> list[Line]:
    bursts: dict[str, list[Burst]] = {PEER: [], OURS: []}
    with stage.instance() as instance:
        sides = [
            over_ssh(stage, PEER, "kept", "/bin/true"),
            ours(stage.farm, "run", instance.name, "/bin/true"),
        ]
        for number in range(-1, rounds):
            for side in sides:
                total = TOTAL if number >= 0 else AT_ONCE
                got = burst.run(side.prepare(), side.env, side.servers, AT_ONCE, total)
                if got.failed:
                    raise Broken(f"{side.name}: {got.failed} of {total} runs failed")
                if number >= 0:
                    bursts[side.name].append(got)
            stage.farm.forget_outputs()
    for name, taken in bursts.items():
        cpu = sum(one.cpu for one in taken) / sum(len(one.latencies) for one in taken)
        stage.say(f"    {name:<24} 0 of {len(taken) * TOTAL} failed; {cpu * 1000:.1f} CPU ms each, client and servers")
    shown = {name: [asdict(one) for one in taken] for name, taken in bursts.items()}
    stage.records.append({"row": "par100", "bursts": shown})

    def line(what: str, of: Callable[[Burst], float], unit: str, is_rate: bool = False) -> Line:
        product, peer = ([of(one) for one in bursts[name]] for name in (OURS, PEER))
        note = f"0 of {rounds * TOTAL} failed" if is_rate else ""
        return stage.tell(compared("par100", what, "multiplexed ssh", unit, product, peer, is_rate, note))

    return [
        line("100 concurrent runs, p50", lambda one: pairs.quantile(one.latencies, 0.5) * 1000, "ms"),
        line("100 concurrent runs, p99", lambda one: pairs.quantile(one.latencies, 0.99) * 1000, "ms"),
        line("100 concurrent runs, rate", lambda one: one.rate, "runs/s", is_rate=True),
    ]
