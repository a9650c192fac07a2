"""Parquet files: odd types, several schemas, nulls, and damaged ones."""

from __future__ import annotations

import datetime
import decimal
import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume
from hypothesis import strategies as st

from seedpo.data.settings import PairsConfig
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed
from tests.data.fuzzing.readings import read_twice
from tests.data.fuzzing.values import KEYS, SOUND, files, picture

LAYOUTS = (
    "plain",
    "probability",
    "pickapic",
    "judged",
    "one label",
    "hpdv3",
    "ranked",
    "rejected list",
    "rapidata",
    "likes",
    "talk",
)

TEXT = st.sampled_from(["a star", "", "red.png", "blue.png", "nul\0", "1", "true", "x" * 5000])
NUMBER = st.sampled_from([0, 1, 2, -1])
FLOAT = st.sampled_from([0.5, 1.0, 0.0, float("nan"), float("inf"), 1e308])
BYTES = st.sampled_from([picture(), picture("JPEG"), b"", b"red.png", b"\xff\xfe"])
FILE = st.fixed_dictionaries({"bytes": st.none() | BYTES, "path": st.none() | TEXT})

TYPES: Sequence[tuple[pa.DataType, st.SearchStrategy[Any]]] = (
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.binary(), BYTES),
    (pa.large_binary(), BYTES),
    (pa.binary_view(), BYTES),
    (pa.binary(2), st.just(b"ab")),
    (pa.int8(), NUMBER),
    (pa.int64(), NUMBER),
    (pa.uint64(), st.just(2**64 - 1)),
    (pa.float32(), FLOAT),
    (pa.float64(), FLOAT),
    (pa.float16(), st.sampled_from([0.5, 1.0])),
    (pa.bool_(), st.booleans()),
    (pa.null(), st.none()),
    (pa.dictionary(pa.int32(), pa.string()), TEXT),
    (pa.dictionary(pa.int8(), pa.int64()), NUMBER),
    (pa.timestamp("ns", "UTC"), st.just(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))),
    (pa.timestamp("ns"), st.just(1)),
    (pa.duration("ns"), st.just(1)),
    (pa.date32(), st.just(datetime.date(1, 1, 1))),
    (pa.date64(), st.just(2**52)),
    (pa.timestamp("s"), st.just(2**52)),
    (pa.decimal128(38, 2), st.just(decimal.Decimal("0.50"))),
    (pa.list_(pa.string()), st.lists(TEXT, max_size=3)),
    (pa.list_(pa.uint8()), st.just(list(picture()))),
    (pa.list_(pa.float64()), st.lists(FLOAT, max_size=3)),
    (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), FILE),
    (pa.struct([("path", pa.string())]), st.fixed_dictionaries({"path": TEXT})),
    (
        pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        st.just([{"role": "user", "content": "a star"}]),
    ),
    (pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])), st.lists(FILE, max_size=3)),
    (pa.map_(pa.string(), pa.string()), st.just([("bytes", "red.png")])),
    (pa.map_(pa.string(), pa.string()), st.just([("a", "1"), ("a", "2")])),
)
"""Types of columns with their values."""


@st.composite
def columns(draw: st.DrawFn, count: int) -> pa.Array:
    kind, values = draw(st.sampled_from(TYPES))
    return pa.array(draw(st.lists(st.one_of(values, values, values, st.none()), min_size=count, max_size=count)), kind)


@st.composite
def shards(draw: st.DrawFn) -> bytes:
    """A table of a sound layout in which some columns are of other types, missing, added, or there twice."""
    sound = SOUND[draw(st.sampled_from(LAYOUTS))]
    count = draw(st.sampled_from([1, 2, 3, 0]))
    arrays: list[pa.Array] = [pa.array([value] * count) for value in sound.values()]
    names = list(sound)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(names)))
        what = draw(st.sampled_from(["other", "other", "other", "remove", "add", "twice"]))
        if what == "add" or at == len(names):
            names.append(draw(st.sampled_from([key for key in KEYS if key.isprintable()])))
            arrays.append(draw(columns(count)))
        elif what == "other":
            arrays[at] = draw(columns(count))
        elif what == "twice":
            names.append(names[at])
            arrays.append(arrays[at])
        elif len(names) > 1:
            del names[at], arrays[at]
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(arrays, names=names)
    try:
        pq.write_table(table, buffer, row_group_size=draw(st.sampled_from([1, 100])), store_schema=draw(st.booleans()))
    except pa.ArrowException:  # a type that parquet does not have
        assume(False)
    return buffer.getvalue()


@cache
def sound() -> bytes:
    buffer = io.BytesIO()
    row = {"prompt": "a star", "chosen": picture(), "rejected": "x" * 20, "chosen_probability": 1.0}
    pq.write_table(pa.Table.from_pylist([row, row, row]), buffer, row_group_size=2, compression="none")
    return buffer.getvalue()


NAMES = st.sampled_from(
    ["a.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet", "sub/b.parquet"]
)


@fuzzed(
    50,
    tables=st.dictionaries(NAMES, shards(), min_size=1, max_size=3),
    config=st.sampled_from(
        [PairsConfig(resolution=8), PairsConfig(ties="half"), PairsConfig(resolution=64, buckets=True)]
    ),
)
def test_any_column_gives_rows_or_a_named_fault(tables, config):
    with a_folder() as folder:
        (folder / "sub").mkdir()
        for name, content in (files() | tables).items():
            (folder / name).write_bytes(content)
        place = folder if len(tables) > 1 else folder / next(iter(tables))
        pairs = read_twice(place, config)
        if pairs is not None and len(tables) == 1:
            assert len(pairs.table) == pq.read_metadata(place).num_rows


@fuzzed(60, content=st.deferred(lambda: damaged(sound())))
def test_damaged_files_give_rows_or_a_named_fault(content):
    with a_folder() as folder:
        (folder / "pairs.parquet").write_bytes(content)
        read_twice(folder / "pairs.parquet", PairsConfig(resolution=8))
