"""The presets are the published settings, and every one of them is a valid configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS, Preset, SourceKind
from seedpo.methods.sources.supplies import Supplies
from seedpo.settings import build_config
from seedpo.training import configuration, run, scopes
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_source
from seedpo.training.settings import RunConfig
from tests.methods.sources.toys import ToyDenoiser


def test_the_methods() -> None:
    facts = {
        row.name: (row.log_prob, row.source.judged, row.source.fixed_pairs, row.source.why_no_people is None)
        for row in METHODS.entries
    }
    assert facts == {
        "diffusion-dpo": ("noise", None, True, False),
        "linear-dpo": ("noise", None, True, False),
        "dmpo": ("noise", None, True, False),
        "sdpo": ("noise", None, True, False),
        "dspo": ("noise", None, True, False),
        "mapo": ("noise", None, True, False),
        "smpo": ("noise", None, True, False),
        "kto": ("noise", None, True, False),
        "d3po": ("steps", "images", False, True),
        "spo": ("steps", "previews", False, False),
        "lpo": ("steps", "previews", False, False),
        "flow-grpo": ("steps", "images", False, True),
        "online-dpo": ("noise", "images", False, True),
        "pnapo": ("noise", "images", False, True),
        "dgpo": ("noise", "images", False, True),
        "nft": ("noise", "images", False, True),
    }


def test_an_objective_reads_what_its_source_gives() -> None:
    with pytest.raises(ValueError, match="objective dgpo reads groups, and its source gives pairs"):
        replace(METHODS["dgpo"], source=METHODS["online-dpo"].source)


@pytest.mark.parametrize("row", METHODS.entries, ids=lambda row: row.name)
def test_gamma_is_refused_with_a_reason_where_it_has_no_meaning(row: Preset) -> None:
    if row.why_no_gamma is None:
        assert resolve_config(row.name, {"gamma": 0.5}).gamma == 0.5
        return
    with pytest.raises(ConfigError, match=rf"gamma = 0.5 .* {row.name}: ") as refusal:
        resolve_config(row.name, {"gamma": 0.5})
    assert row.why_no_gamma in str(refusal.value)


@pytest.mark.parametrize("row", METHODS.entries, ids=lambda row: row.name)
def test_objective_and_section_are_there(row: Preset) -> None:
    config = resolve_config(row.name)
    assert row.build_objective(config).reduction == "mean"
    assert row.source.section is None or hasattr(config, row.source.section)


def test_a_source_is_one_function_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run supplies reaches the builder that the row names."""
    kind = SourceKind(target="tests.methods.test_presets:echo", judged="images", gives="steps", section="trajectories")
    row = replace(METHODS["d3po"], name="echo", source=kind)
    registry = replace(METHODS, entries=(*METHODS.entries, row))
    for module in (configuration, run, scopes):
        monkeypatch.setattr(module, "METHODS", registry)
    config = resolve_config("echo", {"prompts": "scenes-training"})
    policy: Any = ToyDenoiser()
    source: Any = build_source(config, policy, rank=1, world=2)
    assert source == (config, policy, 1, 2, source[-1])
    assert len(source[-1]) > 100, "prompts are read when they are asked for"


def echo(config: Any, supplies: Supplies) -> Any:
    return config, supplies.policy, supplies.rank, supplies.world, supplies.prompts()


