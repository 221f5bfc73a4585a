"""Machines of one's own for tests of a real cluster: a laptop and hosts with sshd, each in namespaces of its own.

Nothing of theirs is seen outside: own network, own process table (`ray stop` ends every Ray that it sees), own /run and
/dev/shm, a home folder in a temporary one. All their processes end with the context.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = "10.77.0"
NEEDED = ("ip", "nsenter", "rsync", "setpriv", "ssh", "ssh-keygen", "sshd", "unshare")
SSHD = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv RAY_TMPDIR={folder}/tmp
"""


def missing() -> str | None:
    """Why such machines cannot be made here, or None."""
    if os.geteuid() != 0:
        return "namespaces need root"
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (apt-get install openssh-server rsync iproute2)"
    probe = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, text=True)
    return probe.stderr.strip() or None if probe.returncode else None


@dataclass
class Machine:
    """A process table and a network; `init` is its process 1, as seen from outside."""

    init: int
    address: str
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def command(self, args: Sequence[str], cwd: Path | None = None) -> list[str]:
        inside = ["nsenter", f"--target={self.init}", "--net", "--pid", "--mount", "--"]
        return [*inside, "env", f"--chdir={cwd or self.home}", *args]

    def environment(self, env: dict[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CROSSVIEW_"))}
        return {
            **kept,
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "RAY_TMPDIR": str(self.home),
            **self.env,
            **(env or {}),
        }

    def run(
        self, *args: str, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(args, cwd),
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=560,
        )

    def start(self, *args: str, output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as file:
            return subprocess.Popen(
                self.command(args), env=self.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )

    def processes(self) -> list[str]:
        """Command lines of all that runs there, what has ended and is not yet waited for left out."""
        rows = self.run("ps", "-eo", "stat,args", "--no-headers").stdout.splitlines()
        return [row for row in rows if not row.startswith("Z") and "ps -eo" not in row]


@contextmanager
def machines(count: int) -> Iterator[tuple[Path, Machine, list[Machine]]]:
    """A folder that all see, the laptop, and `count` hosts that it reaches by ssh with `client_key`."""
    with ExitStack() as stack:
        # Short: Ray's sockets lie in here, and their paths are limited to 107 characters.
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="cv-", dir="/tmp", ignore_cleanup_errors=True))
        )
        for key in ("host_key", "client_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        laptop = stack.enter_context(
            _machine(folder / "laptop", f"{NETWORK}.1", "while :; do sleep 600 & wait $!; done")
        )
        bridge = [
            ["ip", "link", "add", "br0", "type", "bridge"],
            ["ip", "addr", "add", f"{laptop.address}/24", "dev", "br0"],
        ]
        for command in [*bridge, ["ip", "link", "set", "br0", "up"], ["ip", "link", "set", "lo", "up"]]:
            _check(laptop, command)
        hosts = []
        for k in range(count):
            home = folder / f"host{k}"
            config = folder / f"sshd{k}"
            config.write_text(SSHD.format(folder=folder, home=home))
            init = f"mkdir /run/sshd && exec {shutil.which('sshd')} -D -e -f {config} 2>{folder}/sshd{k}.log"
            host = stack.enter_context(_machine(home, f"{NETWORK}.{10 + k}", init))
            _plug_in(laptop, host, f"host{k}")
            hosts.append(host)
        yield folder, laptop, hosts


@contextmanager
def _machine(home: Path, address: str, init: str) -> Iterator[Machine]:
    home.mkdir()
    own = home.parent / "tmp"  # one path, and another folder there for each machine
    own.mkdir(exist_ok=True)
    (home / ".bashrc").touch()  # `ray up` sources it
    # ssh takes a user's home folder from this file alone; the own one keeps the real home's keys and settings out.
    passwd = home.with_suffix(".passwd")
    user = pwd.getpwuid(0)
    passwd.write_text(
        Path("/etc/passwd").read_text().replace(f":{user.pw_dir}:{user.pw_shell}", f":{home}:/bin/bash", 1)
    )
    tmpfs = " && ".join(f"mount -t tmpfs none {place}" for place in ("/run", "/dev/shm", own))
    script = f"{tmpfs} && mount --bind {passwd} /etc/passwd && {{ {init}; }}"
    # Killed with this process, however that ends, and all of the machine's processes with its first.
    unshare = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "unshare",
        "--net",
        "--pid",
        "--mount",
        "--mount-proc",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        script,
    ]
    process = subprocess.Popen(unshare, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (child := children.read_text().strip()):
            assert process.poll() is None, f"no namespaces: {unshare} ended with {process.returncode}"
        yield Machine(int(child), address, home)
    finally:
        process.kill()
        process.wait()


def _plug_in(laptop: Machine, host: Machine, cable: str) -> None:
    """Join a host to the laptop's network; Ray finds its address by the default route."""
    peer = ["peer", "name", "eth0", "netns", str(host.init)]
    # The new network is named by a process id as seen from outside, so only the laptop's network is entered.
    subprocess.run(
        ["nsenter", f"--target={laptop.init}", "--net", "ip", "link", "add", cable, "type", "veth", *peer], check=True
    )
    for command in (["ip", "link", "set", cable, "master", "br0"], ["ip", "link", "set", cable, "up"]):
        _check(laptop, command)
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["ip", "addr", "add", f"{host.address}/24", "dev", "eth0"],
        ["ip", "link", "set", "eth0", "up"],
        ["ip", "route", "add", "default", "via", laptop.address],
    ):
        _check(host, command)


def _check(machine: Machine, command: list[str]) -> None:
    done = machine.run(*command)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def environment_for(host: Machine) -> None:
    """What `make setup` would install there: this environment."""
    (host.home / "crossview").mkdir()
    (host.home / "crossview" / ".venv").symlink_to(sys.prefix)
