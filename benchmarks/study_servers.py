"""Servers that a load run starts: the study application as a process of its own, and a PostgreSQL of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POSTGRES_FOLDERS = "/usr/lib/postgresql"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StudyServer:
    """``seedpo study serve`` as processes that can be killed and started again on the same port.

    Args:
        study: folder of the study.
        log: file for what it prints.
        workers: processes that answer.
    """

    def __init__(self, study: Path, log: Path, *, workers: int = 1) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._ended = 0.0
        options = ["--port", str(self.port), "--workers", str(workers)]
        self._command = [sys.executable, "-m", "seedpo", "study", "serve", str(study), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 300.0) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=2.0):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        output = self.log.read_text("utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"the server did not start (exit status {self._process.poll()}):\n{output}")

    def used(self) -> float:
        """Processor time of all its processes so far, in seconds."""
        return self._ended + (0.0 if self._process is None else processor_seconds(self._process.pid))

    def kill(self) -> None:
        """``kill -9`` of all its processes: nothing is flushed, nothing is closed."""
        assert self._process is not None
        self._ended = self.used()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Lets it end what it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30.0)
            except subprocess.TimeoutExpired:
                self.kill()


def processor_seconds(process: int) -> float:
    """Processor time of a process, of its children, and of those of them that have ended; NaN except on Linux."""
    ticks = 0
    family = {process}
    try:
        rows = [read_status(path) for path in Path("/proc").glob("[0-9]*/stat")]
    except ProcessLookupError:
        return processor_seconds(process)  # one of them ended just now
    if not rows:
        return float("nan")
    for number, parent, used in sorted(rows):  # children have higher numbers, but for a wrap around
        if number in family or parent in family:
            family.add(number)
            ticks += used
    return ticks / os.sysconf("SC_CLK_TCK")


def read_status(path: Path) -> tuple[int, int, int]:
    """Number of a process, its parent's, and ticks of the processor, with those of children that have ended."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return -1, -1, 0
    fields = text.rpartition(")")[2].split()  # from the third of proc(5) on: names may hold anything
    return int(path.parent.name), int(fields[1]), sum(int(value) for value in fields[11:15])


def postgres_binaries() -> Path | None:
    """Folder of initdb and pg_ctl: on the PATH, else the newest under Debian's place; none if there is none."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    versions = sorted(Path(POSTGRES_FOLDERS).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


class Postgres:
    """A PostgreSQL with its own data on a loopback port, with its usual durability.

    Attributes:
        url: for ``--database``.
    """

    def __init__(self) -> None:
        binaries = postgres_binaries()
        if binaries is None:
            raise RuntimeError("no PostgreSQL here: neither initdb on the PATH nor under " + POSTGRES_FOLDERS)
        # initdb refuses root: as root, everything runs as the user that Debian's package makes.
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        self.folder = Path(tempfile.mkdtemp(prefix="seedpo-postgres-"))
        if as_user:
            shutil.chown(self.folder, "postgres", "postgres")
        self._ended = 0.0
        self._binaries, self._as_user, self._port = binaries, as_user, free_port()
        self._data = self.folder / "data"
        self.url = f"postgresql+psycopg://seedpo@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "--pgdata", str(self._data), "--username=seedpo", "--auth=trust", "--encoding=UTF8")

    def start(self) -> None:
        """Returns when it answers."""
        options = f"-p {self._port} -h 127.0.0.1 -k {self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-o", options, "-l", str(self._data / "server.log"))

    def stop(self, mode: str = "fast") -> None:
        """Ends it; ``immediate`` is a crash."""
        self._ended = self.used()
        self._run("pg_ctl", "stop", "-m", mode, "-w", "-D", str(self._data))

    def used(self) -> float:
        """Processor time of all its processes so far, in seconds."""
        return self._ended + processor_seconds(int((self._data / "postmaster.pid").read_text().split()[0]))

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            command = [*self._as_user, self._binaries / program, *arguments]
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; its data are removed afterwards."""
    server = Postgres()
    try:
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(server.folder, ignore_errors=True)
