"""What pairs of steps carry of their reference, by the kind of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch

from seedpo.core.sampling import Sampler, Sampling
from seedpo.methods.settings import ReferenceKind, SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.step_pairs import step_batch
from seedpo.methods.sources.steps import StepRollout
from seedpo.methods.sources.trajectories import TrajectoryRollout
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, ToyPolicy, ToyReward

SAMPLING = SamplingConfig(num_inference_steps=5, guidance_scale=2.0, eta=1.0)
AS_DRAWN = Sampling(num_inference_steps=5, guidance_scale=2.0, eta=1.0)


def trajectories(policy: ToyPolicy, kind: ReferenceKind) -> TrajectoryRollout:
    config = TrajectoryConfig(images_per_prompt=3)
    return TrajectoryRollout(policy, ToyReward(), sampling=SAMPLING, config=config, reference=kind)


def steps(policy: ToyPolicy, kind: ReferenceKind) -> StepRollout:
    config = StepPoolConfig(candidates=3, plain_steps=1, min_gap=0.0)
    return StepRollout(policy, ToyReward(), sampling=SAMPLING, config=config, reference=kind)


@pytest.mark.parametrize("kind", get_args(ReferenceKind))
@pytest.mark.parametrize("build", [trajectories, steps])
def test_numbers_of_what_stays_as_it_is_until_the_pairs_are_used(
    build: Callable[[ToyPolicy, ReferenceKind], Any], kind: ReferenceKind
) -> None:
    """Those of the frozen model, or of the policy that drew them; a reference that moves in between is asked later."""
    policy = ToyPolicy()
    pairs, _ = build(policy, kind)(PROMPTS[:2], generator=torch.Generator().manual_seed(0), number=0)
    batch = step_batch(pairs, PromptEmbeddings(ToyDenoiser()), share_between_pairs=False)
    assert (policy.reference_rows() > 0) == (kind == "frozen")
    if kind in ("ema", "reset"):
        assert batch.reference_log_prob is None
        return
    with policy.reference() if kind == "frozen" else nullcontext():
        expected = Sampler(policy, AS_DRAWN).log_probs(batch)
    torch.testing.assert_close(batch.reference_log_prob, expected, rtol=1e-6, atol=1e-6)
