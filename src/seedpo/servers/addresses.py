"""Where a server listens, and how it is reached."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from seedpo.errors import ConfigError


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


def base_address(host: str, port: int, names: Sequence[str] = ()) -> str:
    """What precedes a path, ``http://127.0.0.1:8000``, with the first name of the server if it has one."""
    if host in ("0.0.0.0", "::", ""):
        host = names[0] if names else socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
