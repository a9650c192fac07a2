"""Options of the online sources that no paper has: what each does to a roll-out, and that off means off."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from seedpo.core.candidate_noise import CandidateNoise
from seedpo.core.diffusion import guided_prediction
from seedpo.core.transitions import ddim_transition
from seedpo.core.types import TransitionGroups, TransitionPairs
from seedpo.methods.settings import SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.buffer import PairBuffer
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rolled import RolledPairs, as_pairs
from seedpo.methods.sources.steps import StepRollout, step_source
from seedpo.methods.sources.trajectories import TrajectoryRollout, trajectory_source
from seedpo.training.codec import load_tree, save_tree
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, ToyPolicy, ToyReward, numbered, schedule, seeded

STEPS, GUIDANCE = 6, 2.0
SAMPLING = SamplingConfig(num_inference_steps=STEPS, guidance_scale=GUIDANCE)


def by_steps(model: ToyDenoiser | None = None, **settings: Any) -> RolledPairs:
    config = StepPoolConfig(**({"candidates": 4, "plain_steps": 2, "min_gap": 0.0} | settings))
    made, _ = StepRollout(model or ToyDenoiser(), ToyReward(), sampling=SAMPLING, config=config)(
        PROMPTS, generator=seeded()
    )
    assert made is not None
    return made


def by_trajectories(model: ToyDenoiser | None = None, **settings: Any) -> RolledPairs:
    config = TrajectoryConfig(**({"images_per_prompt": 3} | settings))
    made, _ = TrajectoryRollout(model or ToyDenoiser(), ToyReward(), sampling=SAMPLING, config=config)(
        PROMPTS, generator=seeded()
    )
    assert made is not None
    return made


def noises(pairs: TransitionPairs, model: ToyDenoiser) -> tuple[Tensor, Tensor]:
    """The noise of the chosen and of the rejected steps, each step asked of the model by itself: (B, D) each."""
    found = []
    for side in ("chosen", "rejected"):
        latents, following = getattr(pairs, f"{side}_latents"), getattr(pairs, f"{side}_next_latents")
        prediction = guided_prediction(
            model.predict, latents, pairs.timestep, pairs.conditioning, pairs.negative_conditioning, GUIDANCE
        )
        step = ddim_transition(prediction, latents, pairs.timestep, pairs.previous_timestep, model.schedule, eta=1.0)
        found.append(((following - step.mean) / step.std.view(-1, 1, 1, 1)).flatten(1))
    return found[0], found[1]


def pairs_of(rolled: RolledPairs) -> TransitionPairs:
    return as_pairs(rolled, PromptEmbeddings(ToyDenoiser()))


class TestCandidateNoise:
    @pytest.mark.parametrize("inner_steps", [0, 1])
    @pytest.mark.parametrize(("noise", "candidates"), [("equal_norm", 4), ("equal_norm", 3), ("antithetic", 2)])
    def test_both_sides_of_every_pair_have_noise_of_one_length(
        self, noise: CandidateNoise, candidates: int, inner_steps: int
    ) -> None:
        pairs = pairs_of(by_steps(noise=noise, candidates=candidates, inner_steps=inner_steps))
        chosen, rejected = noises(pairs, ToyDenoiser())
        torch.testing.assert_close(chosen.norm(dim=1), rejected.norm(dim=1), rtol=1e-4, atol=1e-4)
        assert chosen.norm(dim=1).std() > 0.1, "the length itself is drawn"
        if noise == "antithetic":
            torch.testing.assert_close(chosen, -rejected, rtol=1e-3, atol=1e-3)

    def test_independent_noise_has_not(self) -> None:
        chosen, rejected = noises(pairs_of(by_steps()), ToyDenoiser())
        assert (chosen.norm(dim=1) - rejected.norm(dim=1)).abs().mean() > 0.3

    @pytest.mark.parametrize("noise", ["equal_norm", "antithetic"])
    def test_plain_steps_and_the_first_candidate_are_drawn_as_ever(self, noise: CandidateNoise) -> None:
        """Up to the first pairs nothing else is drawn, so that they start at the same x_t."""
        first = pairs_of(by_steps()).timestep.max()
        shared, plain = (
            made.chosen_latents[made.timestep == first]
            for made in (pairs_of(by_steps(noise=noise)), pairs_of(by_steps()))
        )
        assert torch.equal(shared, plain)

    def test_an_odd_number_of_mirrored_candidates_is_refused_with_the_mend(self) -> None:
        with pytest.raises(
            ValidationError, match=r"steps\.candidates is 3; set it to 4, or steps\.noise to equal_norm"
        ):
            StepPoolConfig(candidates=3, noise="antithetic")

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="'independent', 'equal_norm' or 'antithetic'"):
            StepPoolConfig(noise="orthogonal")  # type: ignore[arg-type]


class TestRolloutLogProb:
    """What the policy said of a step when it drew it, kept with the step."""

    @pytest.mark.parametrize("last_step_has_density", [True, False])
    @pytest.mark.parametrize(
        ("make", "settings"),
        [
            (by_steps, {}),
            (by_steps, {"inner_steps": 2}),
            (by_steps, {"noise": "equal_norm"}),
            (by_trajectories, {}),
            (by_trajectories, {"update_per": "group", "steps_per_pair": 2}),
        ],
    )
    def test_is_minus_half_the_squared_length_of_the_noise(
        self, make: Any, settings: dict[str, Any], last_step_has_density: bool
    ) -> None:
        model = ToyDenoiser(schedule(last_step_has_density=last_step_has_density))
        pairs = pairs_of(make(model, **settings))
        chosen, rejected = noises(pairs, model)
        assert pairs.chosen_rollout_log_prob is not None
        assert pairs.rejected_rollout_log_prob is not None
        assert pairs.chosen_rollout_log_prob.dtype == torch.float64
        found = pairs.chosen_rollout_log_prob - pairs.rejected_rollout_log_prob
        expected = -(chosen.double().square().sum(1) - rejected.double().square().sum(1)) / 2
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert torch.isfinite(found).all()

    def test_survives_a_checkpoint_of_a_version_that_did_not_keep_it(self) -> None:
        buffer, other = PairBuffer(passes=1), PairBuffer(passes=1)
        buffer.fill(numbered(1, 2, 3), generator=seeded())
        state = {name: value for name, value in buffer.state().items() if name != "rollout_log_prob"}
        other.restore(state)
        assert other.take(3).rollout_log_prob is None


def spo(**settings: Any) -> Any:
    given = {"candidates": 4, "plain_steps": 1, "min_gap": 0.05, "prompts_per_rollout": 2, "updates_per_rollout": 2}
    return step_source(
        ToyPolicy(),
        ToyReward(),
        PROMPTS,
        sampling=SAMPLING,
        config=StepPoolConfig(**(given | settings)),
        batch_size=3,
        seed=9,
    )


def d3po(**settings: Any) -> Any:
    given = {"images_per_prompt": 4, "prompts_per_rollout": 2, "updates_per_rollout": 2}
    return trajectory_source(
        ToyPolicy(),
        ToyReward(),
        PROMPTS,
        sampling=SAMPLING,
        config=TrajectoryConfig(**(given | settings)),
        batch_size=3,
        seed=9,
    )


def assert_same(one: TransitionPairs | TransitionGroups, other: TransitionPairs | TransitionGroups) -> None:
    for entry in fields(one):
        value = getattr(one, entry.name)
        if isinstance(value, Tensor):
            assert torch.equal(value, getattr(other, entry.name)), entry.name
    assert torch.equal(one.conditioning.prompt_embeds, other.conditioning.prompt_embeds)


OPTIONS = [
    (spo, {"noise": "equal_norm"}),
    (spo, {"noise": "antithetic", "inner_steps": 1}),
    (spo, {"diversity_bonus": 2.0, "noise": "equal_norm"}),
    (d3po, {"diversity_bonus": 2.0, "diversity_distance": "log_nearest"}),
    (d3po, {"diversity_bonus": 2.0, "update_per": "group"}),
]


@pytest.mark.parametrize(("source", "options"), OPTIONS)
def test_a_restored_source_goes_on_with_the_options_on(tmp_path: Path, source: Any, options: dict[str, Any]) -> None:
    one, other = source(**options), source(**options)
    for _ in range(3):
        one.next_batch()
    save_tree(one.state(), tmp_path / "state")
    expected = [one.next_batch() for _ in range(20)]
    other.next_batch()
    other.restore(load_tree(tmp_path / "state"))
    for batch in expected:
        assert_same(other.next_batch(), batch)
    assert other.metrics() == one.metrics()


@pytest.mark.parametrize(("source", "options"), OPTIONS)
def test_every_option_changes_what_is_trained_on(source: Any, options: dict[str, Any]) -> None:
    shared = {name: value for name, value in options.items() if name in ("inner_steps", "update_per")}
    one, plain = source(**options), source(**shared)
    different = False
    for _ in range(10):
        batch, other = one.next_batch(), plain.next_batch()
        values = [batch.next_latents if isinstance(batch, TransitionGroups) else batch.chosen_next_latents]
        values.append(other.next_latents if isinstance(other, TransitionGroups) else other.chosen_next_latents)
        pairs = [made.chosen if isinstance(made, TransitionGroups) else made.timestep for made in (batch, other)]
        different |= not (torch.equal(*values) and torch.equal(*pairs))
    assert different


@pytest.mark.parametrize(
    ("source", "off"),
    [
        (spo, {"noise": "independent", "diversity_bonus": 0.0, "diversity_distance": "log_nearest"}),
        (d3po, {"diversity_bonus": 0.0, "diversity_distance": "nearest"}),
    ],
)
def test_off_is_as_if_there_were_no_options(source: Any, off: dict[str, Any]) -> None:
    one, plain = source(**off), source()
    for _ in range(20):
        assert_same(one.next_batch(), plain.next_batch())
    observed = one.metrics()
    assert observed == plain.metrics()
    assert {"reward", "reward_std", "pairs_kept"} == observed.keys()
