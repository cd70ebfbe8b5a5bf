"""One timed run of one command."""

import fcntl
import hashlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass

import processes

BUFFER = 1 << 20
"""Both the pipe's size and the most read at once: a small pipe would measure us."""

PATIENCE = 300.0
"""Seconds after which a command counts as hung."""


@dataclass(frozen=True)
class Sample:
    """Times in seconds."""

    wall: float
    first: float | None
    """From the start to the first byte of output."""
    client_cpu: float
    server_cpu: float
    others_cpu: float
    """What the machine did meanwhile that was neither the command, nor its servers, nor this program."""
    size: int
    """Bytes of output."""
    digest: str | None
    status: int
    errors: str

    def as_json(self) -> dict:
        return asdict(self)

    @property
    def cpu(self) -> float:
        return self.client_cpu + self.server_cpu


def take(
    argv: list[str], env: dict[str, str], servers: list[int], digest: bool = False, into: int | None = None
) -> Sample:
    """Runs the command and reads its output to the end. The output is thrown away, or hashed, or
    written to the descriptor `into`, the latter two only for runs that do not count."""
    before = processes.tree(servers)
    out, far = os.pipe()
    fcntl.fcntl(far, fcntl.F_SETPIPE_SZ, BUFFER)
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    hasher = hashlib.sha256() if digest else None
    first, size = None, 0
    with tempfile.TemporaryFile() as errors:
        busy, own = processes.machine_busy(), sum(os.times()[:2])
        began = time.perf_counter()
        # A session of its own, so that a pipeline that hangs can be ended as a whole.
        child = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=far, stderr=errors, start_new_session=True
        )
        os.close(far)
        watchdog = threading.Timer(PATIENCE, os.killpg, (child.pid, signal.SIGKILL))
        watchdog.daemon = True
        watchdog.start()
        try:
            while count := os.readv(out, [buffer]):
                if first is None:
                    first = time.perf_counter() - began
                size += count
                if hasher:
                    hasher.update(view[:count])
                if into is not None:
                    os.write(into, view[:count])
            _, raw, usage = os.wait4(child.pid, 0)
            wall = time.perf_counter() - began
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        finally:
            watchdog.cancel()
        child.returncode = os.waitstatus_to_exitcode(raw)
        os.close(out)
        after = processes.settled(servers, before)
        busy, own = processes.machine_busy() - busy, sum(os.times()[:2]) - own
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-1000:]
    client = usage.ru_utime + usage.ru_stime
    server = processes.cpu(after) - processes.cpu(before)
    others = max(0.0, busy - own - client - server)
    shown = hasher.hexdigest() if hasher else None
    return Sample(wall, first, client, server, others, size, shown, child.returncode, said)
