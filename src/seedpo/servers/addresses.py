"""Where a server listens, and how it is reached."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from seedpo.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn


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
        listener.listen()
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


def check_names(names: Sequence[str]) -> None:
    """Checks names under which a server is said to be reached.

    Raises:
        ConfigError: if one is a pattern.
    """
    for name in names:
        if "*" in name:
            raise ConfigError(f"--name {name}: write each name in full")


@contextmanager
def running_aside(build: Callable[[], uvicorn.Server], *, name: str, port: int = 0) -> Iterator[str]:
    """Runs a server on a port of this machine, in a thread, and yields its address.

    Args:
        build: makes the server, once the port is taken.
        name: of the thread.
        port: to listen on; 0: a free one.

    Raises:
        ConfigError: the port is taken.
    """
    listener = listen("127.0.0.1", port)
    try:
        server = build()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True)
        thread.start()
        try:
            yield base_address("127.0.0.1", listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
    finally:
        listener.close()


def base_address(host: str, port: int, names: Sequence[str] = ()) -> str:
    """What precedes a path, ``http://127.0.0.1:8000``, with the first name of the server if it has one."""
    if host in ("0.0.0.0", "::", ""):
        host = names[0] if names else socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
