"""Images and prompts as they travel: PNG files without loss, what identifies one, and text that JSON can hold."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence

from PIL import Image
from torch import Tensor

from seedpo.data.text import shown, value_fault
from seedpo.errors import DataError
from seedpo.protocols import Images
from seedpo.rewards.scoring import byte_batches, check_counts

_EFFORT = 1
"""Of zlib, from 0 to 9: more makes files a little smaller and takes several times as long."""


def check_sendable(images: Images, prompts: Sequence[str]) -> None:
    """Checks that there is one prompt for each image, and that it can be sent.

    Raises:
        DataError: if the counts differ, or a prompt holds NUL or half a surrogate pair.
    """
    check_counts(images, prompts)
    for row, prompt in enumerate(prompts):
        if fault := value_fault(prompt):
            raise DataError(f"prompt {row}, {shown(prompt)}, {fault}, which cannot be sent; remove it")


def png_files(images: Images, *, prepare: Callable[[Tensor], Tensor] = lambda image: image) -> list[bytes]:
    """Images as PNG files, in their order.

    Args:
        images: (B, 3, H, W) in [0, 1], which are rounded to 8 bits; or B PIL images of any sizes.
        prepare: what is sent of an image (3, H, W) uint8.

    Raises:
        DataError: if an element is not an image; the message names the row.
    """
    files: dict[int, bytes] = {}
    for rows, pixels in byte_batches(images, device="cpu"):
        files |= {row: png_bytes(prepare(image)) for row, image in zip(rows, pixels, strict=True)}
    return [files[row] for row in range(len(images))]


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
