"""Kinds of files by their first bytes: images that are read, and what is often met in the place of one."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from seedpo.files import read_head

HEAD = 512
"""Bytes from the beginning of a file that tell its kind."""

FORMATS = MappingProxyType(
    {
        "AVIF": (".avif", ".avifs"),
        "BMP": (".bmp",),
        "GIF": (".gif",),
        "JPEG": (".jfif", ".jif", ".jpe", ".jpeg", ".jpg", ".mpo"),
        "JPEG2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
        "PNG": (".apng", ".png"),
        "PPM": (".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
        "QOI": (".qoi",),
        "TIFF": (".tif", ".tiff"),
        "WEBP": (".webp",),
    }
)
"""Formats that are read, by Pillow's names, with the endings of such files.

The list is closed and short: formats that the first bytes tell, so that no file is handed to a decoder by guess. Left
out are those for which Pillow starts a program (EPS) and those in which nobody keeps pictures of a model.
"""

ENDINGS = frozenset(ending for endings in FORMATS.values() for ending in endings)
"""Endings of the names of image files, in small letters."""

_IMAGES = MappingProxyType(
    {
        "JPEG": rb"\xff\xd8\xff",
        "PNG": rb"\x89PNG\r\n\x1a\n",
        "WEBP": rb"RIFF....WEBP",
        "GIF": rb"GIF8[79]a",
        "BMP": rb"BM....\0\0\0\0",
        "TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
        "AVIF": rb"....ftyp(?:avi[fs]|....(?:....){1,12}?avi[fs])",
        "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51\0",
        "QOI": rb"qoif\0",
        "PPM": rb"P[1-6]\s+(?:#[^\n]*\n\s*)*\d+\s+\d+\s",
    }
)
"""First bytes that tell a format, whatever the name of the file."""

_RAW_ENDINGS = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
_RARE_ENDINGS = (".dds", ".dib", ".pcx", ".sgi", ".tga", ".xbm", ".xpm")
_MARKUP = rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*"
_CONVERT = "convert it to PNG or JPEG"
_FOREIGN_IMAGES = (
    ("a HEIC image", (".heic", ".heif", ".hif"), rb"....ftyp(?:hei[cmxs]|hev[cmxs]|mif1|msf1)"),
    ("a JPEG XL image", (".jxl",), rb"\xff\x0a|\0\0\0\x0cJXL "),
    ("a JPEG XR image", (".hdp", ".jxr", ".wdp"), rb"II\xbc"),
    ("an SVG drawing", (".svg", ".svgz"), _MARKUP + rb"(?:<[?!][^>]*>\s*)*<svg"),
    ("a PostScript drawing", (".eps", ".ps"), rb"%!PS|\xc5\xd0\xd3\xc6"),
    ("a metafile of Windows", (".emf", ".wmf"), rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF"),
    ("an OpenEXR image", (".exr",), rb"v/1\x01"),
    ("a Radiance image", (".hdr",), rb"#\?(?:RADIANCE|RGBE)"),
    ("a PDF document", (".pdf",), rb"%PDF"),
    ("a GIMP image", (".xcf",), rb"gimp xcf"),
    ("a raw file of a camera", _RAW_ENDINGS, rb"....ftypcrx|FUJI"),
    ("a drawing of Photoshop", (".psd",), rb"8BPS"),
    ("an icon", (".cur", ".icns", ".ico"), rb"icns|\0\0[\1\2]\0[^\0]\0"),
    ("an image of a rare format", _RARE_ENDINGS, rb"DDS |BLP[12]|FTC[\0-\x20]|\x01\xda[\0\1][\1\2]"),
)
"""Images that are not read: what they are called, endings, first bytes."""

_OTHERS = (
    ("a git-lfs pointer, not the file itself", "run `git lfs pull` where it was cloned", rb"version https://git-lfs"),
    ("a git-annex pointer, not the file itself", "run `git annex get` where it was cloned", rb"/annex/objects/"),
    ("base64, not the bytes that it stands for", "store it as text", rb"iVBORw0KGgo|/9j/|R0lGOD|UklGR|data:"),
    ("a web page", "download the file itself", _MARKUP + rb"<(?:!doctype html|html|head|body)"),
    ("an XML document, such as a server's error", "download the file itself", _MARKUP + rb"<\?xml"),
    ("a video", "take a frame out of it", rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xba\xb3]"),
    ("an archive", "unpack it", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh\d|\xfd7zXZ|(?s:.{257}ustar)"),
    ("an array of numpy", "save it as PNG", rb"\x93NUMPY"),
    ("a file of macOS about another file", "remove it", rb"\0\x05\x16\x07"),
    ("only zero bytes, as a download that broke off leaves", "fetch or copy it again", rb"\0{16}"),
)
"""Files that are no images: what they are, what to do, first bytes."""


def image_format(head: bytes) -> str | None:
    """The format of an image file as :data:`FORMATS` names it; `None`: its first bytes do not tell one.

    Args:
        head: the first bytes of the file, :data:`HEAD` of them if there are as many.
    """
    return next((name for name, pattern in _IMAGES.items() if _begins(head, pattern)), None)


def is_image(head: bytes) -> bool:
    """Whether a file is surely an image of a format that is read, by its first bytes."""
    return image_format(head) is not None


def may_be_image(path: Path) -> bool:
    """Whether a file is to be read as an image: by its ending, or by its content if that ending is of no image."""
    ending = path.suffix.lower()
    return ending in ENDINGS or (is_image(_head(path)) and ending not in _RAW_ENDINGS)


def foreign_image(path: Path) -> str | None:
    """What a file is, if it is an image of a format that is not read; `None` for any other file."""
    ending, head = path.suffix.lower(), _head(path)
    if may_be_image(path):
        return None
    known = (name for name, endings, pattern in _FOREIGN_IMAGES if ending in endings or _begins(head, pattern))
    return next(known, None)


def explanation(head: bytes) -> str | None:
    """What a file is that is no readable image, and what to do about it; `None` if its first bytes do not tell."""
    known = [(name, _CONVERT, pattern) for name, _, pattern in _FOREIGN_IMAGES]
    return next((f"{name}; {fix}" for name, fix, pattern in (*known, *_OTHERS) if _begins(head, pattern)), None)


def _begins(head: bytes, pattern: bytes) -> bool:
    return re.match(pattern, head[:HEAD], re.DOTALL | re.IGNORECASE if b"<" in pattern else re.DOTALL) is not None


def _head(path: Path) -> bytes:
    try:
        return read_head(path, HEAD)
    except OSError:
        return b""
