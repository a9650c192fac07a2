"""Keys that do nothing with the chosen method or adapter are refused or named."""

from __future__ import annotations

from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.recipes import RECIPES
from seedpo.recipes.reading import read_recipe
from seedpo.settings import Section, nested, parse_override
from seedpo.training.configuration import resolve_config
from seedpo.training.opening import likely_mistakes
from seedpo.training.scopes import idle_keys, warnings_of_idle_keys
from seedpo.training.settings import FidelityConfig

DATA = {row.name for row in METHODS.entries if row.source.fixed_pairs}
ROLLOUTS = set(METHODS.names()) - DATA
PAIRS = {row.name for row in METHODS.entries if row.source.gives == "pairs"}
NOISE = {row.name for row in METHODS.entries if row.log_prob == "noise"}
STEPS = set(METHODS.names()) - NOISE
MARGINS = {row.name for row in METHODS.entries if row.objective == "dpo"}
IMAGES = {row.name for row in METHODS.entries if row.source.judged == "images"}
SWITCHES = {
    "gradients_never_clipped": DATA | ROLLOUTS,
    "ties_as_wins": DATA & PAIRS,
    "independent_flips": DATA & PAIRS,
    "beta_without_half": NOISE & MARGINS,
    "sampled_latents": DATA,
    "square_time_ids": DATA,
    "reference_moves_on_resume": DATA | ROLLOUTS,
    "empty_updates": {"d3po"},
    "last_step_clamped": STEPS,
    "cps_square": STEPS,
    "previews_clamped_late": {"spo", "lpo"},
    "judged_at_start": {"spo", "lpo"},
}
NEEDED: dict[str, dict[str, Any]] = {
    "reference_moves_on_resume": {"reference": {"kind": "frozen"}},
    "cps_square": {"flow": {"sde": "cps"}},
    "judged_at_start": {"reward": "lrm-sd15"},
}
OWN: dict[str, Any] = {"model": "owner/name", "data": "pairs/", "reward": "pickscore"}


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("switch", FidelityConfig.model_fields)
def test_a_switch_acts_or_is_refused(switch: str, method: str) -> None:
    changes = {"fidelity": {switch: True}, **NEEDED.get(switch, {})}
    if method in SWITCHES[switch]:
        assert getattr(resolve_config(method, changes).fidelity, switch)
        return
    with pytest.raises(ConfigError, match=rf"^fidelity\.{switch} = true has no effect on {method}: ") as failure:
        resolve_config(method, changes)
    named = str(failure.value).partition("it acts with ")[2]
    assert set(named.removesuffix("; leave it out").replace(" or ", ", ").split(", ")) == SWITCHES[switch]


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("clip_range=0.2", STEPS),
        ("reward=scenes-plain", ROLLOUTS),
        ("prompts=vehicles.txt", ROLLOUTS),
        ("preview_vae=small/", {"spo", "lpo"}),
        ("sampling.eta=0.5", STEPS),
        ("sampling.num_inference_steps=7", ROLLOUTS),
        ("flow.density=uniform", NOISE),
        ("flow.sde=cps", STEPS),
        ("steps.candidates=3", {"spo", "lpo"}),
        ("trajectories.min_gap=0.2", {"d3po"}),
        ("groups.min_gap=0.2", IMAGES - {"d3po"}),
        ("feedback.poll_seconds=9", IMAGES),
        ("data=scenes-held-out-pairs", DATA),
        ("pairs.flip=true", DATA),
        ("cache.folder=cache", DATA),
    ],
)
@pytest.mark.parametrize("method", METHODS.names())
def test_a_key_acts_or_is_named(method: str, text: str, methods: set[str]) -> None:
    config = resolve_config(method, nested([parse_override(text)]))
    lines = [line for line in warnings_of_idle_keys(config) if text.partition("=")[0] in line]
    assert len(lines) == (method not in methods)
    for line in lines:
        assert all(name in line for name in methods)


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("groups.pairs=all", {"online-dpo", "pnapo"}),
        ("groups.drawn_by=reference", {"online-dpo", "pnapo", "dgpo", "nft"}),
        ("groups.normalise=mean", {"dgpo", "nft", "flow-grpo"}),
        ("objective.error_clip=0.1", {"dgpo"}),
        ("objective.prior_noise=true", {"online-dpo", "pnapo"}),
        ("objective.advantage_limit=2", {"dgpo", "nft", "flow-grpo"}),
        ("noise_weight=clean", NOISE & MARGINS | {"dgpo"}),
        ("loss=ipo", MARGINS),
    ],
)
@pytest.mark.parametrize("method", METHODS.names())
def test_a_key_of_an_objective_acts_or_is_refused(method: str, text: str, methods: set[str]) -> None:
    changes = nested([parse_override(text)])
    key = text.partition("=")[0]
    offline_pairs = method in DATA and METHODS[method].source.gives == "pairs"
    if method in methods or (offline_pairs and key in ("groups.pairs", "groups.drawn_by")):  # of a section without use
        idle = {entry.name for entry in idle_keys(resolve_config(method, changes))}
        assert (key in idle) == (method not in methods)
        return
    with pytest.raises(ConfigError, match=rf"^{key} = .* has no effect on {method}: ") as failure:
        resolve_config(method, changes)
    named = str(failure.value).partition("it acts with ")[2]
    assert set(named.removesuffix("; leave it out").replace(" or ", ", ").split(", ")) == methods


@pytest.mark.parametrize(
    "key", ["lora_rank=3", "lora_alpha=2", "lora_targets=all", "lora_dropout=0.1", "lora_dora=true"]
)
def test_a_lora_s_keys_need_a_lora(key: str) -> None:
    for adapter, count in (("lora", 0), ("full", 1)):
        config = resolve_config("diffusion-dpo", nested([parse_override(key), ("adapter", adapter)]))
        idle = idle_keys(config)
        assert len(idle) == count
        assert all(entry.where == "adapter = lora" for entry in idle)


def test_keys_of_pairs_act_on_the_data_of_an_anchor() -> None:
    changes: dict[str, Any] = {"pairs": {"flip": True}}
    assert [key.name for key in idle_keys(resolve_config("dgpo", changes))] == ["pairs.flip"]
    changes["anchor"] = {"data": 1.0, "data_set": "scenes-pairs"}
    assert idle_keys(resolve_config("dgpo", changes)) == []


def test_keys_that_act_with_the_same_methods_are_named_together() -> None:
    config = resolve_config("kto", {"groups": {"min_gap": 0.2, "prompts_per_rollout": 3}})
    (line,) = likely_mistakes(config, pairs=None, processes=1)
    assert line.count("online-dpo") == 1


def test_what_nobody_set_is_not_named() -> None:
    for method in METHODS.names():
        for changes in ({}, {"adapter": "full"}):
            assert idle_keys(resolve_config(method, changes)) == []
    config = resolve_config("d3po")
    assert idle_keys(resolve_config("d3po", config.tree())) == [], "a run's own file of settings"


def test_recipes_hold_nothing_idle() -> None:
    for name in RECIPES.names():
        recipe = read_recipe(name, Section)
        if "method" in recipe:
            offline = METHODS[recipe["method"]].source.fixed_pairs
            changes = {"data": "pairs/"} if offline and "data" not in recipe else {}
            assert idle_keys(resolve_config(name, changes, bfloat16=False)) == [], name
