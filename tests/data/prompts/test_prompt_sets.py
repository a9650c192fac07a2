from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.data.prompts.prompt_sets import (
    DPG,
    GENEVAL2,
    HPDV3,
    HPDV3_CATEGORIES,
    HPSV2,
    OCR_TEST,
    OCR_TRAINING,
    PARTI,
    PICKAPIC,
    Published,
    study_300,
)
from seedpo.data.prompts.reading import PromptRecord, load_prompt_records, load_prompts, read_prompts
from seedpo.errors import DataError
from tests.data.prompts.published_sets import dpg_file, geneval2_file, hpdv3_files, ocr_files

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


def texts(records: Sequence[PromptRecord]) -> list[str]:
    return [record.text for record in records]


def test_parti(tmp_path: Path) -> None:
    wanted = [f'a "parti" prompt {row}' for row in range(3)]
    assert texts(PARTI(str(parti_file(tmp_path)))) == texts(PARTI(str(tmp_path))) == wanted
    assert {record.category for record in PARTI(str(tmp_path))} == {"Animals"}


def test_hpsv2_in_the_order_of_its_styles(tmp_path: Path) -> None:
    wanted = [f"{style} prompt {row}" for style in STYLES for row in range(2)]
    assert texts(HPSV2(str(hpsv2_files(tmp_path)))) == wanted
    assert [record.category for record in HPSV2(str(tmp_path))] == [style for style in STYLES for _ in range(2)]
    whole = tmp_path / "repository"
    whole.mkdir()
    hpsv2_files(whole / "benchmark")
    assert texts(HPSV2(str(whole))) == wanted


def test_pickapic(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table({"caption": ["one", "two"], "jpg_0": [b"", b""]})
    pq.write_table(table, tmp_path / "data" / "validation_unique-00000-of-00001-33ead1.parquet")
    assert texts(PICKAPIC(str(tmp_path))) == ["one", "two"]


def test_the_study_is_drawn_by_seed(tmp_path: Path) -> None:
    parti_file(tmp_path, 120)
    hpsv2_files(tmp_path, 60)
    drawn = texts(study_300(str(tmp_path)))
    assert len(set(drawn)) == 300
    assert sum("parti" in prompt for prompt in drawn) == 100
    assert texts(study_300(str(tmp_path))) == drawn
    assert texts(study_300(str(tmp_path), seed=1)) != drawn
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


@pytest.mark.parametrize("load", [PARTI, HPSV2, HPDV3, PICKAPIC, study_300])
def test_without_a_network(load: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"cannot be fetched from the data set .*write \w[\w-]*@FOLDER") as caught:
        load()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_hpdv3_in_the_order_of_its_categories(tmp_path: Path) -> None:
    for folder in (hpdv3_files(tmp_path / "flat"), hpdv3_files(tmp_path / "whole" / "benchmark").parent):
        records = load_prompt_records(f"hpdv3@{folder}")
        assert texts(records) == [f"{name} {row}" for name in HPDV3_CATEGORIES for row in range(2)]
        assert [record.category for record in records] == [name for name in HPDV3_CATEGORIES for _ in range(2)]
    one = tmp_path / "flat" / "benchmark_Natural Scenery.json"
    assert {record.category for record in HPDV3(str(one))} == {"Natural Scenery"}
    assert load_prompts(str(one)) == ["Natural Scenery 0", "Natural Scenery 1"], "the file by itself"
    one.unlink()
    with pytest.raises(DataError, match=r"holds no benchmark/benchmark_Natural Scenery\.json; name a folder"):
        HPDV3(str(tmp_path / "flat"))


def test_published_files_are_read_by_themselves_too(tmp_path: Path) -> None:
    for load, path in [
        (GENEVAL2, geneval2_file(tmp_path)),
        (DPG, dpg_file(tmp_path)),
        (OCR_TRAINING, ocr_files(tmp_path) / "train.txt"),
        (OCR_TEST, tmp_path / "test.txt"),
    ]:
        assert load(str(path)) == load(str(tmp_path)) == read_prompts(path)
        content = path.read_bytes()
        for changed in (b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content.rstrip()):
            (tmp_path / "changed").write_bytes(changed)
            assert load(str(tmp_path / "changed")) == load(str(path)), load.name


def test_dpg_has_one_prompt_for_all_rows_of_an_item(tmp_path: Path) -> None:
    records = DPG(str(dpg_file(tmp_path)))
    assert texts(records) == ['a long "prompt", with a fox', "a long prompt without one"]
    assert [len(record.values["propositions"]) for record in records] == [3, 1]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for record in records for row in record.values["propositions"])
    )
    assert texts(read_prompts(tmp_path / "rows.jsonl")) == texts(records)


def test_ocr_keeps_the_text_in_quotes(tmp_path: Path) -> None:
    ocr_files(tmp_path)
    assert texts(OCR_TRAINING(str(tmp_path))) == ['a sign that says "Open 24"', 'a cake with "Happy, Birthday" on it']
    (tmp_path / "train.txt").write_text('a sign that says "Open"\na sign\n')
    with pytest.raises(
        DataError, match=r"ocr-training: .*train\.txt line 2 \('a sign'\) holds no text in double quotes"
    ):
        OCR_TRAINING(str(tmp_path))


@pytest.mark.parametrize("load", [GENEVAL2, DPG, OCR_TRAINING, OCR_TEST])
def test_what_is_not_on_the_hub_is_named(load: Published) -> None:
    with pytest.raises(DataError, match=r"is not on the hub: fetch \S+ from the GitHub repository \w+/\w+") as caught:
        load_prompts(load.name)
    assert str(caught.value).endswith(f"write {load.name}@{next(iter(load.files)).rpartition('/')[2]}")


def test_broken_tables_of_questions(tmp_path: Path) -> None:
    content = dpg_file(tmp_path).read_text()
    for broken, said in [
        (content.replace("a long prompt without one", ""), ""),
        (content.replace("item_id", "id", 1), r"line 2 has the keys .*; expected is 'prompt'"),
        (
            content.replace("p0,a long", "COCO12,a long"),
            r"line 5 gives item_id 'COCO12' another text than",
        ),
        (content + "p0,other,,2,0,a,b,c,Is it?\n", r"line 6 gives item_id 'p0' another text"),
        (content + 'p2,"open\n', r"line 6 is not CSV"),
        (content + "p2,\0,,1,0,a,b,c,Is it?\n", r"line 6 holds a NUL"),
    ]:
        (tmp_path / "broken.csv").write_text(broken)
        if not said:
            assert len(DPG(str(tmp_path / "broken.csv"))) == 1, "an empty prompt of a publisher is left out"
            said = "is an empty prompt"
            with pytest.raises(DataError, match=said):
                read_prompts(tmp_path / "broken.csv")
            continue
        for read in (DPG, load_prompts):
            with pytest.raises(DataError, match=said) as caught:
                read(str(tmp_path / "broken.csv"))  # type: ignore[operator]
            assert "\n" not in str(caught.value)


def test_a_huge_line_is_no_prompt(tmp_path: Path) -> None:
    (tmp_path / "huge.txt").write_text("a fox\n" + "x" * 3_000_000)
    with pytest.raises(DataError, match=r"huge\.txt line 2 has 3,000,000 characters, more than 100,000"):
        load_prompts(str(tmp_path / "huge.txt"))
