"""A tree back from an instance, as an archive."""

import os
import shutil
import subprocess

import listing
import sample
import sshd
from line import Line, number
from pairs import Side
from problem import Broken
from rows.contest import OURS, SECONDS, Contest, ours, over_ssh
from stage import Stage

FROM = "tree"


def _row(stage: Stage, row: str, what: str, flags: list[str], peers: dict[str, str], rounds: int) -> list[Line]:
    """`peers`: what follows `tar -C DIR -cf - .` there."""
    with stage.instance() as instance:
        stage.farm.mote("push", "-C", str(stage.tree), "--to", FROM, instance.name)
        read = f"tar -C {instance.work / FROM} -cf - ."
        get = ours(stage.farm, "gettar", *flags, "--dir", FROM, "-o", "-", instance.name)
        sides = [over_ssh(stage, name, "kept", read + pipe) for name, pipe in peers.items()]
        for side in [*sides, get]:
            _verify(stage, side)
        contest = Contest.hold(stage, row, [*sides, get], rounds)
    for name in peers:
        mine, theirs = (contest.samples[side][0].size / 1e6 for side in (OURS, name))
        contest.line(what, name, f"`{name}`", SECONDS, note=f"archives of {number(mine)} and {number(theirs)} MB")
    return contest.lines


def _verify(stage: Stage, side: Side) -> None:
    """What it gives unpacks to the tree; tar sees by itself how a file is compressed."""
    archive, folder = stage.fresh("archive"), stage.fresh("unpacked")
    with archive.open("wb") as into:
        got = sample.take(side.prepare(), side.env, side.servers(), into=into.fileno())
    if got.status != 0 or got.size != os.stat(archive).st_size:
        raise Broken(f"{side.name}: exit status {got.status}: {got.errors.strip()}")
    folder.mkdir()
    unpack = [sshd.program("tar"), "-C", str(folder), "-xf", str(archive)]
    ran = subprocess.run(unpack, capture_output=True, text=True)
    if ran.returncode != 0:
        raise Broken(f"{side.name}: tar does not unpack it: {ran.stderr.strip()}")
    listing.must_equal(stage.tree_listing, listing.of_folder(folder), f"{side.name}'s archive")
    archive.unlink()
    shutil.rmtree(folder)


def plain(stage: Stage, rounds: int) -> list[Line]:
    return _row(stage, "gettar.plain", "gettar -plain", ["--plain"], {"ssh tar c": ""}, rounds)


def zstd(stage: Stage, rounds: int) -> list[Line]:
    peers = {"ssh tar c": "", "ssh 'tar c | zstd -1'": " | zstd -q -1"}
    return _row(stage, "gettar.zstd", "gettar -zstd", ["--zstd"], peers, rounds)


def gzip(stage: Stage, rounds: int) -> list[Line]:
    peers = {"ssh tar cz": " | gzip", "ssh 'tar c | gzip -1'": " | gzip -1"}
    return _row(stage, "gettar.gzip", "gettar (gzip)", [], peers, rounds)
