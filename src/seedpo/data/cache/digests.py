"""SHA-256 of arrays and settings: what decides whether a stored result is the one that is wanted. Needs no torch.

Every part is preceded by its length, so that no two lists of parts give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Array = tuple[str, tuple[int, ...], bytes]
"""A tensor's format as torch names it (``torch.float32``), its shape, and its numbers row by row."""


def digest(*parts: bytes) -> bytes:
    """SHA-256 of a list of parts, 32 bytes."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def arrays_digest(arrays: Mapping[str, Array], *context: bytes) -> bytes:
    """SHA-256 of named arrays (names, formats, shapes, numbers), after ``context``."""
    parts = list(context)
    for name in sorted(arrays):
        kind, shape, content = arrays[name]
        parts += [name.encode(), f"{kind} {shape}".encode(), content]
    return digest(*parts)


def settings_digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, in hexadecimal digits."""
    return digest(settings_text(settings).encode()).hex()


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as JSON, the same text whatever their order."""
    return json.dumps(settings, sort_keys=True, indent=1) + "\n"
