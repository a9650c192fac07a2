"""Image files without their metadata, which must never spoil the picture that they belong to.

Pillow parses metadata while it opens a file, and refuses the whole file for a large profile, compressed text or odd
tags. Training needs none of them but the tag that says how the camera was held.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Part = TypeVar("Part")

LARGEST_TEXT = 1 << 20
"""Bytes of compressed text that are looked at: Pillow's own limit."""

PARTS, TEXTS = 200_000, 8
"""Chunks of a PNG or segments of a JPEG at most, and texts of a PNG that are looked at."""

Info = dict[str, Any]
"""What tells how the camera was held, under the keys of Pillow's ``Image.info``: ``exif`` and ``xmp``."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_EXIF_TEXT, _XMP_TEXT = b"Raw profile type exif", b"XML:com.adobe.xmp"

_JPEG = b"\xff\xd8"
_SCAN = 0xDA
_COMMENT = 0xFE
_FILLING = re.compile(rb"\xff+")
_LONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers that no content follows."""
_JFIF, _EXIF, _XMP, _ADOBE = b"JFIF\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"Adobe"

_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_XMP = 700
_TIFF_BYTES = (1, 7)
"""Types of tags that hold bytes."""
_TIFF_HELD = [(274, kind, 1) for kind in (1, 3, 4)]
"""How the camera was held, as one whole number."""
_PIXEL_TAGS = frozenset(
    {*range(254, 260), 262, 266, 273, *range(277, 280), 284, 292, 293, 317, *range(320, 330), 332, 336}
    | {*range(338, 348), *range(512, 533), 37439, 50674}
)
"""Numbers of TIFF's tags that say where and how the pixels are stored."""


def without_metadata(file: bytes) -> tuple[bytes, Info]:
    """A PNG, JPEG or TIFF file with nothing in it but what its pixels need; other files as they are.

    Of several pages or frames the first is left.

    Args:
        file: its bytes. Where its structure is damaged, the rest is left as it is.

    Returns:
        The file, and what was taken out of it that tells how the camera was held.

    Raises:
        ValueError: if it has more than :data:`PARTS` parts, each of which takes time.
    """
    if file.startswith(_PNG):
        return _png(file)
    if file.startswith(_JPEG):
        return _jpeg(file)
    return _tiff(file) if file[:4] in _TIFF_ORDERS else (file, {})


def _png(file: bytes) -> tuple[bytes, Info]:
    parts: list[bytes | memoryview] = [_PNG]
    info: Info = {}
    texts = 0
    for kind, start, end in _limited(_chunks(file)):
        if kind in _PIXEL_CHUNKS or kind == b"":
            parts.append(memoryview(file)[start:end])
        elif kind == b"eXIf":
            content = file[start + 8 : end - 4]
            if zlib.crc32(kind + content) == int.from_bytes(file[end - 4 : end], "big"):
                info["exif"] = _EXIF + content
        elif kind in _TEXT_CHUNKS and file.startswith((_EXIF_TEXT, _XMP_TEXT), start + 8) and texts < TEXTS:
            texts += 1
            info |= _text_info(kind, file[start + 8 : end - 4])
    return b"".join(parts), info


def _limited(parts: Iterable[Part]) -> Iterator[Part]:
    for number, part in enumerate(parts):
        if number >= PARTS:
            raise ValueError(f"more than {PARTS:,} parts")
        yield part


def _chunks(file: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each chunk; one of no kind is the rest of a file that breaks off."""
    start = len(_PNG)
    while start < len(file):
        end = start + int.from_bytes(file[start : start + 4], "big") + 12
        if end > len(file):
            yield b"", start, len(file)
            return
        yield file[start + 4 : start + 8], start, end
        if file[start + 4 : start + 8] == b"IEND":
            return
        start = end


def _text_info(kind: bytes, content: bytes) -> Info:
    """What a PNG's text says about the camera; nothing if it is of another matter, too large or damaged."""
    name, _, rest = content.partition(b"\0")
    if name not in (_EXIF_TEXT, _XMP_TEXT):
        return {}
    packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] != b"\0")
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        rest = b"".join(rest[2:].split(b"\0", 2)[2:])
    try:
        text = _unpacked(rest) if packed else rest
        return {"xmp": text} if name == _XMP_TEXT else {"exif": bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode())}
    except (ValueError, zlib.error):
        return {}


def _unpacked(content: bytes) -> bytes:
    packer = zlib.decompressobj()
    text = packer.decompress(content, LARGEST_TEXT)
    if packer.unconsumed_tail:
        raise ValueError("too large")
    return text


def _jpeg(file: bytes) -> tuple[bytes, Info]:
    parts: list[bytes | memoryview] = [_JPEG]
    info: Info = {}
    for marker, start, end in _limited(_segments(file)):
        content = file[start + 4 : end]
        if marker == 0xE1 and content.startswith(_EXIF):
            info["exif"] = info["exif"] + content[len(_EXIF) :] if "exif" in info else content
        elif marker == 0xE1 and content.startswith(_XMP):
            info["xmp"] = content[len(_XMP) :]
        elif not (0xE0 <= marker <= 0xEF or marker == _COMMENT) or _tells_colours(marker, content):
            parts.append(memoryview(file)[start:end])
    return b"".join(parts), info


def _tells_colours(marker: int, content: bytes) -> bool:
    """Whether libjpeg takes from a segment how numbers become colours."""
    return (marker == 0xE0 and content.startswith(_JFIF) and len(content) >= 14) or (
        marker == 0xEE and content.startswith(_ADOBE) and len(content) >= 12
    )


def _segments(file: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, begin and end of each segment before the pixels; one of marker 0 is the rest of the file."""
    start = len(_JPEG)
    while start + 4 <= len(file) and file[start] == 0xFF:
        marker = file[start + 1]
        if marker == 0xFF:
            start = _FILLING.match(file, start).end() - 1  # type: ignore[union-attr]
            continue
        end = start + 2 if marker in _LONE_MARKERS else start + 2 + int.from_bytes(file[start + 2 : start + 4], "big")
        if marker in (0, _SCAN) or end > len(file) or end < start + 2:
            break
        yield marker, start, end
        start = end
    yield 0, start, len(file)


def _tiff(file: bytes) -> tuple[bytes, Info]:
    """A list of those tags that the pixels need is appended, and the first page's own list is not used."""
    order = _TIFF_ORDERS[file[:4]]
    try:
        (start,) = struct.unpack_from(f"{order}I", file, 4)
        (count,) = struct.unpack_from(f"{order}H", file, start)
        entries = [struct.unpack_from(f"{order}HHI4s", file, start + 2 + 12 * place) for place in range(count)]
    except struct.error:
        return file, {}
    wanted = [entry for entry in entries if entry[0] in _PIXEL_TAGS or entry[:3] in _TIFF_HELD]
    head = struct.pack(f"{order}H", len(wanted)) + b"".join(struct.pack(f"{order}HHI4s", *entry) for entry in wanted)
    filling = bytes(len(file) % 2)
    place = struct.pack(f"{order}I", len(file) + len(filling))
    info: Info = {}
    for tag, kind, size, value in entries:
        if tag == _TIFF_XMP and kind in _TIFF_BYTES and size > 4:
            (start,) = struct.unpack(f"{order}I", value)
            info["xmp"] = file[start : start + size]
    return b"".join((file[:4], place, memoryview(file)[8:], filling, head, bytes(4))), info
