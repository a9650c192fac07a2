"""What a server knows and raters do not: a key in the study's folder, and what is derived from it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from seedpo.errors import DataError

FILE = ".server-key"
_SESSION_SECONDS = 12 * 3600


@dataclass(frozen=True)
class Secret:
    """A random key; everything derived from it is the same after a restart and in every process of a server.

    Attributes:
        key: 32 random bytes.
    """

    key: bytes

    def mac(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that only the holder of the key can make; parts cannot be shifted, since their lengths count."""
        message = "".join(f"{len(part)}:{part};" for part in (purpose, *parts))
        return hmac.new(self.key, message.encode(), hashlib.sha256).digest()

    def admin_token(self) -> str:
        """The token of the admin page, unless the server was given another."""
        return self.mac("admin token").hex()[:40]

    def form_token(self, holder: str) -> str:
        """What a form or request of a page must carry, against requests that another site makes in a rater's name."""
        return self.mac("form", holder).hex()[:32]

    def is_form_token(self, holder: str, offered: str) -> bool:
        """Whether it is the one of this holder."""
        return hmac.compare_digest(self.form_token(holder).encode(), offered.encode())

    def session(self, admin_token: str, *, now: float | None = None) -> str:
        """Value of the admin page's cookie, good for twelve hours."""
        until = str(int((time.time() if now is None else now) + _SESSION_SECONDS))
        return f"{until}.{self.mac('session', admin_token, until).hex()}"

    def is_session(self, admin_token: str, offered: str, *, now: float | None = None) -> bool:
        """Whether a cookie was made here for this admin token and has not ended."""
        until, _, signature = offered.partition(".")
        if not until.isdecimal() or len(until) > 12:
            return False
        right = self.mac("session", admin_token, until).hex()
        return hmac.compare_digest(right.encode(), signature.encode()) and int(until) > (
            time.time() if now is None else now
        )

    def image_key(self, rater: str, image: str) -> str:
        """The name under which one rater gets an image: says nothing, differs between raters, needs no table.

        The id is encrypted under a nonce that is the message's own authentication code (as in SIV, RFC 5297), so that
        a key which was not given out by the server is not accepted.

        Args:
            rater: id.
            image: id, 32 hexadecimal digits.
        """
        nonce = self.mac("image", rater, image)[:16]
        stream = self.mac("image stream", rater, nonce.hex())[:16]
        return (nonce + _xor(bytes.fromhex(image), stream)).hex()

    def image_of(self, rater: str, key: str) -> str | None:
        """The image behind a key that was given to this rater; none for any other text."""
        try:
            raw = bytes.fromhex(key)
        except ValueError:
            return None
        if len(raw) != 32:
            return None
        nonce, hidden = raw[:16], raw[16:]
        image = _xor(hidden, self.mac("image stream", rater, nonce.hex())[:16]).hex()
        return image if hmac.compare_digest(self.mac("image", rater, image)[:16], nonce) else None


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def read_secret(folder: Path) -> Secret:
    """The key of a study's folder; made, readable by the owner only, at the first call.

    Raises:
        DataError: it cannot be read or written, or is no key.
    """
    path = folder / FILE
    try:
        # Written aside and linked into place: of two servers that start at once, the second one reads the first's.
        if not path.exists():
            new = folder / f"{FILE}.{secrets.token_hex(8)}"
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
        raise DataError(f"{path}: {error.strerror}; the server keeps its key there") from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise DataError(f"{path}: this is no key of 64 hexadecimal digits; delete it and a new one is made")
    return Secret(key)
