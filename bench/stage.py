"""What the rows share: a private directory, one farm, one sshd, one corpus, each made when first wanted."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import casd
import chatter
import corpus
import listing
from farm import Farm, Instance
from line import Line, number
from listing import Listing
from pairs import Samples, Spread
from problem import Missing
from sshd import Sshd

ROOM = 8 << 30
"""Bytes that the largest rows need at once."""


def place(wanted: str | None) -> Path:
    """Where everything goes. In memory if it fits: on a disk, thousands of new files measure the disk."""
    for choice in [wanted] if wanted else ["/dev/shm", tempfile.gettempdir()]:
        path = Path(choice)
        if path.is_dir() and os.access(path, os.W_OK) and shutil.disk_usage(path).free > ROOM:
            return path
    raise Missing(f"{ROOM >> 30} GiB free in {wanted or '/dev/shm or the temporary directory'} (--work DIR)")


class Stage:
    def __init__(self, programs: Path, work: Path):
        self._stack = ExitStack()
        self.dir = Path(tempfile.mkdtemp(prefix="mote-bench-", dir=work))
        self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.programs = self.dir / "bin"
        self.programs.mkdir()
        for name in ("mote", "mote-coordinator", "mote-buildlet"):
            # A copy, so that a build meanwhile does not change what is measured.
            shutil.copy2(programs / name, self.programs / name)
        if (programs / "mote-bridge").is_file():
            shutil.copy2(programs / "mote-bridge", self.programs / "mote-bridge")
        self.records: list[dict] = []
        self._counter = 0

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fresh(self, name: str) -> Path:
        """A path of its own, with nothing there."""
        self._counter += 1
        return self.dir / f"{name}-{self._counter}"

    @cached_property
    def ssh(self) -> Sshd:
        sshd = Sshd(self.fresh("ssh"))
        self._stack.callback(sshd.stop)
        return sshd

    @cached_property
    def farm(self) -> Farm:
        farm = Farm(self.programs, self.fresh("farm"))
        self._stack.callback(farm.stop)
        return farm

    @cached_property
    def casd(self) -> casd.Casd:
        server = casd.Casd(self.fresh("casd"))
        self._stack.callback(server.stop)
        return server

    @contextmanager
    def instance(self) -> Iterator[Instance]:
        instance = self.farm.create()
        try:
            yield instance
        finally:
            self.farm.destroy(instance)
            self.farm.forget_outputs()

    @cached_property
    def tree(self) -> Path:
        """The corpus. Not to be changed: see `copy_of_tree`."""
        return corpus.make(self.dir / "corpus")

    @cached_property
    def tree_listing(self) -> Listing:
        return listing.of_folder(self.tree)

    @contextmanager
    def copy_of_tree(self) -> Iterator[Path]:
        copy = self.fresh("tree")
        shutil.copytree(self.tree, copy, symlinks=True)
        try:
            yield copy
        finally:
            shutil.rmtree(copy)

    @cached_property
    def chatter(self) -> Path:
        return chatter.build(self.dir)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def record(self, row: str, samples: Samples) -> None:
        """Keeps every run for --json, and tells the figures as they come."""
        shown = {name: [taken.as_json() for taken in side] for name, side in samples.items()}
        self.records.append({"row": row, "samples": shown})
        for name, side in samples.items():
            wall = Spread.of([taken.wall * 1000 for taken in side])
            client = sum(taken.client_cpu for taken in side) / len(side)
            server = sum(taken.server_cpu for taken in side) / len(side)
            self.say(
                f"    {name:<24} {number(wall.least):>8} {number(wall.median):>8} {number(wall.most):>8} ms"
                f"   CPU ms: client {number(client * 1000)}, servers {number(server * 1000)} (means)"
            )
        spent = sum(taken.wall for side in samples.values() for taken in side)
        others = sum(taken.others_cpu for side in samples.values() for taken in side)
        share = 100 * others / spent / (os.cpu_count() or 1)
        self.say(f"    others used {share:.0f} % of the machine meanwhile")

    def tell(self, line: Line) -> Line:
        self.say(f"    {line.what} beside {line.beside}: {line.cell()}")
        return line
