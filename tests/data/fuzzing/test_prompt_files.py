"""Files of prompts of every kind, by every reader of them."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path

from hypothesis import strategies as st

from seedpo.data.image_list import ListedImage, find_images, with_prompts
from seedpo.data.prompts.prompt_sets import HPSV2, PARTI, PICKAPIC
from seedpo.data.prompts.reading import load_prompts, read_prompts
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed, harmless, outcome
from tests.data.fuzzing.test_parquet import shards
from tests.data.fuzzing.values import (
    ENCODINGS,
    PATHS,
    VALUES,
    WORDS,
    encoded_text,
    expanded,
    files,
    tables,
    texts,
)

ENDINGS = st.sampled_from([".txt", ".jsonl", ".json", ".csv", ".tsv", ".yaml", ".parquet", ""])

LISTS = st.lists(VALUES | WORDS, max_size=4).map(json.dumps)
YAML = st.lists(WORDS, max_size=4).map(lambda words: "".join(f"- {word}\n" for word in words)) | st.sampled_from(
    [
        "- a star\n- a fox\n",
        "prompts:\n- a star\n",
        "- &a a\n- *a\n",
        "- !!python/object:os.system x\n",
        "- 2020-01-01\n- 1_0\n",
        "- a: b\n",
        "-\n",
        "- [[[",
        "? - a\n",
    ]
)
TEXTS = st.one_of(texts(tables()), LISTS, YAML, st.lists(WORDS).map("\n".join), st.just("- " * 5000))


NAMES = (PATHS | WORDS).filter(lambda name: name not in ("..", "/"))  # which are searched whole


def check(content: bytes, ending: str, counted: int | None = None) -> None:
    with harmless(), a_folder() as folder:
        for name, picture in files().items():
            (folder / name).write_bytes(picture)
        file = folder / f"prompts{ending}"
        file.write_bytes(expanded(content))
        images = find_images([str(folder / name) for name in files()])
        for read in (
            lambda: read_prompts(file),
            lambda: load_prompts(str(file)),
            lambda: [image.prompt for image in with_prompts(images, file)],
            lambda: with_prompts(images[:1], file),
            lambda: PARTI(str(file)),
            lambda: HPSV2(str(file)),
            lambda: PICKAPIC(str(file)),
        ):
            prompts, message = outcome(read)
            assert repr(outcome(read)) == repr((prompts, message))  # NaN equals nothing
            assert message is None or file.name in message
            for prompt in prompts or ():
                text = (
                    prompt
                    if isinstance(prompt, str)
                    else prompt.prompt
                    if isinstance(prompt, ListedImage)
                    else prompt.text
                )
                text.encode()  # as tokenizers and files take it
                assert "\0" not in text


@fuzzed(60, text=TEXTS, encoding=ENCODINGS, ending=ENDINGS)
def test_any_text_gives_prompts_or_a_named_fault(text, encoding, ending):
    check(encoded_text(text, encoding), ending)


@fuzzed(30, content=TEXTS.flatmap(lambda text: damaged(encoded_text(text[:5000], "utf-8"))), ending=ENDINGS)
def test_damaged_texts_give_prompts_or_a_named_fault(content, ending):
    check(content, ending)


@fuzzed(30, content=shards() | shards().flatmap(damaged), ending=ENDINGS)
def test_any_parquet_file_gives_prompts_or_a_named_fault(content, ending):
    check(content, ending)


@fuzzed(30, name=NAMES)
def test_any_name_gives_content_or_a_named_fault(name):
    with a_folder() as folder, chdir(folder), harmless():
        outcome(lambda: load_prompts(name))
        outcome(lambda: load_prompts(f"hpsv2@{name}"))
        outcome(lambda: read_prompts(Path(name)))
        outcome(lambda: find_images([name]))
        outcome(lambda: load_pairs(name, PairsConfig()))
