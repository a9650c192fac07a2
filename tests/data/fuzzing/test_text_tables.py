"""Tables of text: JSON lines and arrays, CSV with any separator, whatever their name ends in."""

from __future__ import annotations

from hypothesis import example
from hypothesis import strategies as st

from seedpo.data.settings import PairsConfig
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed
from tests.data.fuzzing.readings import read_twice
from tests.data.fuzzing.values import (
    ENCODINGS,
    SCALARS,
    as_json_lines,
    encoded_text,
    expanded,
    files,
    tables,
    texts,
)

ENDINGS = st.sampled_from([".jsonl", ".jsonl", ".json", ".csv", ".csv", ".tsv", ".txt", ".parquet", ".tar", ""])
CONFIGS = st.sampled_from(
    [
        PairsConfig(resolution=8),
        PairsConfig(ties="half"),
        PairsConfig(resolution=64, buckets=True),
        PairsConfig(resolution=8, from_scores="likes"),
        PairsConfig(resolution=64, buckets=True, from_scores="likes-of-pairs"),
    ]
)


def read(content: bytes, ending: str, config: PairsConfig, *, in_folder: bool = False):
    with a_folder() as folder:
        for name, picture in files().items():
            (folder / name).write_bytes(picture)
        table = folder / f"pairs{ending}"
        table.write_bytes(expanded(content))
        return read_twice(folder if in_folder else table, config)


@fuzzed(60, text=texts(tables()), encoding=ENCODINGS, ending=ENDINGS, config=CONFIGS, in_folder=st.booleans())
def test_any_table_gives_rows_or_a_named_fault(text, encoding, ending, config, in_folder):
    read(encoded_text(text, encoding), ending, config, in_folder=in_folder)


@fuzzed(
    40,
    content=texts(tables(SCALARS, most=3)).flatmap(lambda text: damaged(encoded_text(text, "utf-8"))),
    ending=ENDINGS,
)
def test_damaged_tables_give_rows_or_a_named_fault(content, ending):
    read(content, ending, PairsConfig(resolution=8))


@fuzzed(30, content=st.binary(max_size=300) | st.text(max_size=100).map(str.encode), ending=ENDINGS)
def test_files_of_nothing_known_are_named(content, ending):
    read(content, ending, PairsConfig(resolution=8))


@fuzzed(40, rows=tables())
@example(rows=[{"prompt": "a \ud83d", "chosen": "red.png", "rejected": "blue.png"}])
@example(rows=[{"prompt": "a star", "chosen": "red.png", "rejected": "blue.png", "split": []}])
@example(rows=[{"caption": "a star", "images": ["red.png", "blue.png"], "ranks": [10**400, float("nan")]}])
def test_no_row_vanishes(rows):
    pairs = read(as_json_lines(rows, ascii_only=True).encode(), ".jsonl", PairsConfig(resolution=8))
    if pairs is not None:
        assert len(pairs.table) == len(rows)
