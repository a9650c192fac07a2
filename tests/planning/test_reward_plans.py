"""Plans of the training of preference models: FLOPs and memory are those of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from benchmarks.memory import peak_bytes
from benchmarks.preference_models import learn, seen_pairs, small_clip
from seedpo.cli.main import main
from seedpo.errors import ConfigError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.planning.dry_run import Guesses
from seedpo.planning.gpus import find_gpu
from seedpo.planning.networks import StandInTokenizer
from seedpo.planning.plan import Plan
from seedpo.planning.reward_models import MetaModel, training_cost
from seedpo.planning.reward_plan import plan_reward_run
from seedpo.rewards.latent_training import latent_start
from seedpo.rewards.networks import on_meta
from seedpo.rewards.preference_model import PairModel, PreferenceModel, made_step_aware
from seedpo.rewards.previews import SeenPairs
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.training.configuration import resolve_reward_config
from seedpo.training.reward_run import _trained_on, build_evaluation
from seedpo.training.settings import RewardRunConfig
from tests.models.published import pipeline_of
from tests.planning.real_runs import counted
from tests.planning.test_memory import TOLERANCE
from tests.small_runs import few_pairs
from tests.training.toys import cpu_accelerator

KINDS: dict[str, dict[str, Any]] = {"plain": {"model": None}, "step-aware": {}, "latent": {"latent": True}}

PREVIEWS_DRAWN = 2e-3
"""A plan counts time step 0, which needs no prediction, by its chance, 1 in 1000."""


def small(folder: Path, **changes: Any) -> RewardRunConfig:
    """Two updates of two batches of two pairs; of the ten pairs none is met twice."""
    data = str(few_pairs(folder))
    keys = {"data": data, "held_out": data, "start": "scenes-clip", "model": "scenes", "timesteps": (0, 501, 951)}
    sizes = {"max_steps": 2, "batch_size": 2, "gradient_accumulation_steps": 2, "evaluate_every": 0}
    return resolve_reward_config(changes=keys | sizes | {"guidance_scale": 3.0} | changes, bfloat16=False)


def planned(config: RewardRunConfig, **guesses: Any) -> Plan:
    return plan_reward_run(config, gpu=find_gpu("T4"), guesses=Guesses(**guesses))


def run(config: RewardRunConfig) -> None:
    """All micro-batches of a run, without updates."""
    parts, source, objective = _trained_on(config, cpu_accelerator(config), progress=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(config.max_steps * config.gradient_accumulation_steps):
        objective.loss(parts.model, source.next_batch(), generator=generator).losses.sum().backward()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["all kept", "checkpointing"])
@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_of_a_run(tmp_path: Path, kind: str, checkpointing: bool) -> None:
    config = small(tmp_path, **KINDS[kind], gradient_checkpointing=checkpointing)
    assert planned(config).flops == pytest.approx(counted(lambda: run(config)), rel=PREVIEWS_DRAWN)


@pytest.mark.parametrize("kind", KINDS)
def test_evaluations_are_counted(tmp_path: Path, kind: str) -> None:
    """An evaluation before the first update and one after the last; latents and prompts of the first are known."""
    config = small(tmp_path, **KINDS[kind], held_out_limit=4)
    without = planned(config.model_copy(update={"held_out_limit": None}))
    assert any("evaluations are not counted" in note for note in without.notes)
    parts, *_ = _trained_on(config, cpu_accelerator(config), progress=False)
    evaluation = build_evaluation(config, parts)

    def evaluate() -> None:
        for step in (0, 2):
            evaluation(parts.model, step=step, folder=tmp_path)

    assert planned(config).flops - without.flops == pytest.approx(counted(evaluate), rel=PREVIEWS_DRAWN)


def test_pairs_that_are_shown_finished_need_no_prediction(tmp_path: Path) -> None:
    noisy, half = (planned(small(tmp_path, clean_share=share)) for share in (0.0, 0.5))
    flops = [{line.name: line.flops for line in plan.lines} for plan in (noisy, half)]
    assert flops[0]["preference model"] == flops[1]["preference model"]
    assert 0.5 * flops[0]["previews"] < flops[1]["previews"] < 0.95 * flops[0]["previews"]


def pair(kind: str) -> tuple[PairModel, MetaModel, SeenPairs]:
    """A small model, the same without weights, and pairs as it sees them."""
    seen = seen_pairs({"latent": "latent", "plain": "plain CLIP"}.get(kind, "step-aware CLIP"), 4)
    if kind == "latent":
        model: PairModel = latent_start(PipelineDenoiser(pipeline_of("sd15")), seed=0)
        seen = SeenPairs(pixels=seen.pixels[..., :16, :16], timestep=seen.timestep)
        denoiser = meta_denoiser()
        with torch.device("meta"):
            hollow: PairModel = latent_start(denoiser, seed=0)
        return model, MetaModel(model=hollow, shape=(4, 16, 16), timed=True, origin=""), seen
    clip = small_clip(vision_layers=4, text_layers=4, width=64)
    if kind == "step-aware":
        clip = PreferenceModel(made_step_aware(clip.clip, seed=0), clip.tokenizer)
    network = StepAwareCLIP if kind == "step-aware" else CLIPModel
    keys = clip.clip.config.to_dict()
    meta: Any = on_meta(lambda: network(CLIPConfig(**keys)).float())
    tokenizer: Any = StandInTokenizer(clip.tokenizer.model_max_length)
    shape = tuple(seen.pixels.shape[2:])
    return (
        clip,
        MetaModel(model=PreferenceModel(meta, tokenizer), shape=shape, timed=kind == "step-aware", origin=""),
        seen,
    )


def meta_denoiser() -> PipelineDenoiser:
    pipeline = pipeline_of("sd15")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.to("meta")
    pipeline.text_encoder.set_attn_implementation("eager")
    length = pipeline.tokenizer.model_max_length
    object.__setattr__(pipeline, "tokenizer", StandInTokenizer(length))
    return PipelineDenoiser(pipeline)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["all kept", "checkpointing"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_training_step_takes_the_memory_that_was_said(kind: str, checkpointing: bool) -> None:
    model, hollow, seen = pair(kind)
    if checkpointing:
        model.checkpoint_activations()
        hollow.model.checkpoint_activations()
    learn(model, seen)  # what libraries set up once
    for weight in model.trainable_parameters().values():
        weight.grad = None
    taken = peak_bytes(lambda: learn(model, seen), [])
    assert training_cost(hollow, len(seen.pixels), low=None).peak == pytest.approx(taken, rel=TOLERANCE)


def test_memory_holds_the_model_twice_more_in_adamw(tmp_path: Path) -> None:
    held = planned(small(tmp_path, model=None)).memory.held
    assert held["optimiser state"] == pytest.approx(2 * held["preference model"], rel=0.01)
    assert "autoencoder" not in held
    assert {"autoencoder", "denoising network", "text encoders"} <= planned(small(tmp_path)).memory.held.keys()


@pytest.mark.slow
def test_published_sizes_are_known_without_any_file() -> None:
    """1.0 billion weights of CLIP-H in float32, and as many again twice for AdamW."""
    config = resolve_reward_config("pickscore", bfloat16=True)
    memory = plan_reward_run(config, gpu=find_gpu("A100-80")).memory
    assert memory.held["preference model"] / 4e9 == pytest.approx(0.986, rel=0.01)
    checkpointed = config.model_copy(update={"gradient_checkpointing": True})
    assert plan_reward_run(checkpointed, gpu=find_gpu("A100-80")).memory.peak < 0.8 * memory.peak


@pytest.mark.parametrize(
    ("changes", "guesses", "said"),
    [
        ({"start": "nobody/nothing"}, {}, "start = 'nobody/nothing': its configuration is unknown"),
        ({"timesteps": (1000,)}, {}, "timesteps: 1000 is beyond"),
        ({}, {"pairs": 0}, "--pairs 0"),
        ({}, {"cached": True}, "--cached needs a folder"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], guesses: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        planned(small(tmp_path, **changes), **guesses)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reward", "plan", "--gpu", "T4", "--set", "model=none", "--set", f"data={few_pairs(tmp_path)}"]
    words += ["--set", "start=scenes-clip", "--pairs", "1000"]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "reward training: scenes-clip; a plain preference model, float32" in shown
    assert "set mixed_precision=fp16" in shown
    plan = json.loads(shown[shown.index("{") :])
    assert plan["activities"]["evaluations"]["hours"] > 0
    assert plan["memory"]["peak"] > 2**30


def test_a_rehearsal_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(few_pairs(tmp_path))
    words = ["reward", "train", "--dry-run", "--quiet", "--out", str(tmp_path / "run"), "--set", "batch_size=2"]
    words += ["--set", f"data={data}", "--set", f"held_out={data}", "--set", "model=none", "--set", "start=scenes-clip"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)
    assert "a run can start" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
