"""The server's key and what follows from it; pace of requests."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from seedpo.errors import DataError
from seedpo.study.folder import KEY_FILE

LEAST_TOKEN = 24
"""Characters of an admin token that the owner chooses. A right one is accepted at any time, so guesses are slowed
down but not stopped: what protects the page is that the token cannot be guessed."""


@dataclass(frozen=True)
class Secret:
    """A random key. What is derived from it is the same after a restart and in every process of a server.

    Attributes:
        key: 32 random bytes.
    """

    key: bytes

    def mac(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that only the holder of the key can make. Lengths are included, so parts cannot be shifted."""
        message = "".join(f"{len(part)}:{part};" for part in (purpose, *parts))
        # Unlike `hmac.digest` it lets no other thread in, whose end the loop would wait for at each of ten names.
        return hashlib.blake2b(message.encode(), key=self.key, digest_size=32).digest()

    def admin_token(self) -> str:
        """The token of the admin page, unless the server was given another."""
        return self.mac("admin token").hex()[:40]

    def image_name(self, rater: str, image: str) -> str:
        """The name under which a rater gets an image: unguessable, and different for each rater.

        It is the image's id, encrypted and authenticated for this rater. So every process of a server can serve it
        without a look at the database.

        Args:
            rater: id of the rater.
            image: id of the image, 32 hexadecimal digits.
        """
        tag = self.mac("image", rater, image)[:16]
        return (tag + self._covered(rater, tag, bytes.fromhex(image))).hex()

    def image_of(self, rater: str, name: str) -> str | None:
        """The id of the image that a rater got under a name; `None` if the rater was never given such a name."""
        if not re.fullmatch("[0-9a-f]{64}", name):
            return None
        content = bytes.fromhex(name)
        image = self._covered(rater, content[:16], content[16:]).hex()
        return image if hmac.compare_digest(content[:16], self.mac("image", rater, image)[:16]) else None

    def form_token(self, holder: str) -> str:
        """What a form or request of a page must carry, so that no other site can act in its holder's name.

        Args:
            holder: a rater's link or the owner's session. The token is valid as long as they are.
        """
        return self.mac("form", holder).hex()

    def is_form_token(self, holder: str, token: str) -> bool:
        """Whether a token is that of this holder."""
        return is_same(token, self.form_token(holder))

    def _covered(self, rater: str, tag: bytes, content: bytes) -> bytes:
        """Covers 16 bytes, or uncovers them."""
        cover = self.mac("image cover", rater, tag.hex())[:16]
        return (int.from_bytes(content) ^ int.from_bytes(cover)).to_bytes(16)


def is_same(given: str, secret: str) -> bool:
    """Whether a text is the secret one; takes equally long for every wrong text."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def read_secret(folder: Path) -> Secret:
    """The key in a study's folder; the first call makes it, readable by the owner only.

    Raises:
        DataError: it cannot be read or written, or is not a key.
    """
    path = folder / KEY_FILE
    try:
        # Written aside and linked into place: if two servers start at once, the second reads the key of the first.
        if not path.exists():
            new = folder / f"{KEY_FILE}.{secrets.token_hex(8)}"
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            try:
                new.replace(path) if os.name == "nt" else os.link(new, path)
            except FileExistsError:
                pass
            finally:
                new.unlink(missing_ok=True)
        key = bytes.fromhex(path.read_text().strip())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; the server stores its key there") from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise DataError(f"{path} is not a key of 64 hexadecimal digits; delete it and a new one is made")
    return Secret(key)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many requests per second one rater, or all strangers together, may send.

    Attributes:
        requests, requests_burst: pages, tasks and votes of a rater, and how many at once.
        images, images_burst: images of a rater.
        strangers, strangers_burst: all requests without a valid link: joining, wrong tokens.
        guesses, guesses_burst: wrong admin tokens from one network (see :func:`network`).
        all_guesses, all_guesses_burst: wrong admin tokens from everywhere. A right one is always accepted, at once.
        guess_seconds: how long a wrong token over these limits waits for its answer.
        body: bytes of a request's body.
    """

    requests: float = 20.0
    requests_burst: float = 60.0
    images: float = 60.0
    images_burst: float = 240.0
    strangers: float = 20.0
    strangers_burst: float = 400.0
    guesses: float = 0.1
    guesses_burst: float = 10.0
    all_guesses: float = 1.0
    all_guesses_burst: float = 50.0
    guess_seconds: float = 2.0
    body: int = 16_384


@dataclass
class Pace:
    """Token buckets in memory, one per key. The least recently used ones are forgotten.

    Attributes:
        rate: requests per second in the long run.
        burst: requests at once.
        clock: seconds, monotonic.
        keys: number of keys that are remembered.
    """

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    keys: int = 10_000
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, key: str) -> float:
        """Takes one request from the key's bucket.

        Returns:
            0.0, or the seconds until the bucket has a request; then nothing is taken.
        """
        with self._lock:
            now = self.clock()
            level, then = self._buckets.pop(key, (self.burst, now))
            level = min(self.burst, level + (now - then) * self.rate)
            allowed = level >= 1.0
            self._buckets[key] = (level - 1.0 if allowed else level, now)
            while len(self._buckets) > self.keys:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - level) / self.rate


def network(address: str) -> str:
    """The network of an address, which one person may hold whole: /24 of IPv4, /56 of IPv6; empty for no address."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ipaddress.ip_network((int(ip), 24 if ip.version == 4 else 56), strict=False))
