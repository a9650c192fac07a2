"""Published flow-matching models: their weights and FLOPs, and whether each recipe fits the GPU that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.models.pipeline_classes import FAMILIES
from seedpo.planning.configurations import PUBLISHED, model_configuration
from seedpo.planning.costs import Networks, measure
from seedpo.planning.networks import build_policy
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tools.cost_table import flow_recipes, line, plan_with_caches, row


@dataclass(frozen=True, kw_only=True)
class Known:
    """What others measured on modules of the same configuration: weights and text weights in 10^9, TFLOP of a forward.

    Attributes:
        tokens: of the text for which they were measured; ``None``: the family's usual.
    """

    weights: float
    text: float
    at_512: float
    at_1024: float
    tokens: int | None = None


KNOWN = {
    "stable-diffusion-3.5-medium": Known(weights=2.243, text=5.58, at_512=2.44, at_1024=11.25),
    "stable-diffusion-3.5-large": Known(weights=8.057, text=5.58, at_512=7.98, at_1024=31.1),
    "flux-1-dev": Known(weights=11.90, text=4.89, at_512=21.5, at_1024=74.4),
    "flux-2-dev": Known(weights=32.22, text=24.01, at_512=87.8, at_1024=282.6),
    "flux-2-klein-base-4b": Known(weights=3.876, text=4.02, at_512=10.2, at_1024=34.8),
    "flux-2-klein-base-9b": Known(weights=9.079, text=8.19, at_512=22.7, at_1024=75.5),
    "z-image": Known(weights=6.155, text=4.02, at_512=13.7, at_1024=56.6, tokens=128),
    "qwen-image": Known(weights=20.43, text=8.29, at_512=16.7, at_1024=70.6, tokens=128),
    "sana-600m": Known(weights=0.592, text=2.61, at_512=0.32, at_1024=1.12),
    "sana-1600m": Known(weights=1.604, text=2.61, at_512=0.84, at_1024=2.97),
}
"""By the name of the published configuration."""


def weights_of(network: torch.nn.Module) -> float:
    return sum(weight.numel() for weight in network.parameters()) / 1e9


def planned_policy(name: str, resolution: int) -> Any:
    repository = next(key for key, value in PUBLISHED.items() if value == name)
    keys = {"model": repository, "resolution": resolution, "max_sequence_length": KNOWN[name].tokens}
    config = build_config(RunConfig, keys | {"mixed_precision": "bf16"})
    return build_policy(config, model_configuration(config))


def usable(name: str) -> bool:
    repositories = {key for key, value in PUBLISHED.items() if value == name}
    return any(checkpoint.name in repositories for family in FAMILIES.entries for checkpoint in family.checkpoints)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if "medium" not in name else []) for name in filter(usable, KNOWN)],
)
def test_weights_and_flops_are_the_known_ones(name: str) -> None:
    known = KNOWN[name]
    for resolution, teraflops in ((512, known.at_512), (1024, known.at_1024)):
        policy = planned_policy(name, resolution)
        costs = measure(Networks(policy=policy), {"reference": 1}, mixed_precision="bf16")
        assert float(costs["reference"].flops.total) / 1e12 == pytest.approx(teraflops, rel=0.015)
    added = sum(weight.numel() for weight in policy.trainable_parameters().values()) / 1e9
    encoders = [encoder for encoder in policy.family.text_encoders(policy.pipeline) if encoder is not None]
    assert weights_of(policy.network) - added == pytest.approx(known.weights, rel=1e-3)
    assert sum(map(weights_of, encoders)) == pytest.approx(known.text, rel=2e-3)


def test_every_well_known_model_can_be_planned_and_its_size_is_true() -> None:
    for family in FAMILIES.entries:
        for checkpoint in family.checkpoints:
            name = PUBLISHED[checkpoint.name]
            if name in KNOWN:
                assert checkpoint.parameters == pytest.approx(KNOWN[name].weights, rel=5e-3)


def test_a_text_encoder_may_be_absent() -> None:
    config = build_config(RunConfig, {"model": "stabilityai/stable-diffusion-3.5-medium"})
    model = model_configuration(config)
    parts = {name: part for name, part in model.parts.items() if name != "text_encoder_3"}
    policy = build_policy(config, type(model)(origin="here", family=model.family, parts=parts))
    encoders = policy.family.text_encoders(policy.pipeline)
    assert [encoder is None for encoder in encoders] == [False, False, True]
    assert policy.encode_prompts(["a circle"]).prompt_embeds.shape == (1, 77 + 256, 4096)


PAGE = (Path(__file__).parents[2] / "docs" / "planning.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "parameters"), list(flow_recipes()))
def test_each_recipe_fits_and_the_page_says_what_it_costs(recipe: str, parameters: float) -> None:
    plan = plan_with_caches(recipe)
    assert plan.memory.peak < 0.9 * plan.gpu.memory * 2**30
    assert not [text for text in plan.warnings if "fit" in text]
    said = [text for text in PAGE.splitlines() if text.startswith(f"| `{recipe}` |")]
    assert said in ([], [line(row(recipe, parameters, plan))])
