"""The command: chooses rows, runs them one by one, prints the table."""

import argparse
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import farm
import line
import sshd
import stage
from line import Line
from problem import Broken, Missing
from rows import ROWS, Row, chosen

OK, FAILED, USAGE, MISSING = 0, 1, 2, 3


def _arguments(argv: list[str]) -> argparse.Namespace:
    rows = ", ".join(row.name for row in ROWS)
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="Measures the farm beside what one would use instead, in turns; prints ratios and a table.",
        epilog=f"Rows: {rows}; `push` means all of push.*. Exit status: 0 all held, 1 a row FAILED, 2 wrong usage, "
        "3 something is missing.",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows (default: all)")
    parser.add_argument("--rounds", type=int, metavar="N", help="counted pairs (default: each row's own)")
    parser.add_argument("--bin", type=Path, metavar="DIR", help="where the programs are (default: target/release)")
    parser.add_argument("--work", metavar="DIR", help="where everything is put (default: /dev/shm if it has room)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample and line there")
    given = parser.parse_args(argv)
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be at least 1")
    try:
        given.chosen = chosen(given.rows)
    except KeyError as unknown:
        parser.error(f"no row {unknown}; there are: {rows}")
    return given


def _must_have(rows: list[Row]) -> None:
    names = {"ssh", "sshd", "ssh-keygen", *(need for row in rows for need in row.needs)}
    absent = []
    for name in sorted(names):
        try:
            sshd.program(name)
        except Missing:
            absent.append(name)
    if absent:
        packages = "openssh-client, openssh-server, rsync, tar, zstd, gzip"
        raise Missing(f"{', '.join(absent)}: not installed (Debian packages: {packages})")
    for row in rows:
        row.must_have()


def _said(*argv: str) -> str:
    """The first line that a program says of its version."""
    try:
        ran = subprocess.run([sshd.program(argv[0]), *argv[1:]], capture_output=True, text=True, timeout=10)
    except (Missing, OSError, subprocess.TimeoutExpired):
        return f"no {argv[0]}"
    return ((ran.stdout or ran.stderr).splitlines() or ["?"])[0].strip()


def _machine(programs: Path, work: Path) -> str:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    kind = _said("stat", "-f", "-c", "%T", str(work))
    now = datetime.datetime.now(datetime.UTC)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    mote = subprocess.run([str(programs / "mote"), "--version"], capture_output=True, text=True).stdout.strip()
    rsync = " ".join(_said("rsync", "--version").split()[:3])
    return (
        f"{now:%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores ({model[1] if model else platform.machine()}), "
        f"{gib:.0f} GiB, Linux {platform.release()}, load {load}, files on {kind}. "
        f"{mote}; {_said('ssh', '-V').split(',')[0]}; {rsync}."
    )


def _stop(*_: object) -> None:
    raise SystemExit(130)


def _measure(row: Row, here: stage.Stage, rounds: int) -> list[Line]:
    here.say(f"== {row.name}, {rounds} rounds")
    try:
        return row.measure(here, rounds)
    except Broken as broken:
        failed = Line(row.name, row.name, "–", None, failure=str(broken))
    except OSError as error:
        traceback.print_exc()
        failed = Line(row.name, row.name, "–", None, failure=f"{type(error).__name__}: {error}")
    return [here.tell(failed)]


def main(argv: list[str]) -> int:
    given = _arguments(argv)
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, _stop)
    root = Path(__file__).resolve().parent.parent
    try:
        programs = farm.programs_in(given.bin or root / "target" / "release")
        _must_have(given.chosen)
        work = stage.place(given.work)
        machine = _machine(programs, work)
        lines: list[Line] = []
        with stage.Stage(programs, work) as here:
            with here.instance() as first:
                machine += f" Sandbox {'on' if first.is_sandboxed else 'OFF'}."
            here.say(machine)
            for row in given.chosen:
                lines += _measure(row, here, given.rounds or row.rounds)
            records = here.records
    except Missing as missing:
        print(f"bench: missing: {missing}", file=sys.stderr)
        return MISSING
    except Broken as broken:
        print(f"bench: the farm does not work: {broken}", file=sys.stderr)
        return FAILED
    if given.json:
        everything = {"version": 1, "machine": machine, "lines": [one.as_json() for one in lines], "records": records}
        given.json.write_text(json.dumps(everything, indent=1) + "\n")
    print(f"{machine}\n\n{line.markdown(lines)}")
    return FAILED if any(one.failure for one in lines) else OK
