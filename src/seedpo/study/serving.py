"""Running the web application of a study."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from seedpo.errors import ConfigError


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
    """Serves a study until it is interrupted. Neither addresses nor visits of raters are logged.

    Args:
        folder: of the study.
        host: address to listen on; the default is reached from this machine only.
        port: to listen on; 0: a free one.
        url: of the database; none: what the study says.
        admin_token: opens the admin page; none: one that follows from the key in the study's folder.
        names: under which the server is reached, for instance ``study.example.org``.
        say: is given the lines that tell where the study is found.

    Raises:
        SeedpoError: the study, its database or the port cannot be used.
    """
    import uvicorn

    from seedpo.study.app import build_app

    listener = listen(host, port)
    try:
        app = build_app(
            folder, url=url, admin_token=admin_token, hosts=[*names, *([] if is_loopback(host) else [host])]
        )
        address = base_address(host, listener.getsockname()[1], names)
        say(f"study:  {address}/")
        say(f"admin:  {address}/admin   token: {app.state.site.admin_token}")
        if not is_loopback(host):
            say(f"note:   everyone who reaches {host} can open it, unencrypted; put a server with HTTPS before it")
        say("stop:   Ctrl-C; raters go on where they were when it is started again")
        config = uvicorn.Config(
            app, access_log=False, server_header=False, log_level="warning", timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
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
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def base_address(host: str, port: int, names: Sequence[str] = ()) -> str:
    """What to write before a path: ``http://127.0.0.1:8000``; by its first name if the server has one."""
    if host in ("0.0.0.0", "::", ""):
        host = names[0] if names else socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
