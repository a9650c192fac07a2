"""Folders of images and captions: odd names, links, hidden files, damaged records."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from seedpo.data.image_list import find_images
from seedpo.data.settings import PairsConfig
from seedpo.study.image_folders import read_images
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed, harmless, outcome
from tests.data.fuzzing.readings import read_twice
from tests.data.fuzzing.values import DEEP, PATHS, VALUES, WORDS, encoded_text, expanded, picture

PARTS = (
    b"1.png",
    b"2.png",
    b"2.jpg",
    b"1.txt",
    b"1.caption",
    b".hidden.png",
    b".ipynb_checkpoints",
    b"._1.png",
    b"caf\xc3\xa9.png",
    b"cafe\xcc\x81.png",
    b"caf\xe9.png",
    b"caf\xe9.txt",
    b"a b.png",
    b"new\nline.png",
    b"esc\x1b[31m.png",
    b"star*.png",
    b"[1].png",
    b"back\\slash.png",
    b"1.PNG",
    b"1.avif",
    b"noending",
    b"00001-02.png",
    b"00000.png",
    b"\xd9\xa1.png",
    b"1" * 200 + b".png",
    b"prompt.txt",
    b"sub",
)
FOLDERS = (
    b"chosen",
    b"rejected",
    b"w",
    b"l",
    b"train/chosen",
    b"train/rejected",
    b"test/chosen",
    b"",
    b"chosen/sub",
    b"rejected/sub",
    b"images/m",
)
RECORDS = (
    b"metadata.jsonl",
    b"captions.csv",
    b"index.json",
    b"prompts.jsonl",
    b"dataset_dict.json",
    b"state.json",
    b"dataset_info.json",
    b"pairs.jsonl",
    b"a.tar",
    b"a.parquet",
)

ENTRIES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"file_name": PATHS | st.sampled_from(["1.png", "chosen/2.png", "1"]), "prompt": WORDS | VALUES}
        ),
        st.fixed_dictionaries({"file": PATHS | st.just("1.png"), "prompt": WORDS | VALUES}),
        st.dictionaries(st.sampled_from(["file", "prompt", "splits", "tile", "a"]), VALUES, max_size=2),
    ),
    max_size=3,
)
CONTENTS = st.one_of(
    ENTRIES.map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode()),
    ENTRIES.map(lambda rows: json.dumps(rows).encode()),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            b"file_name,prompt\n1,a star\n",
            b'file_name,prompt\n1,"a star\n2,b\n',
            DEEP,
            b"{}",
            b'{"splits": 3}',
            b'{"splits": ["train"]}',
            b'{"_data_files": 1}',
            b"",
            b"PAR1",
        ]
    ),
    WORDS.map(lambda text: encoded_text(text, "utf-8")),
)

LINKS = st.sampled_from([b".", b"..", b"chosen", b"nowhere", b"chosen/1.png", b"itself", b"/dev/null", b"sub"])

ITEMS = st.one_of(
    st.tuples(
        st.sampled_from(FOLDERS),
        st.sampled_from(PARTS),
        st.sampled_from([picture(), picture("JPEG"), b"a star", b"", b"\xff\xfe\0"]),
    ),
    st.tuples(st.just(b""), st.sampled_from(RECORDS), CONTENTS),
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(RECORDS), CONTENTS),
    st.tuples(
        st.sampled_from(FOLDERS),
        st.sampled_from([*PARTS, b"linked", b"linked.png"]),
        LINKS.map(lambda target: (target,)),
    ),
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from([b"pipe.png", b"3.png"]), st.none()),
)
"""Folder, name, and the bytes of a file, the target of a link, or nothing: a pipe, which whoever opens it waits at."""


def build(root: Path, items: list[tuple[bytes, bytes, Any]]) -> None:
    """What of it can be: a name that is taken stays as it is."""
    for folder, name, content in items:
        place = root / os.fsdecode(folder) / os.fsdecode(name)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_symlink() or place.exists():
                continue
            if content is None:
                os.mkfifo(place)
            elif isinstance(content, tuple):
                place.symlink_to(os.fsdecode(content[0]))
            else:
                place.write_bytes(expanded(content))
        except OSError:
            continue


SIDES = [
    (side, name, content)
    for side in (b"chosen", b"rejected")
    for name, content in ((b"1.png", picture()), (b"1.txt", b"a star"))
]


@fuzzed(60, items=st.lists(ITEMS, max_size=8), with_pair=st.booleans(), ties=st.sampled_from(["drop", "half"]))
def test_any_folder_gives_rows_or_a_named_fault(items, with_pair, ties):
    with a_folder() as folder:
        build(folder, [*SIDES, *items] if with_pair else items)
        read_twice(folder, PairsConfig(resolution=8, ties=ties))
        with harmless():
            for read in (
                lambda: find_images([str(folder)]),
                lambda: find_images([f"{folder}/**/*"]),
                lambda: read_images(folder),
            ):
                images, message = outcome(read)
                assert outcome(read) == (images, message)


@fuzzed(
    30,
    name=st.sampled_from([b"metadata.jsonl", b"captions.csv"]),
    content=CONTENTS.flatmap(lambda content: damaged(content[:3000])) | CONTENTS,
)
def test_any_captions_give_rows_or_a_named_fault(name, content):
    with a_folder() as folder:
        build(folder, [*SIDES, (b"", name, content)])
        read_twice(folder, PairsConfig(resolution=8))


@fuzzed(30, content=CONTENTS | CONTENTS.flatmap(lambda content: damaged(content[:3000])))
def test_any_index_gives_images_or_a_named_fault(content):
    with a_folder() as folder, harmless():
        build(folder, [(b"", b"index.json", content), (b"", b"1.png", picture()), (b"", b"red.png", picture())])
        for read in (lambda: find_images([str(folder)]), lambda: read_images(folder)):
            _, message = outcome(read)
            assert message is None or str(folder) in message
