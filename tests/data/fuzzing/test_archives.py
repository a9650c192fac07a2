"""Tar archives: odd members and names, and damaged ones."""

from __future__ import annotations

import io
import tarfile
from functools import cache

from hypothesis import strategies as st

from seedpo.data.settings import PairsConfig
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed
from tests.data.fuzzing.readings import read_twice
from tests.data.fuzzing.values import DEEP, SOUND, VALUES, WORDS, as_json_lines, encoded_text, expanded, picture, tables

NAMES = st.sampled_from(
    [
        "1.chosen.png",
        "1.rejected.png",
        "1.prompt.txt",
        "1.json",
        "1.txt",
        "1.chosen.jpg",
        "2.chosen.avif",
        "2.rejected.webp",
        "2.txt",
        "v1.5_1.chosen.jpg",
        "a/b/3.chosen.png",
        "a/b/3.rejected.png",
        "./3.txt",
        "../3.txt",
        "/4.json",
        ".hidden.json",
        "._1.chosen.png",
        "__MACOSX/._1.chosen.png",
        "\ud83d.json",
        "\udcff.chosen.png",
        "n\nl.chosen.png",
        "caf\u00e9.chosen.png",
        "cafe\u0301.rejected.png",
        "5.jpg_0.jpg",
        "5.jpg_1.jpg",
        "5.CHOSEN.PNG",
        "",
        ".",
        "x" * 300 + ".chosen.png",
        "a/" * 200 + "1.txt",
    ]
)

CONTENTS = st.one_of(
    st.sampled_from(["PNG", "JPEG", "WEBP"]).map(picture),
    WORDS.map(lambda text: encoded_text(text, "utf-8")),
    tables(most=1).map(lambda rows: encoded_text(as_json_lines(rows, ascii_only=True), "utf-8")),
    VALUES.map(lambda value: encoded_text(as_json_lines([{"prompt": value}], ascii_only=True), "utf-8")),
    st.just(b'{"prompt": ' + DEEP),
    st.binary(max_size=40),
)

KINDS = st.sampled_from(
    [tarfile.REGTYPE] * 6 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)


def archive(members: list[tuple[str, bytes, bytes]], kind: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind, errors="surrogatepass") as tar:
        for name, short, sort in members:
            content = expanded(short)
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = (
                sort,
                "1.chosen.png",
                len(content) if sort == tarfile.REGTYPE else 0,
            )
            try:
                tar.addfile(member, io.BytesIO(content))
            except ValueError:  # names that this kind cannot hold
                continue
    return buffer.getvalue()


@cache
def sound() -> bytes:
    pair = [
        ("1.chosen.png", picture(), tarfile.REGTYPE),
        ("1.rejected.png", picture(), tarfile.REGTYPE),
        ("1.json", str(SOUND["plain"]).replace("'", '"').encode(), tarfile.REGTYPE),
    ]
    return archive([(f"{key}{name}", *rest) for key in "ab" for name, *rest in pair], tarfile.GNU_FORMAT)


def read(content: bytes, config: PairsConfig) -> None:
    with a_folder() as folder:
        (folder / "pairs.tar").write_bytes(content)
        read_twice(folder / "pairs.tar", config)


@fuzzed(
    50,
    members=st.lists(st.tuples(NAMES, CONTENTS, KINDS), max_size=8),
    kind=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    ties=st.sampled_from(["drop", "half"]),
)
def test_any_member_gives_rows_or_a_named_fault(members, kind, ties):
    pair = [
        ("1.chosen.png", picture(), tarfile.REGTYPE),
        ("1.rejected.png", picture(), tarfile.REGTYPE),
        ("1.txt", b"a", tarfile.REGTYPE),
    ]
    read(archive([*pair, *members], kind), PairsConfig(resolution=8, ties=ties, shuffle_buffer=2))


@fuzzed(50, content=st.deferred(lambda: damaged(sound())))
def test_damaged_archives_give_rows_or_a_named_fault(content):
    read(content, PairsConfig(resolution=8))
