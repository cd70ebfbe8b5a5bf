"""A bridge of the real program before a farm."""

import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import processes
from problem import Broken, Missing

READY_WITHIN = 30.0


class Bridge:
    """Everything of it lies below `home`, which is made here and removed by `stop`."""

    def __init__(self, programs: Path, home: Path, backend: str, entries_of: Path | None = None):
        """`entries_of`: a hash map to begin with, which becomes its own."""
        self.home = home
        program = programs / "mote-bridge"
        if not os.access(program, os.X_OK):
            raise Missing("mote-bridge beside the other programs: build it with `make release`")
        home.mkdir(mode=0o700)
        (home / "data").mkdir(mode=0o700)
        if entries_of:
            entries_of.rename(home / "data" / "hash-map")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        # No worker of ours takes the input root for /.
        (home / "bridge.toml").write_text(
            f'listen = "{self.address}"\n[backend]\naddress = "{backend}"\n[inputs]\nroot = "common"\n'
        )
        argv = [str(program), "serve", "--config", str(home / "bridge.toml"), "--data-dir", str(home / "data")]
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": str(home)}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (home / "log").open("wb") as log:
            ready.bind(str(home / "ready"))
            ready.settimeout(READY_WITHIN)
            began = time.perf_counter()
            self._process = subprocess.Popen(
                argv,
                env=env | {"NOTIFY_SOCKET": str(home / "ready")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                while not ready.recv(512).startswith(b"READY=1"):
                    pass
            except TimeoutError:
                said = (home / "log").read_text(errors="replace")[-1000:].strip()
                self.stop()
                raise Broken(f"the bridge does not serve: {said}") from None
            self.ready_after = time.perf_counter() - began
            """Seconds from its start until it said so."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def peak_mib(self) -> float:
        return processes.peak_mib(self.pid)

    def cpu(self) -> float:
        return processes.cpu(processes.tree([self.pid]))

    def metric(self, name: str) -> int:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{self.address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found = re.search(rf"^mote_bridge_{name} (\d+)$", text, re.MULTILINE)
        if not found:
            raise Broken(f"the bridge has no metric {name}")
        return int(found[1])

    def stop(self) -> None:
        if processes.is_alive(self.pid):
            # Told twice it does not wait for clients to leave their connections.
            self._process.terminate()
            time.sleep(0.1)
            processes.end(self.pid)
        self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)