@pytest.mark.parametrize(
    ("name", "beta", "clip_range"),
    [
        ("diffusion-dpo", 2000.0, None),
        ("linear-dpo", 100.0, None),
        ("dmpo", 2000.0, None),
        ("sdpo", 5000.0, None),
        ("dspo", 0.001, None),
        ("mapo", 0.1, None),
        ("smpo", 2000.0, None),
        ("kto", 5000.0, None),
        ("d3po", 0.1, 0.1),
        ("spo", 10.0, 0.1),
        ("lpo", 500.0, 0.1),
    ],
)
def test_published_settings(name: str, beta: float, clip_range: float | None) -> None:
    config = build_config(RunConfig, METHODS[name].defaults, {"method": name})
    assert config.beta == beta
    assert config.clip_range == clip_range
    assert config.gamma == 0.0
    assert config.reduction == "mean"
    assert config.sampling.eta is None, "usual for the process: 1 for DDIM"
    assert config.sampling.num_inference_steps == 20
    assert config.sampling.guidance_scale == 5.0
    assert config.lora_rank == 4
    assert config.optimizer.weight_decay == 1e-4
    assert config.optimizer.max_grad_norm == 1.0
    assert METHODS[name].paper in METHODS[name].summary


def test_published_settings_of_flow_grpo() -> None:
    config = build_config(RunConfig, METHODS["flow-grpo"].defaults, {"method": "flow-grpo"})
    assert (config.clip_range, config.objective.advantage_limit, config.learning_rate) == (1e-4, 5.0, 3e-4)
    assert (config.sampling.num_inference_steps, config.sampling.guidance_scale, config.flow.sde) == (
        10,
        4.5,
        "flow-grpo",
    )
    assert (config.groups.images_per_prompt, config.groups.normalise) == (24, "pooled")
    assert config.step_groups.trained_steps is None, "all"
    # The published 0.04 leaves out the length of the step, about 0.1.
    assert config.beta == pytest.approx(0.04 * 0.1)


def test_step_pool_of_spo() -> None:
    config = build_config(RunConfig, METHODS["spo"].defaults)
    assert (config.steps.candidates, config.steps.plain_steps, config.steps.min_gap) == (4, 4, 0.3)


@pytest.mark.parametrize(
    ("name", "beta", "steps", "guidance_scale", "normalise", "reference"),
    [
        ("online-dpo", 100.0, 40, 4.5, "std", {"kind": "reset", "every": 40}),
        ("dgpo", 100.0, 10, 4.5, "std", {"kind": "frozen"}),
        ("nft", 1.0, 10, 1.0, "pooled", {"kind": "ema", "decay": 0.5, "decay_rise": 0.001}),
    ],
)
def test_published_settings_of_images_drawn_online(
    name: str, beta: float, steps: int, guidance_scale: float, normalise: str, reference: dict[str, Any]
) -> None:
    config = build_config(RunConfig, METHODS[name].defaults, {"method": name})
    assert (config.beta, config.groups.images_per_prompt, config.groups.normalise) == (beta, 24, normalise)
    assert (config.sampling.num_inference_steps, config.sampling.guidance_scale) == (steps, guidance_scale)
    assert config.reference.model_dump(exclude_none=True) == reference
    anchors = {"online-dpo": (0.0, "reference"), "dgpo": (0.02, "reference"), "nft": (1e-4, "initial")}
    assert (config.anchor.kl, config.anchor.toward) == anchors[name]
    assert config.objective.advantage_limit == 5.0
    assert config.learning_rate == 3e-4
    assert METHODS[name].paper in METHODS[name].summary


def test_pnapo_is_online_dpo_of_the_untrained_model_s_images() -> None:
    config = build_config(RunConfig, METHODS["pnapo"].defaults, {"method": "pnapo"})
    assert (config.beta, config.groups.images_per_prompt, config.groups.drawn_by) == (5000.0, 2, "reference")
    assert (config.objective.gap_scale, config.objective.prior_noise, config.reference.kind) == (1.0, True, "frozen")
    assert (config.sampling.num_inference_steps, config.sampling.guidance_scale) == (50, 1.0)


def test_smpo_compares_pickscores_by_their_range() -> None:
    config = build_config(RunConfig, METHODS["smpo"].defaults, {"method": "smpo"})
    assert (config.pairs.gap_reward, config.objective.gap_scale) == ("pickscore", 10.0)
    assert config.objective.gap_temperature == pytest.approx(
        100 * (0.28201571106910706 - 0.11543526500463486), rel=3e-3
    )
