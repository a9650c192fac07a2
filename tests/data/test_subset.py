from __future__ import annotations

import pytest
import torch

from seedpo.data.changes import ChangedPairs, as_a_win, emptied
from seedpo.data.relabelling import RelabelledPairs
from seedpo.data.skipping import SkippingPairs
from seedpo.data.subset import SomePairs, divided_by_prompt
from seedpo.errors import DataError
from seedpo.protocols import Images, LabelledPair
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
        changed = ChangedPairs(pairs, {"half": emptied(0.5), "ties": as_a_win})
        prompts = [changed.prompt(row) for row in range(30)]
        assert not pairs.read
        assert prompts == [changed[row].prompt for row in range(30)]
        assert "" in prompts
        assert len(set(prompts)) > 2

    def test_an_unreadable_pair_gives_the_prompt_of_the_one_in_its_place(self) -> None:
        class Broken(BrightPairs):
            def __getitem__(self, row: int) -> LabelledPair:
                if row == 2:
                    raise DataError("row 2: no image")
                return super().__getitem__(row)

        pairs = SkippingPairs(Broken(8), limit=1.0)
        assert pairs[2].prompt == pairs.prompt(2) == BrightPairs(8).prompt(3)


def brightness(images: Images, prompts: object) -> torch.Tensor:
    """A pair of which one is brighter by 0.05 is decided by 0.25 log-odds."""
    assert isinstance(images, torch.Tensor)
    return images.mean((1, 2, 3)) * 5.0


class TestRelabelling:
    def test_wins_losses_and_ties_follow_from_the_gap(self) -> None:
        pairs = BrightPairs(40)
        new = RelabelledPairs(pairs, brightness, name="brightness", gap=0.3)
        for row in range(40):
            before, after = pairs[row], new[row]
            first, second = torch.softmax(brightness(torch.stack([before.chosen, before.rejected]), []), 0).tolist()
            assert after.chosen_probability == (1.0 if abs(first - second) > 0.3 else 0.5)
            assert torch.equal(after.chosen, before.chosen)
        assert {new[row].chosen_probability for row in range(40)} == {0.5, 1.0}

    def test_the_other_image_can_win(self) -> None:
        pairs = BrightPairs(4)
        new = RelabelledPairs(pairs, lambda images, prompts: -brightness(images, prompts) * 9, name="dark", gap=0.1)
        assert torch.equal(new[1].chosen, pairs[1].rejected)
        assert torch.equal(new[1].rejected, pairs[1].chosen)

    def test_contents_depend_on_reward_and_gap(self) -> None:
        contents = {
            RelabelledPairs(BrightPairs(4), brightness, name=name, gap=gap).content(1)
            for name in ("one", "other")
            for gap in (0.1, 0.2)
        }
        assert len(contents) == 4

    def test_scores_that_are_not_finite_are_refused(self) -> None:
        new = RelabelledPairs(BrightPairs(4), lambda images, prompts: torch.tensor([1.0, torch.nan]), name="r", gap=0.1)
        with pytest.raises(DataError, match=r"reward r gives pair 2 \('a green cross'\) a score that is not finite"):
            new[2]
