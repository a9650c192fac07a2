"""Where a study is reached: the server, its address, and the raters' personal links."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedpo.errors import ConfigError
from seedpo.study.folder import open_study
from seedpo.study.records import rater_labels
from seedpo.study.store import Store

if TYPE_CHECKING:
    import uvicorn

    from seedpo.study.security import Limits


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    url: str | None = None,
    admin_token: str | None = None,
    names: Sequence[str] = (),
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
        say: called with each line that tells where the study is reached.

    Raises:
        SeedpoError: the study, its database, a name or the port cannot be used.
    """
    for name in names:
        if "*" in name:
            raise ConfigError(f"--name {name}: write each name in full")
    listener = listen(host, port)
    try:
        local = is_loopback(host)
        hosts = [*names, *([] if local else [host])]
        server, token = _server(folder, url=url, admin_token=admin_token, hosts=hosts)
        address = base_address(host, listener.getsockname()[1], names)
        say(f"study:  {address}/")
        say(f"admin:  {address}/admin   token: {token}")
        if not local:
            say(f"note:   whoever reaches {host} can open it, unencrypted; put a server with HTTPS in front of it")
        say("stop:   Ctrl-C; raters continue where they were when it is started again")
        server.run(sockets=[listener])
    finally:
        listener.close()


@contextmanager
def serving_aside(folder: Path, *, port: int = 0, limits: Limits | None = None) -> Iterator[str]:
    """Serves a study in a thread of this process and yields its address.

    Args:
        folder: of the study.
        port: to listen on; 0: a free one.
        limits: on requests; `None`: the usual ones.

    Raises:
        SeedpoError: the study or the port cannot be used.
    """
    listener = listen("127.0.0.1", port)
    try:
        server, _ = _server(folder, limits=limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="study", daemon=True)
        thread.start()
        try:
            yield base_address("127.0.0.1", listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
    finally:
        listener.close()


def _server(folder: Path, **options: Any) -> tuple[uvicorn.Server, str]:
    """A server that logs no visits, and its admin token; the options are those of the application."""
    import uvicorn

    from seedpo.study.app import build_app

    app = build_app(folder, **options)
    config = uvicorn.Config(
        app, access_log=False, server_header=False, log_level="warning", timeout_graceful_shutdown=5
    )
    return uvicorn.Server(config), app.state.site.admin_token


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken, or the address does not belong to this machine.
    """
    try:
        kind, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(512)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}, port {port}: {error}; choose another with --port") from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether an address is reached only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def base_address(host: str, port: int, names: Sequence[str] = ()) -> str:
    """What precedes a path, ``http://127.0.0.1:8000``, with the first name of the server if it has one."""
    if host in ("0.0.0.0", "::", ""):
        host = names[0] if names else socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
