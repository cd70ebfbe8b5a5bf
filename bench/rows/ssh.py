"""The farm's ssh gateway beside the system's sshd, both used by the system's OpenSSH."""

import shutil
import subprocess
import time
from pathlib import Path

import corpus
import listing
import processes
import sshd
from farm import Farm, Instance
from line import Line
from listing import Listing
from pairs import Side
from problem import Broken
from processes import Memory
from rows.contest import OURS, SECONDS, Contest, compared, ours, over_ssh
from sshd import Sshd
from stage import Stage

GIB = 1 << 30
PEER = "sshd"
IDLE = 200
SETTLE = 1.0
"""Seconds for allocators and page counts to come to rest."""


class Gateway:
    """What OpenSSH needs to reach a farm's instances: the blocks that `mote ssh-config` keeps."""

    def __init__(self, farm: Farm):
        self.env = farm.env
        self.config = farm.home / "ssh_config"
        farm.mote("ssh-config", "--user-config", str(self.config))

    def program(self, name: str, *arguments: str) -> list[str]:
        return [sshd.program(name), "-F", str(self.config), "-o", "BatchMode=yes", *arguments]

    def shell(self) -> str:
        """For `rsync -e`."""
        return " ".join(self.program("ssh"))


def host(instance: Instance) -> str:
    return f"{instance.name}.mote"


def true(stage: Stage, rounds: int) -> list[Line]:
    with stage.instance() as instance:
        sides = [
            over_ssh(stage, "ssh, multiplexed", "kept", "true"),
            ours(stage.farm, "ssh", instance.name, "true"),
        ]
        # The first one makes the connection that the others use.
        contest = Contest.hold(stage, "ssh.true", sides, rounds, warm_ups=2)
    contest.line("`mote ssh I true`, connection reused", "ssh, multiplexed", "multiplexed `ssh host true`")
    return contest.lines


def scp(stage: Stage, rounds: int) -> list[Line]:
    """A gigabyte each way over a connection made for it."""
    lines = []
    with stage.instance() as instance:
        gateway = Gateway(stage.farm)
        folder = stage.fresh("scp")
        folder.mkdir()
        source, theirs, back = folder / "big", folder / "there", folder / "back"
        with source.open("wb") as out:
            subprocess.run(["head", "-c", str(GIB), "/dev/urandom"], stdout=out, check=True)
        far = ["-q", "-F", str(stage.ssh.dir / "client")]
        peer, product = f"cold:{theirs}", f"{host(instance)}:big"

        def sides(their: list[object], our: list[object], there: Path, here: Path) -> list[Side]:
            by_peer = [sshd.program("scp"), *far, *map(str, their)]
            by_us = gateway.program("scp", "-q", *map(str, our))
            return [_copying(PEER, by_peer, stage.ssh, there), _copying(OURS, by_us, stage.farm, here)]

        to = sides([source, peer], [source, product], theirs, instance.work / "big")
        back_again = sides([peer, back], [product, back], back, back)
        for what, both in (("to the instance", to), ("from it", back_again)):
            contest = Contest.hold(stage, "ssh.scp", both, rounds)
            contest.line(f"scp of 1 GiB {what}", PEER, "scp with the system's sshd", SECONDS)
            lines += contest.lines
        shutil.rmtree(folder)
    return lines


def _copying(name: str, argv: list[str], server: Sshd | Farm, arrives: Path) -> Side:
    def prepare() -> list[str]:
        arrives.unlink(missing_ok=True)
        return argv

    def check() -> None:
        if not arrives.is_file() or arrives.stat().st_size != GIB:
            raise Broken(f"{name}: {arrives} is not the file that was sent")

    return Side(name, prepare, server.env, server.servers, check)


def rsync(stage: Stage, rounds: int) -> list[Line]:
    """The tree by rsync, to an empty folder."""
    tree, expected = stage.tree, stage.tree_listing
    with stage.instance() as instance:
        gateway = Gateway(stage.farm)
        theirs, our = stage.fresh("rsync"), instance.work / "tree"
        command = [sshd.program("rsync"), "-a"]
        by_peer = [*command, "-e", stage.ssh.remote_shell(), f"{tree}/", f"cold:{theirs}/"]
        by_us = [*command, "-e", gateway.shell(), f"{tree}/", f"{host(instance)}:tree/"]
        sides = [
            _syncing(PEER, by_peer, stage.ssh, theirs, expected),
            _syncing(OURS, by_us, stage.farm, our, expected),
        ]
        contest = Contest.hold(stage, "ssh.rsync", sides, rounds)
        shutil.rmtree(theirs)
    contest.line(f"rsync of {corpus.FILES:,} files to the instance", PEER, "rsync to the system's sshd", SECONDS)
    return contest.lines


def _syncing(name: str, argv: list[str], server: Sshd | Farm, to: Path, expected: Listing) -> Side:
    def prepare() -> list[str]:
        shutil.rmtree(to, ignore_errors=True)
        return argv

    def check() -> None:
        listing.must_equal(expected, listing.of_folder(to), name)

    return Side(name, prepare, server.env, server.servers, check)


def idle(stage: Stage, rounds: int) -> list[Line]:
    """What all servers grow by while 200 connections each hold a command that does nothing, that left out."""
    product, peer = [], []
    for number in range(rounds):
        peer.append(_held(stage.ssh.ssh("cold", "echo up; exec sleep 3600"), stage.ssh.env, stage.ssh.daemon()))
        farm = Farm(stage.programs, stage.fresh("farm"))
        try:
            instance = farm.create()
            gateway = Gateway(farm)
            argv = gateway.program("ssh", host(instance), "echo up; exec sleep 3600")
            product.append(_held(argv, farm.env, farm.servers()))
            farm.destroy(instance)
        finally:
            farm.stop()
    stage.records.append({"row": "ssh.idle", "mib": {"product": product, "peer": peer}})
    return [stage.tell(compared("ssh.idle", f"{IDLE} idle ssh sessions, RSS", "the system's sshd", "MiB", product, peer))]


def _held(argv: list[str], env: dict[str, str], roots: list[int]) -> float:
    """MiB that the trees below `roots` grow by."""
    before = processes.tree(roots)
    at_first = _resident(before)
    null = subprocess.DEVNULL
    clients = []
    try:
        for _ in range(IDLE):
            clients.append(subprocess.Popen(argv, env=env, stdin=null, stdout=subprocess.PIPE, stderr=null))
        for client in clients:
            if client.stdout.readline() != b"up\n":
                raise Broken("an idle ssh session could not be made")
        time.sleep(SETTLE)
        return (_resident(processes.tree(roots)) - at_first) / 1024
    finally:
        for client in clients:
            client.terminate()
        for client in clients:
            client.wait()
            client.stdout.close()
        processes.settled(roots, before, 10.0)


def _resident(members: dict[int, processes.Process]) -> int:
    found = (processes.memory(pid) for pid in members if processes.name(pid) != "sleep")
    return sum((one for one in found if one), Memory(0, 0)).rss
