"""What somebody could put into a file to stop whoever reads it: one row for each attack."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Attack = Callable[[Path], object]
"""Puts an attack where a file belongs."""


def doubled(levels: int, line: str) -> str:
    """References that double what they stand for, again and again."""
    return "a0: &a0 {x: 1}\n" + "".join(line.format(n=n, m=n - 1) for n in range(1, levels))


YAML = {
    "aliases, 22 levels": doubled(22, "a{n}: &a{n} [*a{m}, *a{m}]\n"),
    "aliases, 200 levels": doubled(200, "a{n}: &a{n} [*a{m}, *a{m}]\n"),
    "merge keys": doubled(40, "a{n}: &a{n}\n  <<: [*a{m}, *a{m}]\n"),
    "recursive alias": "beta: &a [*a]\n",
    "recursive merge": "beta: &a\n  <<: *a\n",
    "brackets": "beta: " + "[" * 2_000,
    "mappings": "beta: " + "{a: " * 2_000,
    "block of lists": "- " * 2_000 + "x",
    "long number": "beta: " + "9" * 20_000,
    "long hexadecimal": "beta: 0x" + "f" * 20_000,
    "long sexagesimal": "beta: " + ":".join(["1"] * 10_000),
    "many values": "beta: [" + "1," * 25_000 + "]",
    "large text": "beta: " + "x" * (1 << 20),
    "many documents": "--- 1\n" * 2_000,
    "object of Python": "beta: !!python/object/apply:os.system ['exit 1']\n",
    "tag": "%TAG ! tag:yaml.org,2002:python/\n---\nbeta: !object/apply:os.system [x]\n",
    "directive": "%YAML 9.9\n---\nbeta: 1\n",
    "NaN": "beta: .nan\nseed: .inf\n",
    "half a character": 'beta: "\\ud800"\n',
    "NUL": 'beta: "\\0"\n',
    "key twice": "beta: 1\nbeta: 2\n",
    "escapes": '"\\e[2J": 1\nbeta: "\\a"\n',
    "list": "[1, 2]",
    "text": "hello",
    "nothing": "",
}

JSON = {
    "brackets": "[" * 100_000,
    "closed brackets": "[" * 900 + "]" * 900,
    "objects": '{"a":' * 900 + "1" + "}" * 900,
    "long number": '{"step":' + "9" * 1_000_000 + "}",
    "number beyond floats": '{"step":' + "9" * 400 + "}",
    "infinity": '{"step":1e999,"kind":"train","tile":1e999,"columns":1e999,"prompts":[]}',
    "NaN": '{"step":NaN,"kind":"train","tile":NaN}',
    "half a character": '{"step":"\\ud800","prompt":"\\ud800"}',
    "NUL": '{"prompt":"\\u0000","file":"\\u0000"}',
    "key twice": '{"step":1,"step":2,"prompt":"a","prompt":"b"}',
    "mark": '\ufeff{"step":1}',
    "escapes": '{"prompt":"\\u001b[2J","file":"\\u001b","\\u001b":1}',
    "other kinds": '{"step":{},"kind":[],"prompts":{},"columns":[],"manifest":[],"_class_name":{},"figures":3,"id":{}}',
    "other places": '[{"file":"../../../../../../../etc/hostname","prompt":"a"},{"file":"/etc/hostname","prompt":"b"}]',
    "blank lines": "\n" * 50_000 + "{",
    "list": "[]",
    "null": "null",
    "nothing": "",
}


def socket_at(path: Path) -> None:
    """A socket; its path may be longer than the system allows for the name of one."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(f"/proc/self/fd/{here}/{path.name}" if Path("/proc/self/fd").is_dir() else str(path))
    os.close(here)


def hollow(path: Path) -> None:
    """A terabyte that takes no place."""
    path.write_bytes(b'{"step": 1}\n')
    os.truncate(path, 1 << 40)


FILES: dict[str, Attack] = {
    "pipe": os.mkfifo,
    "socket": socket_at,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path),
    "terabyte": hollow,
    "UTF-16": lambda path: path.write_bytes("beta: 1\n".encode("utf-16")),
    "bytes": lambda path: path.write_bytes(bytes(range(256)) * 100),
}


