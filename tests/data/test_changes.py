from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedpo.data.changes import Change, ChangedPairs, as_a_win, as_square_original, emptied
from seedpo.data.pairs import PairSet
from seedpo.data.pickapic import pickapic_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import RED, image_file, table


def pair_set(count: int = 4) -> PairSet:
    labels = [(1, 0), (0.5, 0.5)] * (count // 2)
    return pickapic_pairs(table(*labels), origin="t", config=PairsConfig(ties="half"))


class TestChanges:
    def test_a_tie_as_a_win_for_the_first_image(self) -> None:
        pairs = pair_set()
        changed = ChangedPairs(pairs, {"wins": as_a_win})
        assert [changed[row].chosen_probability for row in range(4)] == [1.0] * 4
        assert torch.equal(changed[1].chosen, pairs[1].chosen)

    def test_the_original_size_as_that_of_training(self) -> None:
        pairs = pickapic_pairs(
            table((1, 0), jpg_0=[image_file(RED, size=(40, 20))]), origin="t", config=PairsConfig(resolution=8)
        )
        assert (pairs[0].original_size, pairs[0].crop) == ((20, 40), (0, 4))
        pair = ChangedPairs(pairs, {"square": as_square_original})[0]
        assert (pair.original_size, pair.crop) == ((8, 8), (0, 0))

    @pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
    def test_a_share_of_the_prompts_is_emptied(self, share: float) -> None:
        change, pair = emptied(share), pair_set()[0]
        empty = [not change(row, pair).prompt for row in range(1000)]
        assert sum(empty) / 1000 == pytest.approx(share, abs=0.04)  # 2.8 standard errors
        assert empty == [not change(row, pair).prompt for row in range(1000)], "at every visit the same"


class TestChangedPairs:
    def test_changes_are_made_in_order(self) -> None:
        def suffix(text: str) -> Change:
            return lambda row, pair: replace(pair, prompt=pair.prompt + text)

        changed = ChangedPairs(pair_set(), {"a": suffix(" a"), "b": suffix(" b")})
        assert changed[2].prompt == "prompt 2 a b"
        assert len(changed) == 4
        assert not changed.sequential

    def test_hashes_tell_the_changes_apart(self) -> None:
        pairs = pair_set()
        changed = [ChangedPairs(pairs, {name: as_a_win}) for name in ("a", "b", "a")]
        contents = [one.content(0) for one in changed]
        assert contents[0] == contents[2] != contents[1]
        assert pairs.content(0) not in contents

    def test_errors_pass_through(self) -> None:
        pairs = pickapic_pairs(table((1, 0), jpg_0=[b"broken"]), origin="t")
        with pytest.raises(DataError, match="t row 0: jpg_0 is not an image"):
            ChangedPairs(pairs, {"wins": as_a_win})[0]
