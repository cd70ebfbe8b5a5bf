"""Small commands: how long one takes, when its first output comes, how late each line is."""

import os
import subprocess
import time

import pairs
from line import Line
from problem import Broken
from rows.contest import FIRST_BYTE, Contest, compared, ours, over_ssh
from stage import Stage

LINES, PAUSE_MS = 200, 20


def true(stage: Stage, rounds: int) -> list[Line]:
    with stage.instance() as instance:
        sides = [
            over_ssh(stage, "ssh, cold", "cold", "/bin/true"),
            over_ssh(stage, "ssh, multiplexed", "kept", "/bin/true"),
            ours(stage.farm, "run", instance.name, "/bin/true"),
        ]
        contest = Contest.hold(stage, "run.true", sides, rounds, warm_ups=3)
    contest.line("`mote run I /bin/true`", "ssh, cold", "cold `ssh host true`")
    contest.line("`mote run I /bin/true`", "ssh, multiplexed", "multiplexed `ssh host true`")
    return contest.lines


def first_byte(stage: Stage, rounds: int) -> list[Line]:
    # It stays a while after the first byte: who waits for the end shows here.
    script = "echo first; sleep 0.2"
    with stage.instance() as instance:
        sides = [
            over_ssh(stage, "ssh, multiplexed", "kept", script, len("first\n")),
            ours(stage.farm, "run", instance.name, "/bin/sh", "-c", script, size=len("first\n")),
        ]
        contest = Contest.hold(stage, "run.first_byte", sides, rounds)
    contest.line("first byte of output", "ssh, multiplexed", "multiplexed ssh", FIRST_BYTE)
    return contest.lines


def lines(stage: Stage, rounds: int) -> list[Line]:
    """Sender and reader read the same machine's monotonic clock."""
    delays: dict[str, list[list[float]]] = {}
    with stage.instance() as instance:
        program = stage.farm.put_program(instance, stage.chatter)
        sides = [
            over_ssh(stage, "ssh, multiplexed", "kept", f"{instance.work / program} clock {LINES} {PAUSE_MS}"),
            ours(stage.farm, "run", instance.name, program, "clock", str(LINES), str(PAUSE_MS)),
        ]
        for number in range(-1, rounds):
            for side in sides:
                taken = _delays(side)
                if number >= 0:
                    delays.setdefault(side.name, []).append(taken)
    stage.records.append({"row": "lines", "delays_ms": delays})
    made = []
    for what, share in (("p50", 0.5), ("p99", 0.99)):
        theirs, our = ([pairs.quantile(run, share) for run in delays[side.name]] for side in sides)
        label = f"delay of a streamed line, {what}"
        made.append(stage.tell(compared("lines", label, "multiplexed ssh", "ms", our, theirs)))
    return made


def _delays(side: pairs.Side) -> list[float]:
    """Milliseconds from the moment a line is written to the moment we have it."""
    null = subprocess.DEVNULL
    found, rest = [], b""
    streams = {"stdin": null, "stdout": subprocess.PIPE, "stderr": null, "bufsize": 0}
    with subprocess.Popen(side.prepare(), env=side.env, **streams) as child:
        while part := os.read(child.stdout.fileno(), 65536):
            now = time.monotonic_ns()
            *whole, rest = (rest + part).split(b"\n")
            found += [(now - int(stamp)) / 1e6 for stamp in whole]
    if child.returncode != 0 or len(found) != LINES:
        raise Broken(f"{side.name}: exit status {child.returncode}, {len(found)} lines of {LINES}")
    return found
