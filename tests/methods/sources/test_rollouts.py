from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.core.types import StepBatch
from seedpo.errors import SeedpoError
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rollouts import RolloutSource, preference, rolled_out_next
from seedpo.methods.sources.step_pairs import StepPairs, step_batch
from seedpo.protocols import EarlierProcesses
from seedpo.training.codec import load_tree, save_tree
from tests.methods.pair_rows import pair_rows
from tests.methods.sources.toys import PROMPTS, NumberEmbedder, numbered, numbers_of


def numbers(batch: StepBatch) -> list[int]:
    return numbers_of(pair_rows(batch))


class Rollout:
    """Pairs with random numbers; notes its prompts. Roll-outs in ``empty`` give none."""

    def __init__(self, empty: Sequence[int] = (), rows: int = 5) -> None:
        self.empty = empty
        self.rows = rows
        self.prompts: list[list[str]] = []
        self.numbers: list[int] = []

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int
    ) -> tuple[StepPairs | None, Mapping[str, float]]:
        self.numbers.append(number)
        self.prompts.append(list(prompts))
        drawn = torch.randint(10_000, (self.rows,), generator=generator).tolist()
        observed = {"reward": float(drawn[0]), "pairs_kept": float(number not in self.empty)}
        return (None if number in self.empty else numbered(*drawn)), observed


def source(rollout: Rollout | None = None, **settings: Any) -> RolloutSource[StepPairs, StepBatch]:
    defaults = {
        "record": StepPairs,
        "batch": partial(step_batch, share_between_pairs=False),
        "prompts_per_rollout": 2,
        "updates_per_rollout": 1,
        "batch_size": 3,
        "clear_if": "groups.min_gap = 0.5",
        "seed": 0,
    }
    embeddings = PromptEmbeddings(settings.pop("embedder", NumberEmbedder()))
    return RolloutSource(rollout or Rollout(), PROMPTS, embeddings, **(defaults | settings))


def test_a_rollout_only_when_pairs_run_out() -> None:
    rollout = Rollout(rows=7)
    one = source(rollout)
    counts = []
    for _ in range(7):
        assert len(numbers(one.next_batch())) == 3
        counts.append(len(rollout.prompts))
    assert counts == [1, 1, 2, 2, 3, 3, 3]


def test_all_prompts_come_before_any_comes_again() -> None:
    rollout = Rollout(rows=3)
    one = source(rollout, prompts_per_rollout=7)
    for _ in range(3):
        one.next_batch()
    assert all(sorted(prompts) == sorted(PROMPTS) for prompts in rollout.prompts)


def test_one_batch_of_8_is_8_of_1() -> None:
    """Whatever the micro-batch, a step sees the same pairs, made by the same roll-outs."""
    whole, single = source(batch_size=8), source(batch_size=1)
    for _ in range(3):
        expected = numbers(whole.next_batch())
        assert [number for _ in range(8) for number in numbers(single.next_batch())] == expected


def test_processes_draw_other_prompts_and_other_noise() -> None:
    rollouts = [Rollout(rows=3), Rollout(rows=3)]
    batches = [source(rollout, rank=rank, world=2).next_batch() for rank, rollout in enumerate(rollouts)]
    assert not set(rollouts[0].prompts[0]) & set(rollouts[1].prompts[0])
    assert not set(numbers(batches[0])) & set(numbers(batches[1]))


def test_updates_per_rollout_repeats_pairs() -> None:
    rollout = Rollout(rows=3)
    one = source(rollout, updates_per_rollout=2)
    first, second = (sorted(numbers(one.next_batch())) for _ in range(2))
    assert first == second
    assert len(rollout.prompts) == 1


def test_metrics_are_means_since_the_last_call() -> None:
    rollout = Rollout(empty=[1], rows=3)
    one = source(rollout)
    one.next_batch()
    one.next_batch()  # needs two roll-outs, since one is empty
    assert one.metrics()["pairs_kept"] == pytest.approx(2 / 3)
    assert dict(one.metrics()) == {}
    one.next_batch()
    assert one.metrics()["pairs_kept"] == 1.0


def test_a_figure_that_only_some_roll_outs_observe() -> None:
    class Sometimes(Rollout):
        def __call__(self, prompts: Sequence[str], **given: Any) -> tuple[StepPairs | None, Mapping[str, float]]:
            made, observed = super().__call__(prompts, **given)
            return made, {**observed, **({"checked": 3.0} if given["number"] == 1 else {})}

    one = source(Sometimes(rows=3))
    for _ in range(3):
        one.next_batch()
    assert one.metrics()["checked"] == 3.0
    one.next_batch()
    assert "checked" not in one.metrics()


def test_roll_outs_are_numbered_across_a_restart() -> None:
    first = source(Rollout(rows=3))
    for _ in range(2):
        first.next_batch()
    second = Rollout(rows=3)
    resumed = source(second)
    resumed.restore(first.state())
    resumed.next_batch()
    assert first.rollout.numbers == [0, 1]  # type: ignore[attr-defined]
    assert second.numbers == [2]


