"""The plan's FLOPs are those of a run: every source and method, LoRA and full, cached and not."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from seedpo.cli.cache_builds import build_cache
from seedpo.methods.settings import ReferenceConfig
from seedpo.methods.weighting_settings import WeightingConfig
from seedpo.planning.dry_run import Guesses
from seedpo.planning.gpus import find_gpu
from seedpo.planning.pair_sets import PairSets
from seedpo.planning.plan import count, plan_run
from seedpo.rewards.dina_lrm import dina_lrm
from seedpo.scenes.pairs import preference_table
from seedpo.study.folder import open_study
from seedpo.training.feedback.wiring import ensure_study
from seedpo.training.run import build_pairs
from seedpo.training.run import train as train_run
from seedpo.training.settings import RunConfig
from tests.data.test_in_training import shaped
from tests.models.test_preview import autoencoder
from tests.planning.real_runs import counted, settings, train
from tests.rewards import plain_dina_lrm
from tests.rewards.plain_lrm import publish
from tests.study.closed_loop import people

slow = pytest.mark.slow


SMALL_GROUPS = {"images_per_prompt": 3, "prompts_per_rollout": 2}


def planned(config: RunConfig, **guesses: Any) -> float:
    """FLOPs of the training of one process."""
    return float(count(config, guesses=Guesses(**guesses)).flops())


def test_an_average_of_the_weights_is_one_more_copy_of_them(tmp_path: Path) -> None:
    config = settings(tmp_path, "diffusion-dpo")
    averaged = config.model_copy(update={"ema_decay": 0.99})
    plain, more = (plan_run(some, gpu=find_gpu("T4")).memory.held for some in (config, averaged))
    (name,) = more.keys() - plain.keys()
    assert 2 * more[name] == plain["optimiser state"], "AdamW has two moments of the same size"


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_reference_that_moves_is_one_more_copy_of_the_trained_weights(tmp_path: Path, adapter: str) -> None:
    config = settings(tmp_path, "diffusion-dpo", adapter=adapter)
    moving = config.model_copy(update={"reference": ReferenceConfig(kind="ema", decay=0.99)})
    plain, more = (plan_run(some, gpu=find_gpu("T4")).memory.held for some in (config, moving))
    (name,) = more.keys() - plain.keys()
    assert 2 * more[name] == plain["optimiser state"], "AdamW has two moments of the same size"
    assert planned(moving) == counted(lambda: train(moving))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("d3po", {"batch_size": 12, "trajectories": {"images_per_prompt": 3}}),
        ("d3po", {"batch_size": 4, "trajectories": {"images_per_prompt": 3, "update_per": "group"}}),
        ("d3po", {"batch_size": 4, "lora_text_encoder": True}),
        pytest.param("d3po", {"batch_size": 4, "reference": {"kind": "rollout"}}, marks=slow),
        pytest.param("spo", {"batch_size": 4, "reference": {"kind": "rollout"}}, marks=slow),
        ("spo", {"batch_size": 3, "reference": {"kind": "ema", "decay": 0.9}}),
        pytest.param("d3po", {"batch_size": 4, "reference": {"kind": "reset", "every": 2}}, marks=slow),
        pytest.param("d3po", {"batch_size": 8, "max_steps": 4, "trajectories": {"updates_per_rollout": 2}}, marks=slow),
        pytest.param("d3po", {"batch_size": 4, "sampling": {"guidance_scale": 1.0}, "lora_rank": 2}, marks=slow),
        ("flow-grpo", {"batch_size": 8, "groups": SMALL_GROUPS}),
        pytest.param("flow-grpo", {"batch_size": 6, "beta": 0.0, "groups": SMALL_GROUPS}, marks=slow),
        (
            "flow-grpo",
            {
                "batch_size": 4,
                "groups": {**SMALL_GROUPS, "shared_noise": True},
                "step_groups": {"trained_steps": 2, "update_per": "group"},
            },
        ),
        pytest.param("spo", {"batch_size": 3, "steps": {"candidates": 3}}, marks=slow),
        ("spo", {"batch_size": 3, "weighting": {"second_opinion": "scenes-plain", "outliers": 0.3}}),
        ("online-dpo", {"batch_size": 6, "groups": {"images_per_prompt": 3, "pairs": "all"}}),
        pytest.param("online-dpo", {"batch_size": 2, "groups": {"images_per_prompt": 3}}, marks=slow),
        ("dgpo", {"batch_size": 2, "groups": {"images_per_prompt": 3}}),
        ("nft", {"batch_size": 1, "groups": {"images_per_prompt": 3, "updates_per_rollout": 2}}),
        ("spo", {"batch_size": 4, "max_steps": 4, "sampling": {"num_inference_steps": 5}, "steps": {"inner_steps": 1}}),
        pytest.param(
            "spo", {"batch_size": 3, "gradient_accumulation_steps": 2, "steps": {"inner_steps": 2}}, marks=slow
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value)),
)
def test_roll_outs(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    config = settings(tmp_path, method, **changes)
    assert planned(config) == counted(lambda: train(config))


def test_features_are_not_counted_and_a_note_says_so(tmp_path: Path) -> None:
    plain = settings(tmp_path, "spo", batch_size=3, steps={"candidates": 3})
    looked = plain.model_copy(update={"weighting": WeightingConfig(novelty=1.0, features="scenes-clip")})
    assert planned(looked) == planned(plain)
    before, after = (plan_run(config, gpu=find_gpu("T4")).notes for config in (plain, looked))
    (note,) = set(after) - set(before)
    assert "weighting.features = scenes-clip" in note


def test_a_latent_reward_has_passes_of_its_own_and_no_decoding(tmp_path: Path) -> None:
    reward = f"lrm-sd15@{publish(tmp_path / 'lrm', 'sd15').parent}"
    config = settings(tmp_path, "lpo", reward=reward, batch_size=3)
    whole = count(config)
    assert float(whole.flops()) == counted(lambda: train(config))
    assert {part for _, part in whole.workload.rows} == {"sampling", "policy", "reference", "text"} | {
        "scorer_latent",
        "scorer_text",
    }
    plan = plan_run(config, gpu=find_gpu("T4"))
    assert not {"previews", "decoding"} & {line.name for line in plan.lines}


def test_a_latent_reward_of_a_flow_model_reads_no_empty_prompt(tmp_path: Path) -> None:
    dina = plain_dina_lrm.publish(tmp_path / "dina")
    keys = {"model": str(dina / "base"), "max_sequence_length": 16, "reward": f"dina-lrm@{dina}"}
    config = settings(tmp_path, "lpo", batch_size=3, **keys)
    dina_lrm(str(dina))  # what merging its LoRA takes, once, is not part of a run's count
    whole = count(config)
    assert float(whole.flops()) == counted(lambda: train(config))
    assert {"scorer_latent", "scorer_text"} <= {part for _, part in whole.workload.rows}


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("diffusion-dpo", {"batch_size": 3, "anchor": {"kl": 1.0, "winner": 1.0}}),
        pytest.param("diffusion-dpo", {"batch_size": 3, "anchor": {"data": 1.0}}, marks=slow),
        ("spo", {"batch_size": 3, "anchor": {"kl": 1.0, "steps": "early", "data": 1.0}}),
        pytest.param("d3po", {"batch_size": 4, "anchor": {"winner": 1.0}}, marks=slow),
    ],
)
def test_anchors(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    plain = settings(tmp_path, method, batch_size=changes["batch_size"])
    keys = changes["anchor"] | ({"data_set": plain.data} if "data" in changes["anchor"] else {})
    config = settings(tmp_path, method, **changes | {"anchor": keys})
    assert planned(config) == counted(lambda: train(config))
    more = plan_run(config, gpu=find_gpu("T4")), plan_run(plain, gpu=find_gpu("T4"))
    assert (more[0].memory.phases["training step"] > more[1].memory.phases["training step"]) == ("data" in keys)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("d3po", {"batch_size": 6, "reference": {"kind": "rollout"}}),
        pytest.param("d3po", {"batch_size": 6, "reference": {"kind": "frozen"}}, marks=slow),
        ("dgpo", {"batch_size": 2}),
        pytest.param("online-dpo", {"batch_size": 2}, marks=slow),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(map(str, value)),
)
def test_people_in_place_of_a_reward(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    """Two rounds; everybody prefers what is on the left, so that every pair is kept."""
    study = {"study": str(tmp_path / "study"), "poll_seconds": 0.02}
    config = settings(tmp_path, method, max_steps=2, feedback=study, **changes)
    ensure_study(config)
    with people(tmp_path / "study", lambda *_: "left"):
        assert planned(config) == counted(lambda: train(config))
    asked = open_study(tmp_path / "study").groups
    plan = plan_run(config, gpu=find_gpu("T4"))
    assert plan.people is not None
    assert plan.people.in_all.groups == len(asked)
    assert plan.scorer == ""


@pytest.mark.parametrize(
    ("method", "checkpointing"),
    [
        ("diffusion-dpo", True),
        pytest.param("diffusion-dpo", False, marks=slow),
        *(pytest.param(method, some, marks=slow) for method in ("d3po", "spo") for some in (False, True)),
    ],
)
def test_the_whole_network(tmp_path: Path, method: str, checkpointing: bool) -> None:
    config = settings(tmp_path, method, batch_size=3, adapter="full", gradient_checkpointing=checkpointing)
    # 6 units are two thirds of what D3PO's roll-out gives; which of its pairs they are is chance: hence one step each.
    if method == "d3po":
        config = config.model_copy(update={"batch_size": 8, "max_steps": 1})
    assert planned(config) == counted(lambda: train(config))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_steps": 12},
        pytest.param({"max_steps": 12, "cache": {"folder": "cache"}}, marks=slow),
        pytest.param({"max_steps": 12, "cache": {"folder": "cache", "latents": False}}, marks=slow),
        {"max_steps": 12, "cache": {"folder": "cache", "reference": True, "visits": 2}},
    ],
    ids=["memory", "disk", "no latents", "reference"],
)
def test_a_set_of_pairs_met_twice(tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = settings(tmp_path, "diffusion-dpo", batch_size=1, **changes)
    pairs = len(build_pairs(config))
    assert pairs < config.max_steps
    assert planned(config, pairs=pairs) == counted(lambda: train(config))
    if config.cache.folder is not None:
        build_cache(config, progress=False)
        assert planned(config, pairs=pairs, cached=True) == counted(lambda: train(config))


@pytest.mark.parametrize("cached", [False, pytest.param(True, marks=slow)])
def test_pairs_that_a_reward_scores(tmp_path: Path, cached: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"pairs": {"gap_reward": "scenes-scorer"}, "objective": {"gap_scale": 10.0}}
    folder = {"cache": {"folder": "cache"}} if cached else {}
    config = settings(tmp_path, "diffusion-dpo", batch_size=1, max_steps=12, **changes, **folder)
    pairs = len(build_pairs(config))
    if cached:
        build_cache(config, progress=False)
    assert planned(config, pairs=pairs, cached=cached) == counted(lambda: train(config))
    assert planned(config) > planned(settings(tmp_path, "diffusion-dpo", batch_size=1, max_steps=12))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dspo", {}),
        ("mapo", {"gradient_accumulation_steps": 2}),
        ("kto", {"batch_size": 1, "pairs": {"from_scores": "likes-of-pairs"}}),  # a batch embeds a prompt once
    ],
)
def test_other_objectives_on_labelled_images(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    config = settings(tmp_path, method, **{"batch_size": 2, "max_steps": 24, **changes})
    rows = len(build_pairs(config))
    assert planned(config, pairs=rows) == counted(lambda: train(config))


@pytest.mark.parametrize("checkpointing", [False, pytest.param(True, marks=slow)])
def test_trained_text_encoders(tmp_path: Path, checkpointing: bool) -> None:
    plain = settings(tmp_path, "diffusion-dpo", kind="sdxl", batch_size=3, gradient_checkpointing=checkpointing)
    config = plain.model_copy(update={"lora_text_encoder": True})
    assert planned(config) == counted(lambda: train(config))
    assert planned(config) > planned(plain)


@slow
def test_pairs_mirrored_at_half_of_their_visits_are_counted_by_expectation(tmp_path: Path) -> None:
    config = settings(tmp_path, "diffusion-dpo", batch_size=1, max_steps=40, pairs={"flip": True})
    pairs = len(build_pairs(config))
    assert planned(config, pairs=pairs) == pytest.approx(counted(lambda: train(config)), rel=0.02)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("sdxl", "diffusion-dpo"),
        pytest.param("sdxl", "spo", marks=slow),
        pytest.param("sd21", "diffusion-dpo", marks=slow),
        pytest.param("sd21", "spo", marks=slow),
    ],
)
def test_other_families(tmp_path: Path, kind: str, method: str) -> None:
    config = settings(tmp_path, method, kind=kind, batch_size=3)
    assert planned(config) == counted(lambda: train(config))


@slow
def test_previews_of_a_small_autoencoder_and_their_checks(tmp_path: Path) -> None:
    autoencoder("tiny").save_pretrained(tmp_path / "tiny")
    config = settings(
        tmp_path,
        "spo",
        batch_size=6,
        preview_vae=str(tmp_path / "tiny"),
        steps={"preview_checks": 1},
    )
    assert planned(config) == counted(lambda: train(config))


@slow
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("spo", {"batch_size": 8, "max_steps": 6, "steps": {"min_gap": 0.1}}),
        ("d3po", {"batch_size": 8, "max_steps": 6, "trajectories": {"min_gap": 0.4, "images_per_prompt": 3}}),
        ("d3po", {"batch_size": 8, "max_steps": 6, "trajectories": {"steps_per_pair": 2}}),
    ],
)
def test_what_is_drawn_is_counted_by_expectation(tmp_path: Path, method: str, changes: dict[str, Any]) -> None:
    config = settings(tmp_path, method, **changes)
    observed: dict[str, float] = {}
    flops = counted(lambda: observed.update(train(config)))
    assert planned(config, kept=observed["pairs_kept"]) == pytest.approx(flops, rel=0.15)


@slow
@pytest.mark.parametrize("control", [{}, {"strength": 0.5, "mixing": 2.0, "best_of": 2}])
def test_a_whole_run_with_its_evaluations(tmp_path: Path, control: dict[str, Any]) -> None:
    config = settings(
        tmp_path,
        "spo",
        batch_size=3,
        evaluate_every=1,
        evaluation={
            "num_prompts": 3,
            "images_per_prompt": 2,
            "batch_size": 3,
            "rewards": ["scenes-scorer"],
            "metrics": [],
            **control,
        },
    )
    plan = plan_run(config, gpu=find_gpu("T4"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, at the optimiser under a counter
        assert plan.flops == counted(lambda: train_run(config, tmp_path / "run", progress=False))


def test_validation_pairs_of_a_whole_run(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        "diffusion-dpo",
        batch_size=2,
        evaluate_every=1,
        pairs={"validation_draws": 3, "validation_limit": 3},
        evaluation={"num_prompts": 1, "images_per_prompt": 1, "metrics": []},
    )
    pq.write_table(preference_table(count=5, seed=7), tmp_path / "others.parquet")
    pairs = config.pairs.model_copy(update={"validation": str(tmp_path / "others.parquet")})
    plan = plan_run(config.model_copy(update={"pairs": pairs}), gpu=find_gpu("T4"))
    assert [line.name for line in plan.lines][-1] == "validation pairs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries, at the optimiser under a counter
        config = config.model_copy(update={"pairs": pairs})
        assert plan.flops == counted(lambda: train_run(config, tmp_path / "run", progress=False))


def test_a_share_of_the_pairs_is_held_out(tmp_path: Path) -> None:
    config = settings(tmp_path, "diffusion-dpo", pairs={"validation": 0.2, "validation_limit": None})
    assert count(config, guesses=Guesses(pairs=50)).pairs == PairSets(training=40, validation=10)
    assert count(config).pairs == PairSets(training=None, validation=None)
    assert any("--pairs" in note for note in plan_run(config, gpu=find_gpu("T4")).notes)


@slow
def test_pairs_in_buckets_are_counted_in_their_shapes(tmp_path: Path) -> None:
    """One epoch, one pair at a time: each shape as often as it occurs; the largest decides on memory."""
    keys: dict[str, Any] = {"resolution": 192, "pairs": {"resolution": 192, "buckets": True}, "batch_size": 1}
    config = settings(tmp_path, "diffusion-dpo", data=shaped(tmp_path), **keys)
    pairs = build_pairs(config)
    shapes = Counter(pairs.buckets() or ())
    assert len(shapes) > 1
    config = config.model_copy(update={"max_steps": len(pairs), "gradient_accumulation_steps": 1})
    whole = count(config)
    assert whole.pairs.shapes == shapes
    assert float(whole.flops()) == counted(lambda: train(config))
    square = count(config.model_copy(update={"pairs": config.pairs.model_copy(update={"buckets": False})}))
    assert whole.flops() < square.flops()
    assert whole.costs["policy"].peak <= square.costs["policy"].peak
    away = plan_run(config.model_copy(update={"data": "away/"}), gpu=find_gpu("T4"))
    assert any("bucket" in note for note in away.notes)
