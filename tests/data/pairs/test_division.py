from __future__ import annotations

import pytest

from seedpo.data.pairs.changes import TIES_AS_WINS, ChangedPairs
from seedpo.data.pairs.selection import SkippingPairs, SomePairs, divided_by_prompt
from seedpo.errors import DataError
from seedpo.protocols import LabelledPair
from tests.rewards.toy_pairs import BrightPairs


class ManyPrompts(BrightPairs):
    def prompt(self, row: int) -> str:
        if row == 5:
            raise DataError("row 5: caption is missing")
        return f"prompt {row % 40}"


class TestDivision:
    def test_by_prompt_and_without_reading_an_image(self) -> None:
        pairs = ManyPrompts(200)
        kept, apart = divided_by_prompt(pairs, 0.3)
        assert not pairs.read
        assert sorted([*kept.rows, *apart.rows]) == list(range(200))
        prompts = [{pairs.prompt(row) for row in side.rows if row != 5} for side in (kept, apart)]
        assert not prompts[0] & prompts[1]
        assert 4 <= len(prompts[1]) <= 20

    def test_a_prompt_stays_on_its_side_whatever_else_is_there(self) -> None:
        few, many = ManyPrompts(40), ManyPrompts(200)
        divided = [divided_by_prompt(pairs, 0.3)[1] for pairs in (few, many)]
        apart = [{side.prompt(row) for row in range(len(side))} for side in divided]
        assert apart[0] - {"prompt 5"} == apart[1] - {"prompt 5"}

    def test_unreadable_prompts_stay_with_the_first(self) -> None:
        assert 5 in divided_by_prompt(ManyPrompts(40), 0.99)[0].rows

    def test_an_empty_side_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"held_out_share = 1e-06 leaves 40 pairs to train on and 0"):
            divided_by_prompt(ManyPrompts(40), 1e-6)

    def test_contents_are_those_of_the_whole_set(self) -> None:
        some = SomePairs(BrightPairs(9), [7, 2])
        assert (some.content(0), some[1].prompt, some.prompt(1)) == ("pair 7", some.pairs[2].prompt, some[1].prompt)


class TestPrompts:
    def test_changes_apply_to_the_prompt_without_reading_an_image(self) -> None:
        pairs = BrightPairs(30)
        changed = ChangedPairs(pairs, [TIES_AS_WINS])
        prompts = [changed.prompt(row) for row in range(30)]
        assert not pairs.read
        assert prompts == [changed[row].prompt for row in range(30)]
        assert prompts == [pairs.prompt(row) for row in range(30)]

    def test_an_unreadable_pair_gives_the_prompt_of_the_one_in_its_place(self) -> None:
        class Broken(BrightPairs):
            def __getitem__(self, row: int) -> LabelledPair:
                if row == 2:
                    raise DataError("row 2: no image")
                return super().__getitem__(row)

        pairs = SkippingPairs(Broken(8), limit=1.0)
        assert pairs[2].prompt == pairs.prompt(2) == BrightPairs(8).prompt(3)
