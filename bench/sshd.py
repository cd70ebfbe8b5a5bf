"""A private sshd on loopback, with what makes it as fast as it gets: connections kept open, no PAM,
an empty home (a shell that sshd starts reads ~/.bashrc, which can cost more than all the rest), and
room for as many sessions as anybody asks for."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import processes
from problem import Missing

PATIENCE = 15.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SESSIONS = 4096

SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
X11Forwarding no
PrintMotd no
PrintLastLog no
LogLevel ERROR
MaxSessions {sessions}
MaxStartups {sessions}
SetEnv HOME={dir}/home
Subsystem sftp internal-sftp
"""

CLIENT = """\
Host *
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {dir}/client_key
    IdentitiesOnly yes
    UserKnownHostsFile {dir}/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
Host kept
    ControlPath {dir}/kept
Host kept-gcm
    ControlPath {dir}/kept-gcm
    Ciphers aes128-gcm@openssh.com
"""


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if not found:
        raise Missing(f"{name} is not installed")
    return found


class Sshd:
    """Hosts: `cold` connects anew for each command, `kept` and `kept-gcm` go through a ControlMaster,
    the first with the default cipher, the other with aes128-gcm."""

    def __init__(self, home: Path):
        self.dir = home
        self.env = {"PATH": os.environ.get("PATH", SYSTEM_PATH), "HOME": str(home / "home"), "LC_ALL": "C"}
        self._children: list[subprocess.Popen] = []
        home.mkdir(mode=0o700)
        (home / "home").mkdir()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        for name in ("host_key", "client_key"):
            made = ["-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(self.dir / name)]
            subprocess.run([program("ssh-keygen"), *made], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        host_key = (self.dir / "host_key.pub").read_text().split()
        (self.dir / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
        user = pwd.getpwuid(os.getuid()).pw_name
        facts = {"dir": self.dir, "port": port, "user": user, "sessions": SESSIONS}
        (self.dir / "server").write_text(SERVER.format(**facts))
        (self.dir / "client").write_text(CLIENT.format(**facts))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation wants it
        with (self.dir / "log").open("wb") as log:
            # sshd starts itself anew for each connection, so it wants its absolute path.
            server = [program("sshd"), "-D", "-e", "-f", str(self.dir / "server")]
            self._children.append(subprocess.Popen(server, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self._until("accept connections", lambda: self._answers(port))
        hello = subprocess.run(self.ssh("cold", "true"), env=self.env, capture_output=True, text=True)
        if hello.returncode != 0:
            raise Missing(f"a private sshd that lets {user} in: {hello.stderr.strip()}; {self._log()}")
        for host in ("kept", "kept-gcm"):
            master = self.ssh("-M", "-N", host)
            null = subprocess.DEVNULL
            self._children.append(subprocess.Popen(master, env=self.env, stdin=null, stdout=null, stderr=null))
            self._until(f"keep a connection ({host})", (self.dir / host).is_socket)

    def _until(self, what: str, holds) -> None:
        until = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > until or self._children[-1].poll() is not None:
                raise Missing(f"a private sshd: it did not {what}; {self._log()}")
            time.sleep(0.01)

    @staticmethod
    def _answers(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _log(self) -> str:
        log = self.dir / "log"
        return log.read_text(errors="replace")[-500:].strip() if log.exists() else ""

    def ssh(self, *arguments: str) -> list[str]:
        return [program("ssh"), "-F", str(self.dir / "client"), *arguments]

    def remote_shell(self) -> str:
        """For `rsync -e` and pipelines."""
        return f"{program('ssh')} -F {self.dir}/client"

    def servers(self) -> list[int]:
        """The daemon and the keepers of connections, whose work is part of every command's."""
        return [child.pid for child in self._children]

    def daemon(self) -> list[int]:
        return [self._children[0].pid]

    def stop(self) -> None:
        for child in reversed(self._children):
            members = processes.tree([child.pid])
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for pid in members.keys() - {child.pid}:
                processes.end(pid, 2.0)
        self._children.clear()
