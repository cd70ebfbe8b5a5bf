"""The rows of the table, in the order they are run and shown. README.md says what each is."""

from collections.abc import Callable
from dataclasses import dataclass

from line import Line
from rows import gettar, goma, idle, parallel, push, reapi, run, ssh, stream
from stage import Stage


@dataclass(frozen=True)
class Row:
    name: str
    rounds: int
    """Counted pairs, unless the user says otherwise."""
    measure: Callable[[Stage, int], list[Line]]
    needs: tuple[str, ...] = ()
    """Programs, besides ssh's own."""
    must_have: Callable[[], object] = lambda: None
    """Raises Missing for what is no program on PATH."""


ROWS = [
    Row("run.true", 40, run.true),
    Row("run.first_byte", 20, run.first_byte),
    Row("lines", 5, run.lines),
    Row("stream.1g", 5, stream.one_gib),
    Row("stream.small", 5, stream.small),
    Row("push.full", 5, push.full, ("rsync", "tar", "zstd")),
    Row("push.same", 7, push.same, ("rsync",)),
    Row("push.edit10", 7, push.edit10, ("rsync",)),
    Row("push.touch", 5, push.touch, ("rsync",)),
    Row("push.ten", 3, push.ten),
    Row("gettar.plain", 5, gettar.plain, ("tar",)),
    Row("gettar.zstd", 5, gettar.zstd, ("tar", "zstd")),
    Row("gettar.gzip", 3, gettar.gzip, ("tar", "gzip")),
    Row("par100", 3, parallel.hundred),
    Row("idle", 3, idle.instances),
    Row("ssh.true", 40, ssh.true),
    Row("ssh.scp", 3, ssh.scp),
    Row("ssh.rsync", 5, ssh.rsync, ("rsync",)),
    Row("ssh.idle", 2, ssh.idle),
    Row("reapi.find", 10, reapi.find, must_have=reapi.must_have),
    Row("reapi.small", 5, reapi.small, must_have=reapi.must_have),
    Row("reapi.large", 3, reapi.large, must_have=reapi.must_have),
    Row("reapi.true", 3, reapi.true, must_have=reapi.must_have),
    Row("reapi.bazel", 3, reapi.bazel, ("bazel",), reapi.must_have),
    Row("goma.hit", 5, goma.hit, must_have=goma.must_have),
    Row("goma.rate", 5, goma.rate, must_have=goma.must_have),
    Row("goma.cold", 3, goma.cold, must_have=goma.must_have),
    Row("goma.memory", 3, goma.memory, must_have=goma.must_have),
    Row("goma.ready", 5, goma.ready, must_have=goma.must_have),
]


def chosen(names: list[str]) -> list[Row]:
    """Rows by name or by what comes before the dot; all without a name. Raises KeyError."""
    for name in names:
        if not any(_matches(row, name) for row in ROWS):
            raise KeyError(name)
    return [row for row in ROWS if not names or any(_matches(row, name) for name in names)]


def _matches(row: Row, name: str) -> bool:
    return row.name == name or row.name.startswith(f"{name}.")
