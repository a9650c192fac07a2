"""Where a study is reached: the server, its address, and the raters' personal links."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedpo.errors import ConfigError
from seedpo.files import write_aside
from seedpo.servers.addresses import base_address, check_names, is_loopback, listen, running_aside
from seedpo.study.folder import open_study
from seedpo.study.records import rater_labels
from seedpo.study.votes.store import Store
from seedpo.study.web.log_lines import limited_log
from seedpo.study.web.workers import run_workers

if TYPE_CHECKING:
    import uvicorn

    from seedpo.study.web.security import Limits

ADDRESS_FILE = ".server-address"
"""In a study's folder: where its server was reached last."""

DEFAULT_BASE = "http://127.0.0.1:8000"
"""Where a server is reached if it is not told otherwise."""


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    url: str | None = None,
    admin_token: str | None = None,
    names: Sequence[str] = (),
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Serves a study until it is interrupted. Addresses and visits of raters are not logged.

    Args:
        folder: of the study.
        host: address to listen on; the default is reached only from this machine.
        port: to listen on; 0: a free one.
        url: of the database; `None`: the study's own.
        admin_token: opens the admin page; `None`: derived from the key in the study's folder.
        names: under which the server is reached, for instance ``study.example.org``.
        workers: processes that answer requests.
        say: called with each line that tells where the study is reached.

    Raises:
        SeedpoError: the study, its database, a name or the port cannot be used.
    """
    from seedpo.study.web.security import read_secret

    check_names(names)
    if workers > 1 and os.name == "nt":
        raise ConfigError(f"--workers {workers}: several processes need Linux or macOS; leave it out")
    listener = listen(host, port)
    try:
        local = is_loopback(host)
        hosts = [*names, *([] if local else [host])]
        # Errors are told here, before any process starts; the processes do not read all images once more.
        run = partial(_run, folder, url=url, admin_token=admin_token, hosts=hosts, verify=False)
        with Store.open(open_study(folder), url):
            token = admin_token or read_secret(folder).admin_token()
        address = base_address(host, listener.getsockname()[1], names)
        say(f"study:  {address}/")
        say(f"admin:  {address}/admin   token: {token}")
        if not local:
            say(f"note:   whoever reaches {host} can open it, unencrypted: it needs a proxy with HTTPS in front of it")
        if not write_address(folder, f"https://{names[0]}" if local and names else address):
            say(f"note:   {folder} cannot be written, so give `seedpo study links` this address with --base")
        say("stop:   Ctrl-C; raters continue where they were when it is started again")
        if workers == 1:
            run(listener)
        else:
            with limited_log():
                run_workers(run, listener, number=workers)
    finally:
        listener.close()


def _run(folder: Path, listener: socket.socket, **options: Any) -> None:
    """Answers requests in this process until it gets SIGINT or SIGTERM."""
    with limited_log():
        _server(folder, **options).run(sockets=[listener])


def serving_aside(folder: Path, *, port: int = 0, limits: Limits | None = None) -> AbstractContextManager[str]:
    """Serves a study in a thread of this process and yields its address.

    Args:
        folder: of the study.
        port: to listen on; 0: a free one.
        limits: on requests; `None`: the usual ones.

    Raises:
        SeedpoError: the study or the port cannot be used.
    """
    return running_aside(partial(_server, folder, limits=limits), port=port, name="study")


def _server(folder: Path, **options: Any) -> uvicorn.Server:
    """A server of a study; the options are those of the application."""
    from seedpo.servers.connections import BoundedServer, allowed_connections
    from seedpo.study.web.app import build_app

    return BoundedServer(build_app(folder, **options), limit=allowed_connections())


def write_address(folder: Path, address: str) -> bool:
    """Notes in a study's folder where raters reach its server, for links that are made later.

    Returns:
        Whether the folder could be written.
    """
    try:
        with write_aside(folder / ADDRESS_FILE, unique=True, durable=False) as aside:
            aside.write_text(f"{address}\n", "utf-8")
    except OSError:
        return False
    return True


def last_address(folder: Path) -> str | None:
    """Where raters reached the server that was started last; `None` if none was, or its note cannot be read."""
    try:
        address = (folder / ADDRESS_FILE).read_text("utf-8").strip()
    except (OSError, ValueError):
        return None
    return address if address.startswith(("http://", "https://")) and len(address.split()) == 1 else None


def make_links(
    folder: Path,
    *,
    number: int,
    base: str,
    label: str = "",
    days: float | None = None,
    url: str | None = None,
    out: Path | None = None,
) -> list[str]:
    """Makes new raters and gives the link of each.

    Args:
        folder: of the study.
        number: how many.
        base: address under which raters reach the server, with ``http://`` or ``https://``.
        label: the owner's note beside them; several links get it with a number.
        days: until the links end; `None`: as the study says.
        url: of the database; `None`: the study's own.
        out: where they will be written; it is checked before any rater is made.

    Raises:
        SeedpoError: the address is not valid, the file exists, or the study or its database cannot be used.
    """
    if not base.startswith(("http://", "https://")):
        raise ConfigError(f"--base {base} is not an address; it begins with http:// or https://")
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists; links cannot be made again, so nothing is overwritten")
    study = open_study(folder, verify=False)
    with Store.open(study, url) as store:
        pairs = store.add_raters(rater_labels(label, number), days=study.settings.link_days if days is None else days)
    return [f"{base.rstrip('/')}/r/{token}" for _, token in pairs]


def write_links(path: Path, links: Sequence[str]) -> None:
    """Writes one link per line, readable by the owner only.

    Raises:
        ConfigError: the file exists or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write("".join(f"{link}\n" for link in links))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; the links are lost, make new ones with another --out") from error
