"""What an instance costs the servers while nobody uses it."""

import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict

import processes
from farm import Farm
from line import Line
from processes import Memory
from problem import Broken
from rows.contest import compared
from stage import Stage

COUNT = 20
SETTLE = 1.0
"""Seconds for allocators and page counts to come to rest."""


def _memory(pids: Iterable[int]) -> Memory:
    found = (processes.memory(pid) for pid in pids)
    return sum((one for one in found if one), Memory(0, 0))


def instances(stage: Stage, rounds: int) -> list[Line]:
    """Beside a connection that holds an idle command, the command itself left out."""
    product, peer = [], []
    for number in range(-1, rounds):
        theirs, ours = _connections(stage), _instances(stage)
        if number >= 0:
            peer.append(theirs)
            product.append(ours)
    if any(one.pss is None for one in product + peer):
        raise Broken("the kernel does not show these processes' PSS to this user: run it as root")
    shown = {"product": [asdict(one) for one in product], "peer": [asdict(one) for one in peer]}
    stage.records.append({"row": "idle", "kib": shown})
    lines = []
    for kind in ("pss", "rss"):
        mib = [[getattr(one, kind) / 1024 for one in side] for side in (product, peer)]
        what = f"idle instance, {kind.upper()}"
        lines.append(stage.tell(compared("idle", what, "an idle ssh connection's sshd", "MiB", *mib)))
    return lines


def _instances(stage: Stage) -> Memory:
    """Growth of everything the coordinator has started and of itself, for one instance: its keeper, the
    sandbox's own process, and what buildlet and coordinator keep of it."""
    # Of its own: one that has worked for other rows has memory to spare, and would not seem to grow.
    farm = Farm(stage.programs, stage.fresh("farm"))
    try:
        first = farm.create()
        time.sleep(SETTLE)
        before = processes.tree(farm.servers())
        servers = _memory(before)
        leased = [farm.create() for _ in range(COUNT)]
        time.sleep(SETTLE)
        after = processes.tree(farm.servers())
        keepers, grown = _memory(after.keys() - before.keys()), _memory(before)
        farm.destroy(first, *leased)
    finally:
        farm.stop()
    for kind, total in (("PSS", lambda m: m.pss or 0), ("RSS", lambda m: m.rss)):
        stage.say(
            f"    {kind} for each of {COUNT} idle instances: keeper and sandbox {total(keepers) / COUNT:.0f} KiB,"
            f" growth of all that ran before {(total(grown) - total(servers)) / COUNT:.0f} KiB"
        )
    return _each(servers, keepers + grown)


def _connections(stage: Stage) -> Memory:
    ssh = stage.ssh
    before = _memory(processes.tree(ssh.daemon()))
    null = subprocess.DEVNULL
    clients = []
    try:
        for _ in range(COUNT):
            hold = ssh.ssh("cold", "echo up; exec sleep 3600")
            clients.append(subprocess.Popen(hold, env=ssh.env, stdin=null, stdout=subprocess.PIPE, stderr=null))
        for client in clients:
            if client.stdout.readline() != b"up\n":
                raise Broken("an idle ssh connection could not be made")
        time.sleep(SETTLE)
        members = processes.tree(ssh.daemon())
        after = _memory(pid for pid in members if processes.name(pid) != "sleep")
    finally:
        for client in clients:
            client.terminate()
        for client in clients:
            client.wait()
            client.stdout.close()
    processes.settled(ssh.daemon(), {pid: members[pid] for pid in ssh.daemon()}, 3.0)
    return _each(before, after)


def _each(before: Memory, after: Memory) -> Memory:
    pss = None if before.pss is None or after.pss is None else (after.pss - before.pss) // COUNT
    return Memory((after.rss - before.rss) // COUNT, pss)
