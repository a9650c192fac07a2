"""Single images that are liked or not, from rows of likes and from pairs of every kind of layout."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from seedpo.data.layouts.layout import Verdicts, likes_of_pairs
from seedpo.data.pairs.sets import PairSet
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import ConfigError, DataError
from seedpo.settings import build_config
from tests.data.pictures import BLUE, GREEN, RED, image_file, plain, table

FILES = [image_file(colour) for colour in (RED, BLUE, GREEN)]
COLOURS = [tuple(round(float(value) * 255) for value in plain(colour)[:, 0, 0]) for colour in (RED, BLUE, GREEN)]
FEW = {"prompt": ["a", "a", "b"], "image": FILES, "liked": [True, False, True]}


def read(columns: dict[str, Any] | pa.Table, from_scores: str = "likes", **settings: Any) -> PairSet:
    rows = columns if isinstance(columns, pa.Table) else pa.table(columns)
    config = PairsConfig(from_scores=from_scores, **settings)  # type: ignore[arg-type]
    return PairSet.of_table(rows, origin="likes", config=config)


def shown(pairs: PairSet) -> list[tuple[str, int, bool]]:
    """Prompt, number of the colour, and whether it is liked, of each like."""
    rows = []
    for index in range(len(pairs)):
        like = pairs[index]
        assert like.rejected is None
        (image,) = like.images
        colour = tuple(round(float(value) * 255) for value in image[:, 0, 0])
        rows.append((like.prompt, COLOURS.index(colour), like.chosen_probability == 1.0))
    return rows


class TestRowsOfLikes:
    def test_every_row_is_a_like(self) -> None:
        pairs = read(FEW)
        assert shown(pairs) == [("a", 0, True), ("a", 1, False), ("b", 2, True)]
        assert pairs.liked() == (2, 1)
        assert "3 likes: 2 liked, 1 not" in pairs.summary

    def test_what_several_raters_say_of_one_image_stays_apart(self) -> None:
        columns = {
            "prompt": ["a"] * 3,
            "image": [FILES[0]] * 3,
            "image_uid": ["x"] * 3,
            "liked": ["1", "0", "true"],
            "rater": ["p", "q", "r"],
        }
        assert [liked for _, _, liked in shown(read(columns))] == [True, False, True]

    def test_unlabelled_rows_are_left_out_and_wrong_ones_are_faults(self) -> None:
        columns = {"prompt": ["a"] * 4, "image": [FILES[0]] * 4, "liked": [None, 1, 0, 0.5]}
        pairs = read(columns)
        assert (len(pairs), pairs.unlabelled, pairs.liked()) == (3, 1, (1, 1))
        with pytest.raises(DataError, match=r"liked must be 1 or true.* liked = 0\.5"):
            pairs[2]
        fates = [(fate.pairs, fate.is_fault) for fate in pairs.fates()]
        assert fates == [((), False), ([0], False), ([1], False), ((), True)]

    def test_nothing_but_unlabelled_rows(self) -> None:
        with pytest.raises(DataError, match=r"no image that is liked or not: .* 3 without a label"):
            read(FEW | {"liked": [None] * 3})

    def test_content_and_fingerprint_tell_label_and_image(self) -> None:
        first, turned = read(FEW), read(FEW | {"liked": [False, False, True]})
        assert [first.content(row) == turned.content(row) for row in range(3)] == [False, True, True]
        assert first.fingerprint()["labels"] != turned.fingerprint()["labels"]

    def test_sizes_must_agree_without_a_resolution(self) -> None:
        pairs = read(FEW | {"image": [*FILES[:2], image_file(GREEN, size=(16, 12))]})
        with pytest.raises(DataError, match="16 x 12 pixels and the first pair 8 x 6"):
            pairs[2]
        assert read(FEW, resolution=8)[0].chosen.shape == (3, 8, 8)

    def test_likes_train_pairs_only_where_two_images_of_a_prompt_differ(self) -> None:
        with pytest.raises(DataError, match=r"3 without a partner.*kto"):
            read(FEW | {"liked": [True] * 3}, from_scores="all")


class TestLikesOfPairs:
    def test_the_preferred_image_is_liked_and_ties_are_left_out(self) -> None:
        pairs = read(table((1, 0), (0, 1), (0.5, 0.5)), "likes-of-pairs")
        assert shown(pairs) == [
            ("prompt 0", 0, True),
            ("prompt 0", 1, False),
            ("prompt 1", 0, False),
            ("prompt 1", 1, True),
        ]
        assert (pairs.ties, pairs.liked()) == (2, (2, 2))

    def test_images_of_one_prompt_are_liked_if_they_win_once(self) -> None:
        """Scores 1, 2, 3: the worst loses all its pairs, the others win one at least."""
        columns = {"prompt": ["a"] * 3, "image": FILES, "score": [2.0, 1.0, 3.0]}
        assert shown(read(columns, "likes-of-pairs")) == [("a", 0, True), ("a", 1, False), ("a", 2, True)]

    def test_lists_of_images(self) -> None:
        columns = {"prompt": ["a"], "images": [FILES], "human_preference": [[0, 1, 0]]}
        assert shown(read(columns, "likes-of-pairs")) == [("a", 0, False), ("a", 1, True), ("a", 2, False)]

    def test_an_image_of_ties_alone_is_neither(self) -> None:
        verdicts = Verdicts(
            rows=np.array([[0, 1], [0, 2], [3, 4]]),
            items=np.full((3, 2), -1, dtype=np.int32),
            probability=np.array([0.8, 0.1, 0.5]),
            reason=np.full(5, -1, dtype=np.int16),
            reasons=(),
        )
        likes = likes_of_pairs(verdicts, one_column=True)
        assert likes.rows[:, 0].tolist() == [0, 1, 2, 3, 4]
        assert likes.probability.tolist() == [1.0, 0.0, 1.0, 0.5, 0.5]


class TestRefusals:
    @pytest.mark.parametrize(
        ("columns", "from_scores", "message"),
        [
            (table((1, 0)), "likes", "holds «Pick-a-Pic», no likes .*likes-of-pairs"),
            ({"prompt": ["a"], "image": FILES[:1], "score": [1]}, "likes", "holds «scored images», no likes"),
            (FEW, "likes-of-pairs", "holds «likes of single images» already; set pairs.from_scores=likes"),
        ],
    )
    def test_pairs_where_likes_are_due_and_likes_where_pairs_are(
        self, columns: Any, from_scores: str, message: str
    ) -> None:
        with pytest.raises(DataError, match=message) as refusal:
            read(columns, from_scores)
        assert "\n" not in str(refusal.value)

    def test_ties_have_no_meaning(self) -> None:
        with pytest.raises(ConfigError, match=r"pairs\.ties = half: .*liked or it is not"):
            build_config(PairsConfig, {"from_scores": "likes", "ties": "half"})


def test_a_stream_gives_the_likes_of_its_rows(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "likes.tar", "w") as archive:
        for row in range(3):
            for ending, content in (
                ("image.png", FILES[row]),
                ("json", f'{{"prompt": "{"aab"[row]}", "liked": {"true" if row != 1 else "false"}}}'.encode()),
            ):
                info = tarfile.TarInfo(f"{row}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    config = PairsConfig(from_scores="likes", resolution=8, shuffle_buffer=1)
    pairs = load_pairs(str(tmp_path / "likes.tar"), config)
    assert isinstance(pairs, StreamedPairs)
    first = [pairs[row] for row in range(3)]
    assert [like.chosen_probability for like in first] == [1.0, 0.0, 1.0]
    assert all(like.rejected is None for like in first)
