"""Images as they travel: PNG files without loss, and what identifies one."""

from __future__ import annotations

import hashlib
import io

from PIL import Image
from torch import Tensor

_EFFORT = 1
"""Of zlib, from 0 to 9: more makes files a little smaller and takes several times as long."""


def png_bytes(image: Tensor) -> bytes:
    """An image as a PNG file, without loss; the same image gives the same bytes.

    Args:
        image: (3, H, W) uint8.
    """
    file = io.BytesIO()
    pixels = image.detach().cpu().permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=_EFFORT)
    return file.getvalue()


def image_hash(file: bytes) -> str:
    """What identifies an image: the SHA-256 of its file, in hexadecimal digits."""
    return hashlib.sha256(file).hexdigest()
