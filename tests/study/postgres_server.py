"""A PostgreSQL server of its own, for the time of a test session."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.study_servers import postgres_binaries

USER, PASSWORD = "seedpo", "s3cret-word"


class Server:
    """A running server; its databases are reached through a socket in its folder."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.binaries = binaries
        self.account = _account()
        self.process: subprocess.Popen[bytes] | None = None
        self.made = 0

    def call(self, *command: str) -> None:
        program = [str(self.binaries / command[0]), *command[1:]]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run(program, check=True, capture_output=True, cwd=self.folder, env=environment, **self.account)

    def start(self) -> None:
        data, log = self.folder / "data", self.folder / "log"
        options = ["-D", str(data), "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        command = [str(self.binaries / "postgres"), *options]
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=stream, cwd=self.folder, start_new_session=True, **self.account
            )
        for _ in range(300):
            ready = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.folder)]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        return f"postgresql://{USER}:{password}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        self.made += 1
        name = f"votes_{self.made}"
        self.call("createdb", "-h", str(self.folder), "-U", USER, name)
        return self.url(name)


def _account() -> dict[str, object]:
    """PostgreSQL refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


@contextmanager
def running_server() -> Iterator[Server]:
    binaries = postgres_binaries()
    assert binaries is not None
    with tempfile.TemporaryDirectory(prefix="seedpo-pg-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = Server(folder, binaries)
        (folder / "password").write_text(PASSWORD + "\n")
        if server.account:
            account = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        setup = ["-A", "scram-sha-256", "--pwfile=password", "--no-sync", "-E", "UTF8", "--locale=C"]
        server.call("initdb", "-D", "data", "-U", USER, *setup)
        server.start()
        try:
            yield server
        finally:
            server.stop()