class TestOtherProcesses:
    """A source that goes on on another number of processes."""

    def life(
        self, world: int, batches: Sequence[int], before: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[list[Rollout], list[list[int]], list[dict[str, Any]]]:
        """Roll-outs, batches and states of processes, of which each takes its own number of batches."""
        rollouts = [Rollout(rows=5 + 3 * rank) for rank in range(world)]
        taken, states = [], []
        for rank, rollout in enumerate(rollouts):
            one = source(rollout, prompts_per_rollout=1, rank=rank, world=world)
            if before:
                one.take_over(
                    EarlierProcesses(states=[dict(state) for state in before], batch_size=3, batches=1), seed=100 + rank
                )
            taken.append([number for _ in range(batches[rank]) for number in numbers(one.next_batch())])
            states.append(dict(one.state()))
        return rollouts, taken, states

    @pytest.mark.parametrize("batches", [(4, 3), (2, 7)])
    @pytest.mark.parametrize("world", [1, 3])
    def test_what_waits_comes_first_and_once(self, batches: tuple[int, int], world: int) -> None:
        first, _, states = self.life(2, batches)
        waiting = sorted(number for state in states for number in self.queued(state))
        assert len(waiting) >= 2
        second, taken, after = self.life(world, [4] * world, states)
        share, rest = divmod(len(waiting), world)
        begun = [taken[rank][: share + (rank < rest)] for rank in range(world)]
        assert sorted(number for some in begun for number in some) == waiting
        assert {rollout.numbers[0] for rollout in second} == {max(len(rollout.numbers) for rollout in first)}
        again = self.life(world, [4] * world, states)
        assert again[1] == taken, "the same again gives the same"
        assert all(
            torch.equal(left["generator"], right["generator"]) for left, right in zip(again[2], after, strict=True)
        )

    @pytest.mark.parametrize("batches", [(4, 3), (2, 7)])
    def test_prompts_go_on(self, batches: tuple[int, int]) -> None:
        first, _, states = self.life(2, batches)
        second, _, _ = self.life(1, [20], states)
        drawn = [prompt for rollout in (*first, *second) for some in rollout.prompts for prompt in some]
        alone = Rollout(rows=3)
        one = source(alone, prompts_per_rollout=1)
        for _ in drawn:
            one.next_batch()
        assert Counter(drawn) == Counter(prompt for some in alone.prompts for prompt in some)

    def queued(self, state: Mapping[str, Any]) -> list[int]:
        one = source()
        one.restore(dict(state))
        waiting = len(one._buffer)
        return numbers(one.batch(one._buffer.take(waiting), one.embeddings)) if waiting else []

    def test_each_draws_numbers_of_its_own(self) -> None:
        _, _, states = self.life(1, [1])
        _, taken, _ = self.life(3, [4, 4, 4], states)
        assert len({tuple(some[-3:]) for some in taken}) == 3

    def test_figures_since_the_last_line_are_of_one_process_each(self) -> None:
        _, _, states = self.life(2, [3, 3])
        observed = [rollout for state in states for rollout in state["observed"]]
        assert len(observed) > 2
        one = source()
        one.take_over(EarlierProcesses(states=states, batch_size=3, batches=1), seed=1)
        assert one.state()["observed"] == observed

    def test_whether_the_next_update_rolls_out(self) -> None:
        _, _, states = self.life(2, [1, 1])
        assert [len(state["buffer"]["queue"]) for state in states] == [2, 5]
        for batch_size, batches, expected in ((2, 1, False), (3, 1, True), (1, 2, False), (1, 3, True)):
            assert rolled_out_next(EarlierProcesses(states=states, batch_size=batch_size, batches=batches)) == expected


def test_a_prompt_is_embedded_once_per_roll_out_and_forgotten_after_it() -> None:
    embedder = NumberEmbedder()
    one = source(Rollout(rows=4), embedder=embedder, batch_size=2, updates_per_rollout=3)
    asked = [prompt for _ in range(6) for prompt in map(str, numbers(one.next_batch()))]
    assert sorted(prompt for call in embedder.embedded for prompt in call) == sorted({*asked, ""})
    assert all(len(call) == 1 for call in embedder.embedded)
    one.next_batch()
    known = one.embeddings._known
    assert "" in known
    assert not set(asked) & set(known), "prompts of the first roll-out"


def test_rollouts_without_pairs_end_the_run_in_words() -> None:
    with pytest.raises(SeedpoError, match=r"^groups\.min_gap = 0\.5: 20 roll-outs .* lower it"):
        source(Rollout(empty=range(1000))).next_batch()
    assert len(source(Rollout(empty=range(19))).next_batch()) == 3


@pytest.mark.parametrize("before", [0, 1, 3, 4])
def test_restored_source_gives_the_same_batches_and_metrics(tmp_path: Path, before: int) -> None:
    one = source(Rollout(rows=5), updates_per_rollout=2)
    one.next_batch()
    one.metrics()
    for _ in range(before):
        one.next_batch()
    assert before == 0 or len(one._buffer) > 0, "a buffer in the middle of a roll-out"
    save_tree(one.state(), tmp_path / "state")
    expected = [numbers(one.next_batch()) for _ in range(6)]

    other = source(Rollout(rows=5), updates_per_rollout=2)
    other.next_batch()
    other.restore(load_tree(tmp_path / "state"))
    assert [numbers(other.next_batch()) for _ in range(6)] == expected
    assert other.metrics() == one.metrics()


class TestClearPairs:
    @pytest.mark.parametrize("min_gap", [0.0, 0.3, 0.9])
    def test_rule_is_the_softmax_of_the_two_scores(self, min_gap: float) -> None:
        generator = torch.Generator().manual_seed(0)
        chosen, rejected = 3 * torch.randn(2, 500, generator=generator)
        probability = torch.softmax(torch.stack([chosen, rejected]), 0)
        expected = probability[0] - probability[1] > min_gap
        assert torch.equal(preference(chosen, rejected) > min_gap, expected)
        assert 0 < expected.sum() < 500

    def test_ties_are_never_clear(self) -> None:
        scores = torch.tensor([1.0, -50.0, 3.0])
        assert not preference(scores, scores).any()

    def test_large_scores(self) -> None:
        clear = preference(torch.tensor([1e30, 100.0]), torch.tensor([-1e30, 99.0])) > 0.3
        assert clear.tolist() == [True, True]
