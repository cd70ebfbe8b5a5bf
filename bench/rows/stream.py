"""Much output: one large file, and many small writes."""

from line import Line
from rows.contest import CPU_PER_GB, MEGABYTES, Contest, ours, over_ssh
from pairs import Side
from stage import Stage

GIB = 1 << 30
LINES, LINE_BYTES = 300_000, 100


def one_gib(stage: Stage, rounds: int) -> list[Line]:
    with stage.instance() as instance:
        # Made there, so nothing is measured but the way out; both sides read this very file.
        stage.farm.mote("run", instance.name, "/bin/sh", "-c", f"head -c {GIB} /dev/urandom >big")
        read = f"cat {instance.work}/big"
        sides = [
            over_ssh(stage, "ssh, default cipher", "kept", read, GIB),
            over_ssh(stage, "ssh, aes128-gcm", "kept-gcm", read, GIB),
            ours(stage.farm, "run", instance.name, "/bin/cat", "big", size=GIB),
        ]
        contest = Contest.hold(stage, "stream.1g", sides, rounds, each_round=_forgetting(stage), same_output=True)
    for name in ("ssh, default cipher", "ssh, aes128-gcm"):
        contest.line("1 GiB of output", name, name, MEGABYTES)
    for name in ("ssh, default cipher", "ssh, aes128-gcm"):
        contest.line("1 GiB of output, CPU of client and servers", name, name, CPU_PER_GB)
    return contest.lines


def small(stage: Stage, rounds: int) -> list[Line]:
    size = LINES * LINE_BYTES
    with stage.instance() as instance:
        program = stage.farm.put_program(instance, stage.chatter)
        sides: list[Side] = [
            over_ssh(stage, "ssh, default cipher", "kept", f"{instance.work / program} lines {LINES}", size),
            ours(stage.farm, "run", instance.name, program, "lines", str(LINES), size=size),
        ]
        contest = Contest.hold(stage, "stream.small", sides, rounds, each_round=_forgetting(stage), same_output=True)
    contest.line("300,000 lines written one by one", "ssh, default cipher", "multiplexed ssh", MEGABYTES)
    contest.line("300,000 lines, CPU of all with the writer's", "ssh, default cipher", "multiplexed ssh", CPU_PER_GB)
    return contest.lines


def _forgetting(stage: Stage):
    """The client keeps a file of each run's output: a gigabyte a round."""
    return lambda _round: stage.farm.forget_outputs()
