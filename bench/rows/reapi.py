"""The farm as a backend of the Remote Execution API, beside buildbox-casd: the same client asks both in turns."""

import itertools
import re
import subprocess
from pathlib import Path

import casd
import processes
import sshd
from line import Line, number
from problem import Broken, Missing
from rows.contest import OURS, compared
from stage import Stage

CASD = "buildbox-casd"
GIB = 1 << 30
COUNT = 1000
_seeds = itertools.count(1)


def _client() -> str:
    path = Path(__file__).resolve().parents[2] / "target" / "release" / "examples" / "reapi_load"
    if not path.is_file():
        raise Missing("reapi_load: build it with `cargo build --release -p motefarm-cas --example reapi_load`")
    return str(path)


def must_have() -> None:
    _client()
    casd.folder()


def _ask(url: str, *what: object) -> float:
    """Seconds of the calls, as the client says."""
    argv = [_client(), url, *map(str, what)]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if ran.returncode != 0:
        raise Broken(f"{' '.join(argv[1:])}: {ran.stderr.strip()[-300:]}")
    return float(ran.stdout)


def _sides(stage: Stage) -> dict[str, str]:
    """Each server's address. Both are asked in the clear, by their own user."""
    url = stage.farm.mote("reapi", "url").strip()
    return {CASD: stage.casd.url, OURS: url.replace("grpc://", "http://")}


Taken = dict[str, list[float]]


def _turns(stage: Stage, rounds: int, *what: object, after: tuple | None = None) -> tuple[Taken, Taken]:
    """What each side took in each round, with a seed of its own; and for what is asked `after`, of the same seed."""
    first: Taken = {CASD: [], OURS: []}
    second: Taken = {CASD: [], OURS: []}
    for turn in range(rounds + 1):
        for name, url in _sides(stage).items():
            seed = next(_seeds)
            took = _ask(url, seed, *what)
            then = _ask(url, seed, *after) if after else 0.0
            if turn > 0:
                first[name].append(took)
                second[name].append(then)
    return first, second


def _line(stage: Stage, row: str, what: str, unit: str, scale: float, taken: Taken, note: str = "") -> Line:
    mine, theirs = ([value * scale for value in taken[name]] for name in (OURS, CASD))
    return stage.tell(compared(row, what, f"`{CASD}`", unit, mine, theirs, note=note))


def find(stage: Stage, rounds: int) -> list[Line]:
    taken, _ = _turns(stage, rounds, "find", 10_000)
    return [_line(stage, "reapi.find", "FindMissingBlobs of 10,000", "ms", 1000, taken)]


def small(stage: Stage, rounds: int) -> list[Line]:
    put, got = _turns(stage, rounds, "put", 10_000, 1024, after=("get", 10_000, 1024))
    return [
        _line(stage, "reapi.small", "upload of 10,000 × 1 KiB", "ms", 1000, put),
        _line(stage, "reapi.small", "download of 10,000 × 1 KiB", "ms", 1000, got),
    ]


def large(stage: Stage, rounds: int) -> list[Line]:
    put, got = _turns(stage, rounds, "put", 1, GIB, after=("get", 1, GIB))
    (coordinator,) = stage.farm.servers()
    peaks = [processes.peak_mib(pid) for pid in (coordinator, stage.casd.pid)]
    note = f"most memory of the server since its start {number(peaks[0])} and {number(peaks[1])} MiB"
    return [
        _line(stage, "reapi.large", "upload of 1 GiB", "s", 1, put, note),
        _line(stage, "reapi.large", "download of 1 GiB", "s", 1, got),
    ]


def true(stage: Stage, rounds: int) -> list[Line]:
    taken, _ = _turns(stage, rounds, "true", COUNT, 2)
    return [_line(stage, "reapi.true", "1,000 × `/bin/true` on two slots, each action", "ms", 1, taken)]


def bazel(stage: Stage, rounds: int) -> list[Line]:
    """A build of which everything is in the cache."""
    project = _project(stage.fresh("bazel"))
    taken: Taken = {CASD: [], OURS: []}
    roots = {name: stage.fresh("bazel-root") for name in (CASD, OURS)}
    try:
        for turn in range(rounds + 1):
            for name, url in _sides(stage).items():
                _bazel(project, roots[name], "clean")
                took = _bazel(project, roots[name], "build", url)
                if turn > 0:
                    taken[name].append(took)
    finally:
        for root in roots.values():
            _bazel(project, root, "shutdown")
    return [_line(stage, "reapi.bazel", "Bazel, 200 actions from the cache", "s", 1, taken)]


def _project(folder: Path) -> Path:
    """Files made by a script each: nothing is compiled, so that the machine's compiler is not measured."""
    folder.mkdir()
    (folder / "WORKSPACE").touch()
    rule = 'genrule(name = "g{0}", outs = ["g{0}.txt"], cmd = "seq {0} 2000 > $@")\n'
    (folder / "BUILD").write_text("".join(rule.format(n) for n in range(200)))
    return folder


def _bazel(project: Path, root: Path, command: str, url: str | None = None) -> float:
    """Runs it; seconds of the build as Bazel itself says."""
    argv = [sshd.program("bazel"), "--nohome_rc", f"--output_user_root={root}", "--max_idle_secs=120"]
    argv.append(command)
    if url:
        argv += [f"--remote_executor={url.replace('http://', 'grpc://')}", "--spawn_strategy=remote", "--jobs=8"]
        argv += ["--genrule_strategy=remote", "--noshow_progress", "--color=no", "--curses=no", "//..."]
    ran = subprocess.run(argv, cwd=project, capture_output=True, text=True, timeout=300)
    if ran.returncode != 0:
        raise Broken(f"bazel {command}: {ran.stderr.strip()[-500:]}")
    told = re.search(r"Elapsed time: ([0-9.]+)s", ran.stderr)
    return float(told[1]) if told else 0.0
