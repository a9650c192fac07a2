"""Folders of ``save_to_disk``, whole and damaged."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import strategies as st

from seedpo.data.settings import PairsConfig
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed
from tests.data.fuzzing.readings import read_twice
from tests.data.fuzzing.test_folders import CONTENTS
from tests.data.fuzzing.values import expanded, picture

datasets = pytest.importorskip("datasets")


@cache
def sound(*, splits: bool) -> dict[str, bytes]:
    """The files of a saved set by their names."""
    row = {"prompt": "a star", "chosen": picture(), "rejected": picture("JPEG"), "chosen_probability": 0.8}
    with a_folder() as folder:
        rows = datasets.Dataset.from_list([row, row])
        (datasets.DatasetDict({"train": rows, "test": rows}) if splits else rows).save_to_disk(str(folder / "set"))
        files = sorted(path for path in (folder / "set").rglob("*") if path.is_file())
        return {str(path.relative_to(folder / "set")): path.read_bytes() for path in files}


@st.composite
def one_damaged(draw: st.DrawFn) -> dict[str, bytes | None]:
    files: dict[str, bytes | None] = dict(sound(splits=draw(st.booleans())))
    name = draw(st.sampled_from(sorted(files)))
    content = files[name]
    assert content is not None
    files[name] = draw(st.one_of(damaged(content), damaged(content), CONTENTS, st.none()))
    return files


@fuzzed(25, files=st.deferred(one_damaged))
def test_damaged_sets_give_rows_or_a_named_fault(files):
    with a_folder() as folder:
        for name, content in files.items():
            if content is not None:
                (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / "set" / name).write_bytes(expanded(content))
        read_twice(folder / "set", PairsConfig(resolution=8))
