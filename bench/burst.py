"""Many commands at once: always the same number under way, until enough have been run."""

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import processes

PATIENCE = 180.0
"""Seconds for the whole burst; what still runs then is ended, and has failed."""

QUIET = [
    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
]


@dataclass(frozen=True)
class Burst:
    latencies: list[float]
    """Seconds, of each command that succeeded."""
    failed: int
    wall: float
    cpu: float
    """Seconds, of the commands and their servers."""

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.wall


def run(argv: list[str], env: dict[str, str], servers: Callable[[], list[int]], at_once: int, total: int) -> Burst:
    """`argv[0]` is an absolute path."""
    before = processes.tree(servers())
    poll = select.poll()
    # By descriptor, so that only these children are waited for, and each is told of at once.
    under_way: dict[int, tuple[int, float]] = {}
    latencies, failed, started, client_cpu = [], 0, 0, 0.0
    began = time.perf_counter()
    given_up = False
    try:
        while started < total or under_way:
            while started < total and len(under_way) < at_once:
                begin = time.perf_counter()
                pid = os.posix_spawn(argv[0], argv, env, file_actions=QUIET)
                descriptor = os.pidfd_open(pid)
                poll.register(descriptor, select.POLLIN)
                under_way[descriptor] = (pid, begin)
                started += 1
            for descriptor, _ in poll.poll(1000):
                ended = time.perf_counter()
                pid, begin = under_way.pop(descriptor)
                _, raw, usage = os.wait4(pid, 0)
                client_cpu += usage.ru_utime + usage.ru_stime
                poll.unregister(descriptor)
                os.close(descriptor)
                if raw == 0:
                    latencies.append(ended - begin)
                else:
                    failed += 1
            if not given_up and time.perf_counter() - began > PATIENCE:
                given_up = True
                failed += total - started
                started = total
                for descriptor in under_way:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except BaseException:
        for descriptor, (pid, _) in under_way.items():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    wall = time.perf_counter() - began
    after = processes.settled(servers(), before)
    return Burst(latencies, failed, wall, client_cpu + processes.cpu(after) - processes.cpu(before))