def picture(kind: str = "PNG") -> bytes:
    """A small image file."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, kind)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def unfolding(megabytes: int) -> bytes:
    """Compressed bytes that stand for many."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def png(width: int, height: int, content: bytes = b"") -> bytes:
    """A PNG of 8-bit RGB."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return picture()[:8] + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def with_chunks(*chunks: bytes) -> bytes:
    """A small PNG with more chunks."""
    return picture()[:33] + b"".join(chunks) + picture()[33:]


def jpeg_of(width: int, height: int, scans: int = 1) -> bytes:
    """A JPEG that claims a size, and passes over its pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    place = content.find(b"\xff\xc2") + 5
    scan = content[content.rfind(b"\xff\xda") : -2]
    size = struct.pack(">HH", height, width)
    return content[:place] + size + content[place + 4 : -2] + scan * (scans - 1) + b"\xff\xd9"


def tiff_of(width: int, height: int, tile: int) -> bytes:
    """A TIFF in tiles."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 322: tile, 323: tile, 324: 200, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(404)


XMP = b"XML:com.adobe.xmp\0\1\0\0\0"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"

REFUSED_IMAGES = {
    "PostScript": POSTSCRIPT,
    "PostScript with a preview": b"\xc5\xd0\xd3\xc6" + b"\x20\0\0\0" * 8 + POSTSCRIPT,
    "PostScript behind a blank": b" " + POSTSCRIPT,
    "PDF": b"%PDF-1.7\n",
    "DDS": picture("DDS"),
    "icon": picture("ICO"),
    "icon of macOS": picture("ICNS"),
    "PCX": picture("PCX"),
    "TGA": picture("TGA"),
    "SGI": picture("SGI"),
    "Photoshop": b"8BPS\0\1" + bytes(100),
    "FLI": bytes(4) + b"\x11\xaf" + bytes(200),
    "FITS": b"SIMPLE  =                    T" + b" " * 2900,
    "XPM": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #fff", "a"};',
    "169 megapixels": png(13_000, 13_000, unfolding(20)),
    "one long line": png(89_000_000, 1, unfolding(20)),
    "more than integers": png(2**31 - 1, 2**31 - 1),
    "BMP of 30000": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 30000, 30000, 1, 24, *[0] * 6),
    "GIF of 65535": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + bytes(9) + b"\x08\x01\0\0;",
    "PPM of 30000": b"P6\n30000 30000\n255\n",
    "QOI of 9400": b"qoif" + struct.pack(">II", 9400, 9400) + b"\4\0" + b"\xfd" * 100_000,
    "JPEG of 65500": jpeg_of(65_500, 65_500),
    "JPEG of 3000 passes": jpeg_of(8_000, 8_000, 3_000),
    "JPEG of a million segments": b"\xff\xd8" + b"\xff\xe1\0\x02" * 1_000_000 + picture("JPEG")[2:],
    "PNG of 300000 chunks": with_chunks(chunk(b"tEXt", b"") * 300_000),
    "TIFF of a tile": tiff_of(64, 64, 2**30),
    "TIFF that is vast": tiff_of(2**31, 2**31, 64),
    "TIFF in a circle": b"II*\0" + struct.pack("<IHHHII", 8, 1, 256, 4, 1, 1) + struct.pack("<I", 8),
    "cut off": picture()[:50],
    "nothing": b"",
}
"""Files that are no image, whatever their name, or one that is larger than it looks."""

GIGABYTE = unfolding(1000)

TAKEN_IMAGES = {
    "zTXt of a gigabyte": with_chunks(chunk(b"zTXt", b"a\0\0" + GIGABYTE)),
    "iTXt of a gigabyte": with_chunks(chunk(b"iTXt", b"a\0\1\0\0\0" + GIGABYTE)),
    "XMP of a gigabyte": with_chunks(chunk(b"iTXt", XMP + GIGABYTE)),
    "iCCP of a gigabyte": with_chunks(chunk(b"iCCP", b"a\0\0" + GIGABYTE)),
    "XMP a thousand times": with_chunks(chunk(b"iTXt", XMP + unfolding(1)) * 1_000),
    "pixels of a gigabyte": png(16, 16, GIGABYTE),
    "JPEG with filling": b"\xff\xd8" + b"\xff" * 10_000_000 + picture("JPEG")[2:],
}
"""Small images around which somebody packed much."""
