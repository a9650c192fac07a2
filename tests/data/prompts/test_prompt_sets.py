from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.data.prompts.prompt_sets import HPSV2, PARTI, PICKAPIC, study_300
from seedpo.errors import DataError

STYLES = ("anime", "concept-art", "paintings", "photo")


def parti_file(folder: Path, count: int = 3) -> Path:
    """In the layout of the published file, quotation marks included."""
    rows = [f'a "parti" prompt {row}\tAnimals\tBasic\tsome "note' for row in range(count)]
    path = folder / "PartiPrompts.tsv"
    path.write_text("\n".join(["Prompt\tCategory\tChallenge\tNote", *rows]) + "\n", encoding="utf-8")
    return path


def hpsv2_files(folder: Path, count: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    for style in STYLES:
        prompts = [f"{style} prompt {row}" for row in range(count)]
        (folder / f"{style}.json").write_text(json.dumps(prompts), encoding="utf-8")
    return folder


def test_parti(tmp_path: Path) -> None:
    wanted = [f'a "parti" prompt {row}' for row in range(3)]
    assert PARTI(str(parti_file(tmp_path))) == PARTI(str(tmp_path)) == wanted


def test_hpsv2_in_the_order_of_its_styles(tmp_path: Path) -> None:
    wanted = [f"{style} prompt {row}" for style in STYLES for row in range(2)]
    assert HPSV2(str(hpsv2_files(tmp_path))) == wanted
    whole = tmp_path / "repository"
    whole.mkdir()
    hpsv2_files(whole / "benchmark")
    assert HPSV2(str(whole)) == wanted


def test_pickapic(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table({"caption": ["one", "two"], "jpg_0": [b"", b""]})
    pq.write_table(table, tmp_path / "data" / "validation_unique-00000-of-00001-33ead1.parquet")
    assert PICKAPIC(str(tmp_path)) == ["one", "two"]


def test_the_study_is_drawn_by_seed(tmp_path: Path) -> None:
    parti_file(tmp_path, 120)
    hpsv2_files(tmp_path, 60)
    drawn = study_300(str(tmp_path))
    assert len(set(drawn)) == 300
    assert sum("parti" in prompt for prompt in drawn) == 100
    assert study_300(str(tmp_path)) == drawn
    assert study_300(str(tmp_path), seed=1) != drawn
    assert 10 < sum("parti" in prompt for prompt in drawn[:90]) < 50  # shuffled together


def test_too_few_for_the_study(tmp_path: Path) -> None:
    parti_file(tmp_path, 120)
    hpsv2_files(tmp_path, 2)
    with pytest.raises(DataError, match=r"study-300 needs 200 different prompts of hpsv2; .* has 8"):
        study_300(str(tmp_path))


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompt set hpsv2: .* holds no benchmark/anime\.json; name a folder"):
        HPSV2(str(tmp_path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for load, content, said in [
        (PARTI, "one\ttwo\n1\t2\n", "prompt"),
        (HPSV2, "{}", "list"),
        (HPSV2, "[1]", "entry 1 is not text but int"),
        (HPSV2, "[", "begins as JSON and is not"),
        (HPSV2, "[]", "holds no prompt"),
        (PICKAPIC, "PAR1", "cannot be read as parquet"),
    ]:
        path = tmp_path / "file"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=said):
            load(str(path))  # type: ignore[operator]


@pytest.mark.parametrize("load", [PARTI, HPSV2, PICKAPIC, study_300])
def test_without_a_network(load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"cannot be fetched from the data set .*write \w[\w-]*@FOLDER") as caught:
        load()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
