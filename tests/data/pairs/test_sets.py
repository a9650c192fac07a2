"""What the readers share, on small files; ties, sizes and labels are shown with Pick-a-Pic's columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import BLUE, GREEN, RED, image_file, plain, write_images

LABELLED = {"caption": "a star", "jpg_0": "red.png", "jpg_1": "blue.png", "label_0": 0, "label_1": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path, red__png=image_file(RED), blue__png=image_file(BLUE), green__png=image_file(GREEN))
    return tmp_path


def manifest(folder: Path, *lines: dict[str, Any] | str, **settings: Any) -> PairSet:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "pairs.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    pairs = read_pairs(folder / "pairs.jsonl", PairsConfig(**settings))
    assert isinstance(pairs, PairSet)
    return pairs


class TestLinesThatCannotBeRead:
    def test_are_pairs_that_cannot_be_read_among_labelled_ones(self, folder: Path) -> None:
        """A line without labels is no wrong label: it is passed over like any other unreadable pair."""
        pairs = manifest(folder, LABELLED, '{"caption": ', LABELLED)
        assert len(pairs) == 3
        torch.testing.assert_close(pairs[2].chosen, plain(BLUE))
        with pytest.raises(DataError, match=r"pairs\.jsonl line 2 is not JSON .*; fix or remove it"):
            pairs[1]

    def test_do_not_hide_wrong_labels(self, folder: Path) -> None:
        pairs = manifest(folder, LABELLED, "broken", LABELLED | {"label_1": 3})
        with pytest.raises(DataError, match=r"line 3: .*label_0 = 0, label_1 = 3"):
            pairs[2]

    def test_are_not_all_that_a_set_may_hold(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"line 2: .*label_0 = 0, label_1 = 3"):
            manifest(folder, "broken", LABELLED | {"label_1": 3})


class TestImageFolder:
    def record(self, chosen: str) -> dict[str, str]:
        return {"prompt": "a star", "chosen": chosen, "rejected": "blue.png"}

    def test_paths_lead_nowhere_else(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        pairs = manifest(folder / "sub", self.record("../red.png"))
        with pytest.raises(
            DataError,
            match=r"pairs\.jsonl line 1: chosen is not an image that can be read \(\.\./red\.png lies outside",
        ):
            pairs[0]

    def test_can_be_another_than_the_files(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        pairs = manifest(folder / "sub", self.record("red.png"), image_folder=str(folder))
        torch.testing.assert_close(pairs[0].chosen, plain(RED))
        whole = manifest(folder / "sub", self.record(str(folder / "red.png")), image_folder=str(folder))
        torch.testing.assert_close(whole[0].chosen, plain(RED))
        assert pairs.content(0) == whole.content(0), "a cache knows the image by its content"

    def test_is_where_content_hashes_look_too(self, folder: Path) -> None:
        (folder / "sub").mkdir()
        with pytest.raises(DataError, match=r"line 1: chosen is not an image .* lies outside the folder"):
            manifest(folder / "sub", self.record("../red.png")).content(0)


class TestPairSet:
    def test_ties_stay_in_the_order_of_the_columns(self, folder: Path) -> None:
        tie = LABELLED | {"label_0": 0.5, "label_1": 0.5}
        pair = manifest(folder, LABELLED, tie, ties="half")[1]
        assert pair.chosen_probability == 0.5
        torch.testing.assert_close(pair.chosen, plain(RED))

    @pytest.mark.parametrize("ties", ["drop", "half"])
    def test_nothing_but_ties(self, folder: Path, ties: str) -> None:
        """Ties alone teach the entropy term only; they are refused where they are left out."""
        tie = LABELLED | {"label_0": 0.5, "label_1": 0.5}
        if ties == "half":
            assert len(manifest(folder, tie, tie, ties=ties)) == 2
        else:
            with pytest.raises(
                DataError, match=r"holds no pair with a preference: 2 ties in 2 rows; set pairs\.ties=half"
            ):
                manifest(folder, tie, tie, ties=ties)

    def test_a_prompt_that_is_no_text(self, folder: Path) -> None:
        for value, kind in ((7, "not text but int"), (None, "missing"), (["a"], "not text but list")):
            with pytest.raises(DataError, match=rf"line 1: caption is {kind}; fix or remove the row"):
                manifest(folder, LABELLED | {"caption": value})[0]

    def test_all_prompts_at_once(self, folder: Path) -> None:
        """Of the pairs that are used, in their order; what is no text, or cannot be read, has none."""
        tie = LABELLED | {"label_0": 0.5, "label_1": 0.5}
        rows = [tie, LABELLED, *(LABELLED | {"caption": value} for value in (7, "b", None, "half \ud83d"))]
        pairs = manifest(folder, *rows)
        assert pairs.prompts() == [LABELLED["caption"], None, "b", None, None]
        assert [pairs.place(row).rpartition(" ")[2] for row in range(5)] == ["2", "3", "4", "5", "6"]
        assert [pairs.prompt(row) for row in (0, 2)] == [LABELLED["caption"], "b"]

    def test_says_what_its_rows_hold(self, folder: Path) -> None:
        pairs = manifest(folder, LABELLED, LABELLED | {"jpg_0": "green.png"})
        before = [pairs.content(row) for row in range(2)]
        assert before[0] != before[1]
        (folder / "green.png").write_bytes(image_file(RED))
        assert pairs.content(1) == before[0]
