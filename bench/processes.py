"""Processes by `/proc`: trees of them, their processor time and memory. Ends only what it is told to, by id."""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    cpu: float
    """Seconds, its own and those of children it has reaped; in ticks of 10 ms."""


def living() -> dict[int, Process]:
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text(errors="replace")
        except OSError:
            continue  # it ended meanwhile
        # The name stands in parentheses and may hold any character; what follows the last one does not.
        fields = text[text.rindex(")") + 2 :].split()
        user, system, children_user, children_system = map(int, fields[11:15])
        ticks = user + system + children_user + children_system
        found[int(entry)] = Process(int(entry), int(fields[1]), ticks / TICK)
    return found


def tree(roots: list[int]) -> dict[int, Process]:
    """The roots that live, and all that descends from them."""
    everybody = living()
    children: dict[int, list[int]] = {}
    for process in everybody.values():
        children.setdefault(process.parent, []).append(process.pid)
    members, todo = {}, list(roots)
    while todo:
        pid = todo.pop()
        if pid in everybody and pid not in members:
            members[pid] = everybody[pid]
            todo.extend(children.get(pid, []))
    return members


def cpu(members: dict[int, Process]) -> float:
    return sum(process.cpu for process in members.values())


def settled(roots: list[int], before: dict[int, Process], patience: float = 1.0) -> dict[int, Process]:
    """The tree once it has no member it did not have before: what a request started there has been
    reaped, and its time counted. After `patience` seconds, the tree as it is."""
    until = time.monotonic() + patience
    while True:
        members = tree(roots)
        if members.keys() <= before.keys() or time.monotonic() > until:
            return members
        time.sleep(0.003)


@dataclass(frozen=True)
class Memory:
    """KiB. `pss` is None where the kernel does not let us see it."""

    rss: int
    pss: int | None

    def __add__(self, other: "Memory") -> "Memory":
        pss = None if self.pss is None or other.pss is None else self.pss + other.pss
        return Memory(self.rss + other.rss, pss)


def memory(pid: int) -> Memory | None:
    """None for a process that has ended."""
    try:
        rss = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_KIB
    except OSError:
        return None
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return Memory(rss, None)
    return Memory(rss, sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")))


def peak_mib(pid: int) -> float:
    """The most that was resident since its start."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def mentioning(path: Path) -> list[int]:
    """Living processes in whose arguments the path stands."""
    return [pid for pid in living() if any(str(path) in argument for argument in arguments(pid))]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def end(pid: int, patience: float = 15.0) -> None:
    """SIGTERM, and SIGKILL for what ignores it. Children of ours still have to be waited for."""
    for how, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not is_alive(pid):
                return
            time.sleep(0.01)


def machine_busy() -> float:
    """Seconds of processor time this machine has spent on anything since it started."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    return (user + nice + system + irq + softirq) / TICK
