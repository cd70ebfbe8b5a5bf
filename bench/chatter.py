#!/usr/bin/python3 -SE
"""The same as chatter.c, where there is no C compiler; and what compiles that."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def build(into: Path) -> Path:
    """The program to bring to an instance. It is put where the sandbox's own libraries serve it."""
    here = Path(__file__).resolve().parent
    compiler = shutil.which("cc")
    program = into / "chatter"
    if compiler:
        made = subprocess.run([compiler, "-O2", "-o", str(program), str(here / "chatter.c")], capture_output=True)
        if made.returncode == 0:
            return program
    shutil.copy2(here / "chatter.py", program)
    program.chmod(0o755)
    return program


def main(kind: str, count: int, pause_ms: int = 0) -> None:
    if kind == "lines":
        for number in range(count):
            os.write(1, b"%099d\n" % number)
        return
    for _ in range(count):
        os.write(1, b"%d\n" % time.monotonic_ns())
        time.sleep(pause_ms / 1000)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
