"""A tree to an instance: the first time, again, after few and after seeming changes, to ten at once."""

import shlex
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import corpus
import listing
import sshd
from farm import Farm, Instance
from line import Line
from listing import Listing
from pairs import Side, always
from rows.contest import OURS, SECONDS, Contest
from stage import Stage

TO = "tree"
TEN = 10


def _verify(farm: Farm, instances: list[Instance], expected: Listing) -> None:
    for instance in instances:
        output = farm.mote("run", instance.name, "/bin/sh", "-c", listing.SCRIPT, "listing", TO)
        listing.must_equal(expected, listing.parsed(output), instance.name)


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _rsync(stage: Stage, tree: Path, to: Path) -> list[str]:
    remote = f"kept:{to}/"
    return [sshd.program("rsync"), "-a", "--delete", "-e", stage.ssh.remote_shell(), f"{tree}/", remote]


class _FreshFarm:
    """The product's side of a first push: each run has a farm and a client of its own."""

    def __init__(self, stage: Stage, tree: Path, expected: Listing, instances: int, stack: ExitStack):
        self._stage, self._tree, self._expected, self._count = stage, tree, expected, instances
        self._farm: Farm | None = None
        self._instances: list[Instance] = []
        stack.callback(self._stop)

    def side(self, name: str) -> Side:
        # The environment differs from farm to farm, so the command sets its own.
        return Side(name, self._prepare, {}, lambda: self._farm.servers() if self._farm else [], self._check)

    def _prepare(self) -> list[str]:
        self._farm = Farm(self._stage.programs, self._stage.fresh("farm"))
        self._instances = [self._farm.create() for _ in range(self._count)]
        setting = [f"{key}={value}" for key, value in self._farm.env.items()]
        names = [instance.name for instance in self._instances]
        push = self._farm.command("push", "-C", str(self._tree), "--to", TO, *names)
        return [sshd.program("env"), "-i", *setting, *push]

    def _check(self) -> None:
        _verify(self._farm, self._instances, self._expected)
        self._stop()

    def _stop(self) -> None:
        farm, instances = self._farm, self._instances
        self._farm, self._instances = None, []
        if farm:
            try:
                farm.destroy(*instances)
            finally:
                farm.stop()


def full(stage: Stage, rounds: int) -> list[Line]:
    tree, expected = stage.tree, stage.tree_listing
    by_rsync, by_tar = stage.fresh("rsync"), stage.fresh("tar")
    shell = stage.ssh.remote_shell()
    pipeline = f"tar -C {tree} -cf - . | zstd -q -1 | {shell} kept {shlex.quote(f'zstd -qdc | tar -C {by_tar} -xf -')}"

    def peer(name: str, to: Path, argv: list[str]) -> Side:
        def prepare() -> list[str]:
            _emptied(to)
            return argv

        def check() -> None:
            listing.must_equal(expected, listing.of_folder(to), name)

        return Side(name, prepare, stage.ssh.env, stage.ssh.servers, check)

    with ExitStack() as stack:
        sides = [
            peer("rsync", by_rsync, _rsync(stage, tree, by_rsync)),
            peer("tar, zstd, ssh", by_tar, ["/bin/sh", "-c", pipeline]),
            _FreshFarm(stage, tree, expected, 1, stack).side(OURS),
        ]
        contest = Contest.hold(stage, "push.full", sides, rounds)
    for folder in (by_rsync, by_tar):
        shutil.rmtree(folder)
    what = f"push of {corpus.FILES:,} files to an empty, uncached farm"
    contest.line(what, "rsync", "`rsync -a`", SECONDS)
    contest.line(what, "tar, zstd, ssh", "`tar | zstd -1 | ssh`", SECONDS)
    return contest.lines


def ten(stage: Stage, rounds: int) -> list[Line]:
    with ExitStack() as stack:
        sides = [
            _FreshFarm(stage, stage.tree, stage.tree_listing, 1, stack).side("mote, one"),
            _FreshFarm(stage, stage.tree, stage.tree_listing, TEN, stack).side("mote, ten"),
        ]
        contest = Contest.hold(stage, "push.ten", sides, rounds)
    contest.line("first push to ten instances at once", "mote, one", "the same to one", SECONDS, product="mote, ten")
    return contest.lines


def _again(stage: Stage, row: str, what: str, rounds: int, change: Callable[[list[Path], int], None]) -> list[Line]:
    """Both sides have the tree; each round changes it once, then each brings the change over."""
    with stage.copy_of_tree() as tree, stage.instance() as instance:
        paths = corpus.files(tree)
        to = stage.fresh("rsync")
        to.mkdir()
        expected: Listing = {}

        def each_round(number: int) -> None:
            change(paths, number + 1)
            expected.clear()
            expected.update(listing.of_folder(tree))

        sides = [
            Side(
                "rsync",
                always(*_rsync(stage, tree, to)),
                stage.ssh.env,
                stage.ssh.servers,
                lambda: listing.must_equal(expected, listing.of_folder(to), "rsync"),
            ),
            Side(
                OURS,
                always(*stage.farm.command("push", "-C", str(tree), "--to", TO, instance.name)),
                stage.farm.env,
                stage.farm.servers,
                lambda: _verify(stage.farm, [instance], expected),
            ),
        ]
        # Two rounds before it counts: the first brings the tree, the second is the first of its kind.
        contest = Contest.hold(stage, row, sides, rounds, each_round=each_round, warm_ups=2)
        shutil.rmtree(to)
    contest.line(what, "rsync", "`rsync -a`", SECONDS)
    return contest.lines


def same(stage: Stage, rounds: int) -> list[Line]:
    what = "push, nothing changed, the remote side compared"
    return _again(stage, "push.same", what, rounds, lambda _paths, _number: None)


def edit10(stage: Stage, rounds: int) -> list[Line]:
    return _again(
        stage, "push.edit10", "push, ten files changed", rounds, lambda paths, number: corpus.edit(paths, 10, number)
    )


def touch(stage: Stage, rounds: int) -> list[Line]:
    return _again(stage, "push.touch", "push, every mtime changed", rounds, corpus.touch)
