"""Two machines in one: each has a network, a name, processes, and on wish a disk of its own (Linux namespaces).

A host is two processes that sleep in new namespaces, which commands enter. A virtual cable joins the networks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
NAMES = ("machine0", "machine1")
ADDRESSES = ("192.0.2.1", "192.0.2.2")
CABLE = "cable"
"""Name of the network interface within each host."""

PORT = 29500
"""Each pair of hosts has a network of its own, so that one port does for all."""


@cache
def no_hosts() -> str:
    """Why hosts cannot be made here; empty if they can."""
    if not sys.platform.startswith("linux"):
        return "namespaces need Linux"
    if os.geteuid() != 0:
        return "namespaces need root"
    try:
        with two_hosts():
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"namespaces cannot be made here ({error})"


@dataclass(kw_only=True)
class Host:
    """One of the two.

    Attributes:
        number: 0 or 1.
        hardware: sleeps in the namespaces of network, mounts and name.
        system: keeps the namespace of processes; all of them end with it.
    """

    number: int
    hardware: subprocess.Popen[bytes]
    system: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return NAMES[self.number]

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs a command on this host."""
        return [*_enter(_sleeper(self.system), "--pid"), f"--wd={Path.cwd()}", "--", *command]

    def call(self, *command: str) -> None:
        subprocess.run(self.inside(command), check=True, capture_output=True, timeout=20)

    def start(self, command: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a command on this host; what it prints goes to a file."""
        with output.open("ab") as file:
            return subprocess.Popen(
                self.inside(command),
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def own_disk(self, place: Path) -> None:
        """From now on this host sees a disk of its own at this place."""
        self.call("mount", "-t", "tmpfs", "none", str(place))

    def unplug(self) -> None:
        """Takes the network away: no packet says so to the other host."""
        self.call("ip", "link", "set", CABLE, "down")

    def kill_everything(self) -> None:
        """Kills all processes of this host and starts it anew; the network stays, so that connections are closed."""
        end(self.system)
        self.system = _system(self.hardware)


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other under their names."""
    with ExitStack() as stack:
        names = Path(stack.enter_context(TemporaryDirectory())) / "hosts"
        lines = ["127.0.0.1 localhost", *map(" ".join, zip(ADDRESSES, NAMES, strict=True))]
        names.write_text("\n".join(lines) + "\n", encoding="ascii")
        machines = [_sleep(["unshare", "--net", "--mount", "--uts"]) for _ in NAMES]
        for hardware in machines:
            stack.callback(end, hardware)
        ends = [f"seedpo{os.getpid()}{letter}" for letter in "ab"]
        subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
        hosts = []
        for number, (hardware, cable) in enumerate(zip(machines, ends, strict=True)):
            pid = _sleeper(hardware)
            subprocess.run(["ip", "link", "set", cable, "netns", str(pid)], check=True)
            for command in (
                f"ip link set {cable} name {CABLE}",
                f"ip address add {ADDRESSES[number]}/24 dev {CABLE}",
                "ip link set lo up",
                f"ip link set {CABLE} up",
                f"hostname {NAMES[number]}",
                f"mount --bind {names} /etc/hosts",
            ):
                subprocess.run([*_enter(pid), *command.split()], check=True)
            hosts.append(Host(number=number, hardware=hardware, system=_system(hardware)))
            stack.callback(lambda host=hosts[-1]: end(host.system))
        yield hosts[0], hosts[1]


def _system(hardware: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """A namespace of processes on a host; its first process sleeps, and all others end with it."""
    return _sleep([*_enter(_sleeper(hardware)), "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])


def _sleep(spaces: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *spaces, "sleep", "infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _enter(pid: int, *more: str) -> list[str]:
    return ["nsenter", "--target", str(pid), "--net", "--mount", "--uts", *more]


def _sleeper(started: subprocess.Popen[bytes]) -> int:
    """The process that sleeps: the one that was started, or its child."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError):
            children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
            for pid in (started.pid, *map(int, children)):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "sleep":
                    return pid
        time.sleep(0.01)
    raise OSError("unshare started no process")
