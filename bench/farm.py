"""A farm of the real programs on this machine: one coordinator with its resident buildlet."""

import json
import os
import platform
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import processes
from problem import Broken, Missing

PROGRAMS = ("mote", "mote-coordinator", "mote-buildlet")
READY_WITHIN = 30.0
GONE_WITHIN = 30.0
SLOTS = 128
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def programs_in(folder: Path) -> Path:
    absent = [name for name in PROGRAMS if not os.access(folder / name, os.X_OK)]
    if absent:
        raise Missing(f"{', '.join(absent)} in {folder}: build them with `make release`, or say --bin DIR")
    return folder.resolve()


def host_type() -> str:
    machine = platform.machine()
    return f"linux-{ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True)
class Instance:
    name: str
    work: Path
    """Its work directory as this machine sees it."""
    is_sandboxed: bool


class Farm:
    """Everything of it lies below `home`, which is made here and removed by `stop`."""

    def __init__(self, programs: Path, home: Path):
        self.programs = programs
        self.home = home
        self.data = home / "data"
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(home / "home"),
            "TMPDIR": str(home / "tmp"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "share"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "LC_ALL": "C",
        }
        home.mkdir(mode=0o700)
        for name in ("home", "tmp", "config", "share", "cache"):
            (home / name).mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            gateway = probe.getsockname()[1]
        (home / "farm.toml").write_text(
            f'[local]\nprogram = "{programs}/mote-buildlet"\nhost_type = "{host_type()}"\nslots = {SLOTS}\n'
            f'[ssh]\nlisten = "127.0.0.1:{gateway}"\n'
        )
        self._coordinator: subprocess.Popen | None = None
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        serve = [str(self.programs / "mote-coordinator"), "serve", "--config", str(self.home / "farm.toml")]
        serve += ["--data-dir", str(self.data), "--listen", "127.0.0.1:0"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (self.home / "log").open("wb") as log:
            address = self.home / "ready"
            ready.bind(str(address))
            ready.settimeout(0.05)
            # The client finds the farm by the profile that the coordinator writes, so no port is parsed.
            self._coordinator = subprocess.Popen(
                serve,
                env=self.env | {"NOTIFY_SOCKET": str(address)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            until = time.monotonic() + READY_WITHIN
            while True:
                try:
                    if ready.recv(512).startswith(b"READY=1"):
                        return
                except TimeoutError:
                    pass
                if self._coordinator.poll() is not None or time.monotonic() > until:
                    raise Broken(f"the coordinator does not serve: {self._log()}")

    def _log(self) -> str:
        return (self.home / "log").read_text(errors="replace")[-1000:].strip()

    def command(self, *arguments: str) -> list[str]:
        """A quiet call of the client."""
        return [str(self.programs / "mote"), "-q", *arguments]

    def mote(self, *arguments: str) -> str:
        """Runs the client to its successful end; gives its output."""
        ran = subprocess.run(self.command(*arguments), env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        if ran.returncode != 0:
            said = ran.stderr.decode(errors="replace").strip()
            raise Broken(f"mote {' '.join(arguments)[:80]}: exit status {ran.returncode}: {said}")
        return ran.stdout.decode(errors="replace")

    def create(self) -> Instance:
        told = json.loads(self.mote("create", "--json", host_type()))
        work = self.data / "buildlet" / "instances" / told["instance_id"] / "work"
        if not work.is_dir():
            raise Broken(f"{told['name']} has no work directory at {work}")
        return Instance(told["name"], work, told["work_dir"] == "/workdir")

    def destroy(self, *instances: Instance) -> None:
        """Ends them and waits until nothing of them is left, so that wiping disturbs no measurement."""
        if not instances:
            return
        self.mote("destroy", *(instance.name for instance in instances))
        wiping = self.data / "buildlet" / "wiping"
        until = time.monotonic() + GONE_WITHIN
        while any(i.work.exists() for i in instances) or (wiping.exists() and any(wiping.iterdir())):
            if time.monotonic() > until:
                raise Broken(f"instances were not wiped within {GONE_WITHIN:g} s")
            time.sleep(0.01)

    def put_program(self, instance: Instance, program: Path) -> str:
        """Brings one file there; gives the name to run it by."""
        folder = self.home / "tmp" / f"put-{program.name}"
        folder.mkdir()
        shutil.copy2(program, folder / program.name)
        self.mote("push", "-C", str(folder), "--to", "put", instance.name)
        shutil.rmtree(folder)
        return f"put/{program.name}"

    def forget_outputs(self) -> None:
        """Removes the output files that the client keeps of each run."""
        shutil.rmtree(self.home / "cache" / "mote" / "runs", ignore_errors=True)

    def servers(self) -> list[int]:
        """The coordinator; the buildlet and all it runs descend from it."""
        return [self._coordinator.pid] if self._coordinator else []

    def stop(self) -> None:
        members = processes.tree(self.servers())
        if self._coordinator is not None:
            self._coordinator.terminate()
            try:
                self._coordinator.wait(20)
            except subprocess.TimeoutExpired:
                self._coordinator.kill()
                self._coordinator.wait()
        # The buildlet and its instances outlive the coordinator by design: end the buildlet first,
        # then whatever still shows this farm's directory.
        serving = [pid for pid in members if processes.arguments(pid)[1:2] == ["serve"]]
        for pid in serving:
            processes.end(pid)
        for pid in [*processes.mentioning(self.data), *(members.keys() - set(serving))]:
            if pid != os.getpid() and processes.is_alive(pid):
                processes.end(pid, 2.0)
        self._coordinator = None
        shutil.rmtree(self.home, ignore_errors=True)
