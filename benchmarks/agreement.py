"""D3PO: one update per group of pairs in place of one per few pairs, on one roll-out of the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from torch.optim import AdamW

from seedpo.data.prompts.reading import load_prompts
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.step_pairs import StepPairs, step_batch
from seedpo.methods.sources.trajectories import TrajectoryRollout
from seedpo.models.policy import build_policy
from seedpo.rewards.catalogue import REWARDS
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method
from seedpo.training.settings import RunConfig


def group_agreement(
    *,
    images: int = 7,
    prompts: int = 4,
    steps_per_pair: int = 4,
    batch_size: int = 4,
    on_update: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Trains on all pairs of a roll-out in both ways and compares what came of it.

    The gradients of a group are those of its pairs, exactly; the ways differ in that the weights move between pairs.
    Two orders of the pairs one by one show how much the order alone does.

    Args:
        images: per prompt.
        prompts: of the roll-out.
        steps_per_pair: denoising steps that are trained on.
        batch_size: pairs per update, or groups.
        on_update: is called after every update.

    Returns:
        For groups, and for pairs in another order, each against pairs: the share of pairs for which the log-ratio of
        the preferred step exceeds that of the other in both or in neither (``agreement``), and the cosine of the
        change of the weights; for each way its number of updates, and the share of pairs ranked right (``accuracy``).
    """
    config = resolve_config(
        "d3po",
        {
            "sampling": {"num_inference_steps": 10},
            "trajectories": {"images_per_prompt": images, "update_per": "group", "steps_per_pair": steps_per_pair},
        },
    )
    policy = build_policy(config)
    rolled, _ = TrajectoryRollout(
        policy, REWARDS.load(config.reward)(), sampling=config.sampling, config=config.trajectories
    )(load_prompts(config.prompts)[:prompts], generator=torch.Generator().manual_seed(0))
    assert rolled is not None
    singly = torch.arange(len(rolled))
    ways: dict[str, tuple[bool, Tensor, int]] = {
        "pairs": (False, singly, 1),
        "pairs in another order": (False, singly, 2),
        "groups": (True, rolled.unit, 1),
    }
    found = {
        name: _trained(config, rolled, shared, unit, batch_size=batch_size, seed=seed, on_update=on_update)
        for name, (shared, unit, seed) in ways.items()
    }
    change, margin, _ = found["pairs"]
    return {
        "name": "D3PO, update_per = group",
        "work": f"{len(rolled)} pairs of {prompts} prompts with {images} images, {batch_size} units per update",
        "updates": {name: updates for name, (_, _, updates) in found.items()},
        "accuracy": {name: float((margins > 0).float().mean()) for name, (_, margins, _) in found.items()},
        "agreement": {
            name: float(((margins > 0) == (margin > 0)).float().mean())
            for name, (_, margins, _) in found.items()
            if name != "pairs"
        },
        "cosine": {
            name: float(cosine_similarity(moved, change, dim=0))
            for name, (moved, _, _) in found.items()
            if name != "pairs"
        },
    }


def _trained(
    config: RunConfig,
    rolled: StepPairs,
    shared: bool,
    unit: Tensor,
    *,
    batch_size: int,
    seed: int,
    on_update: Callable[[], None],
) -> tuple[Tensor, Tensor, int]:
    """One pass over the roll-out: the change of the weights, the pairs' margins at its end, the number of updates."""
    policy, method = build_policy(config), build_method(config)
    embeddings = PromptEmbeddings(policy)
    parameters = list(policy.trainable_parameters().values())
    before = torch.cat([value.detach().flatten() for value in parameters])
    optimizer = AdamW(parameters, lr=config.learning_rate, weight_decay=config.optimizer.weight_decay)
    order = torch.randperm(int(unit.max()) + 1, generator=torch.Generator().manual_seed(seed))
    batches = order.split(batch_size)
    for units in batches:
        pairs = rolled.select(torch.isin(unit, units).nonzero()[:, 0])
        batch = step_batch(pairs, embeddings, share_between_pairs=shared)
        method.loss(policy, batch, generator=torch.Generator()).losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        on_update()
    with torch.no_grad():
        output = method.loss(
            policy, step_batch(rolled, embeddings, share_between_pairs=True), generator=torch.Generator()
        )
    change = torch.cat([value.detach().flatten() for value in parameters]) - before
    return change, output.metrics["rewards/margins"], len(batches)
