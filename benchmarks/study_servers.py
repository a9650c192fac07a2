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

SERVE = (
    "import sys; from pathlib import Path; from seedpo.study.serving import serve; "
    "serve(Path(sys.argv[1]), port=int(sys.argv[2]))"
)
"""What ``seedpo study serve STUDY --port PORT`` does."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StudyServer:
    """A served study as a process that can be killed and started again on the same port."""

    def __init__(self, study: Path, log: Path) -> None:
        self.study = study
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 300.0) -> None:
        command = [sys.executable, "-c", SERVE, str(self.study), str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/healthz", timeout=2.0):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text('utf-8', errors='replace')[-2000:]}")

    def kill(self) -> None:
        """``kill -9``: nothing is flushed, nothing is closed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15.0)
            except subprocess.TimeoutExpired:
                self.kill()


def postgres_binaries() -> Path | None:
    """Folder of initdb and pg_ctl: on the PATH, else the newest under Debian's place; none if there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path(POSTGRES_FOLDERS).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with its own data on a loopback port, with its usual durability; gives the URL."""
    binaries = postgres_binaries()
    if binaries is None:
        raise RuntimeError("no PostgreSQL here: neither initdb on the PATH nor under " + POSTGRES_FOLDERS)
    # initdb refuses root: as root, everything runs as the user that Debian's package makes.
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="seedpo-postgres-"))
    if prefix:
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", free_port()

    def run(program: str, *arguments: str) -> None:
        with (folder / f"{program}.log").open("ab") as log:
            subprocess.run([*prefix, binaries / program, *arguments], check=True, stdout=log, stderr=log, cwd="/")

    try:
        run("initdb", "--pgdata", str(data), "--username=seedpo", "--auth=trust", "--encoding=UTF8")
        options = f"-p {port} -h 127.0.0.1 -k {folder}"
        run("pg_ctl", "start", "-w", "-D", str(data), "-o", options, "-l", str(folder / "data" / "server.log"))
        try:
            yield f"postgresql+psycopg://seedpo@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "stop", "-m", "fast", "-w", "-D", str(data))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
