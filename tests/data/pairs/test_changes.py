from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seedpo.data.pairs.changes import SQUARE_TIME_IDS, TIES_AS_WINS, Change, ChangedPairs, relabel, with_gap
from seedpo.data.pairs.sets import PairSet
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from seedpo.protocols import Images
from tests.data.pictures import RED, image_file, table
from tests.rewards.toy_pairs import BrightPairs


def pair_set(count: int = 4) -> PairSet:
    labels = [(1, 0), (0.5, 0.5)] * (count // 2)
    return PairSet.of_table(table(*labels), origin="t", config=PairsConfig(ties="half"))


def brightness(images: Images, prompts: object) -> torch.Tensor:
    """A pair of which one is brighter by 0.05 is decided by 0.25 log-odds."""
    assert isinstance(images, torch.Tensor)
    return images.mean((1, 2, 3)) * 5.0


class TestChanges:
    def test_a_tie_as_a_win_for_the_first_image(self) -> None:
        pairs = pair_set()
        changed = ChangedPairs(pairs, [TIES_AS_WINS])
        assert [changed[row].chosen_probability for row in range(4)] == [1.0] * 4
        assert torch.equal(changed[1].chosen, pairs[1].chosen)

    def test_the_original_size_as_that_of_training(self) -> None:
        pairs = PairSet.of_table(
            table((1, 0), jpg_0=[image_file(RED, size=(40, 20))]), origin="t", config=PairsConfig(resolution=8)
        )
        assert (pairs[0].original_size, pairs[0].crop) == ((20, 40), (0, 4))
        pair = ChangedPairs(pairs, [SQUARE_TIME_IDS])[0]
        assert (pair.original_size, pair.crop) == ((8, 8), (0, 0))


class TestChangedPairs:
    def test_changes_are_made_in_order(self) -> None:
        changes = [
            Change(label=str(p), pair=lambda row, pair, p=p: replace(pair, chosen_probability=p * row))  # type: ignore[misc]
            for p in (0.1, 0.3)
        ]
        changed = ChangedPairs(pair_set(), changes)
        assert changed[2].chosen_probability == 0.6
        assert (len(changed), list(changed.one_pass()), changed.sequential) == (4, [0, 1, 2, 3], False)

    def test_hashes_tell_the_changes_apart(self) -> None:
        pairs = pair_set()
        changes = [Change(label=label, pair=lambda row, pair: pair) for label in ("a", "b", "a")]
        contents = [ChangedPairs(pairs, [change]).content(0) for change in changes]
        assert contents[0] == contents[2] != contents[1]
        assert pairs.content(0) not in contents

    def test_errors_pass_through(self) -> None:
        pairs = PairSet.of_table(table((1, 0), jpg_0=[b"broken"]), origin="t")
        with pytest.raises(DataError, match="t row 0: jpg_0 is not an image"):
            ChangedPairs(pairs, [TIES_AS_WINS])[0]


class TestRelabelling:
    def test_wins_losses_and_ties_follow_from_the_gap(self) -> None:
        pairs = BrightPairs(40)
        new = ChangedPairs(pairs, [relabel(brightness, name="brightness", gap=0.3)])
        for row in range(40):
            before, after = pairs[row], new[row]
            first, second = torch.softmax(brightness(torch.stack([before.chosen, before.rejected]), []), 0).tolist()
            assert after.chosen_probability == (1.0 if abs(first - second) > 0.3 else 0.5)
            assert torch.equal(after.chosen, before.chosen)
        assert {new[row].chosen_probability for row in range(40)} == {0.5, 1.0}

    def test_the_other_image_can_win(self) -> None:
        pairs = BrightPairs(4)
        new = ChangedPairs(
            pairs, [relabel(lambda images, prompts: -brightness(images, prompts) * 9, name="dark", gap=0.1)]
        )
        assert torch.equal(new[1].chosen, pairs[1].rejected)
        assert torch.equal(new[1].rejected, pairs[1].chosen)

    def test_contents_depend_on_reward_and_gap(self) -> None:
        contents = {
            ChangedPairs(BrightPairs(4), [relabel(brightness, name=name, gap=gap)]).content(1)
            for name in ("one", "other")
            for gap in (0.1, 0.2)
        }
        assert len(contents) == 4

    def test_scores_that_are_not_finite_are_refused(self) -> None:
        new = ChangedPairs(
            BrightPairs(4), [relabel(lambda images, prompts: torch.tensor([1.0, torch.nan]), name="r", gap=0.1)]
        )
        with pytest.raises(DataError, match=r"reward r gives pair 2 \('a green cross'\) a score that is not finite"):
            new[2]


class TestGap:
    def test_the_label_stays_and_the_gap_has_the_reward_s_sign(self) -> None:
        pairs = BrightPairs(8)
        new = ChangedPairs(pairs, [with_gap(brightness, name="brightness")])
        gaps = []
        for row in range(8):
            first, second = brightness(torch.stack([pairs[row].chosen, pairs[row].rejected]), []).tolist()
            assert new[row].gap == pytest.approx(first - second)
            assert torch.equal(new[row].chosen, pairs[row].chosen)
            assert new[row].chosen_probability == pairs[row].chosen_probability
            assert pairs[row].gap is None
            gaps.append(new[row].gap)
        assert len(set(gaps)) > 1

    def test_contents_tell_rewards_and_definitions_apart(self) -> None:
        changes = [with_gap(brightness, name=name, definition=text) for name in ("a", "b") for text in ("", "{}")]
        assert len({ChangedPairs(BrightPairs(4), [change]).content(1) for change in changes}) == 4

    def test_scores_that_are_not_finite_are_refused(self) -> None:
        change = with_gap(lambda images, prompts: torch.tensor([torch.inf, 1.0]), name="r")
        with pytest.raises(DataError, match=r"reward r gives pair 2 \('a green cross'\) a score that is not finite"):
            ChangedPairs(BrightPairs(4), [change])[2]
