"""Training of preference models from a configuration: `seedpo reward train`."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from seedpo.cli.main import main
from seedpo.errors import ConfigError, DataError, RunFolderError
from seedpo.rewards.named import build_reward
from seedpo.rewards.preference_model import load_start
from seedpo.rewards.preference_objective import PreferenceObjective
from seedpo.rewards.previews import SeenPairs
from seedpo.rewards.step_aware_clip import StepAwareCLIP, load_scorer
from seedpo.scenes.shipped import clip_folder
from seedpo.settings import build_config, merge
from seedpo.training.configuration import resolve_reward_config
from seedpo.training.interrupt import TrainingInterrupted
from seedpo.training.reward_run import (
    build_parts,
    build_preference_model,
    build_preference_pairs,
    measure_reward,
    train_reward,
)
from seedpo.training.settings import RewardRunConfig
from tests.rewards.tiny_clip import tiny_config, tiny_model, tiny_tokenizer
from tests.small_runs import few_pairs, metrics
from tests.training.real_processes import sharded
from tests.training.toys import cpu_accelerator

ROOT = Path(__file__).parents[2]

CPU = torch.device("cpu")


def small(folder: Path, **changes: Any) -> RewardRunConfig:
    """Four steps on ten pairs of drawings."""
    data = str(few_pairs(folder))
    keys = {
        "start": "scenes-clip",
        "model": "scenes",
        "gradient_accumulation_steps": 1,
        "evaluate_every": 0,
        "data": data,
        "held_out": data,
        "held_out_limit": 4,
        "timesteps": (0, 501),
        "max_steps": 4,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "guidance_scale": 3.0,
        "clean_share": 0.3,
    }
    return resolve_reward_config(changes=merge(keys, changes))


def run(config: RewardRunConfig, out: Path, **more: Any) -> dict[str, Any]:
    return train_reward(config, out, accelerator=cpu_accelerator(config), progress=False, **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardRunConfig, Path]:
    """A run that never stopped."""
    folder = tmp_path_factory.mktemp("finished")
    config = small(folder, pairs={"flip": True})
    run(config, folder / "run")
    return config, folder / "run"


class TestRun:
    def test_gives_a_reward_that_knows_the_time_step(self, finished: tuple[RewardRunConfig, Path]) -> None:
        reward = build_reward(str(finished[1] / "model"))
        assert reward.step_aware
        images, prompts = torch.rand(2, 3, 32, 32), ["a large red circle on a gray background"] * 2
        early, late = (reward(images, prompts, timestep=torch.full((2,), step)) for step in (0, 951))
        assert not torch.equal(early, late)

    def test_states_an_accuracy_for_each_time_step(self, finished: tuple[RewardRunConfig, Path]) -> None:
        lines = metrics(finished[1])
        evaluations = [line for line in lines if line["kind"] == "evaluation"]
        assert [line["step"] for line in evaluations] == [0, 4]
        wanted = {f"accuracy/t={step}{end}" for step in (0, 501) for end in ("", "/low", "/high")}
        assert wanted <= set(evaluations[0])
        training = [line for line in lines if line["kind"] == "train"]
        assert {"rewards/margins", "rewards/accuracies", "timestep"} <= set(training[0])

    def test_resumed_and_never_stopped_are_the_same_bit_for_bit(
        self, finished: tuple[RewardRunConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config, whole = finished
        calls: list[object] = []
        loss = PreferenceObjective.loss

        def interrupted(self: PreferenceObjective, *given: Any, **named: Any) -> Any:
            calls.append(given)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGINT)
            return loss(self, *given, **named)

        with monkeypatch.context() as patched:
            patched.setattr(PreferenceObjective, "loss", interrupted)
            with pytest.raises(TrainingInterrupted, match="stopped after step 2 of 4"):
                run(config, tmp_path / "stopped")
        run(config, tmp_path / "stopped", resume="latest")
        assert metrics(tmp_path / "stopped") == metrics(whole)
        one, other = weights(whole), weights(tmp_path / "stopped")
        assert all(torch.equal(value, other[name]) for name, value in one.items())

    def test_other_settings_do_not_resume(self, finished: tuple[RewardRunConfig, Path]) -> None:
        config, whole = finished
        with pytest.raises(RunFolderError, match="clean_share"):
            run(config.model_copy(update={"clean_share": 0.5}), whole, resume="latest")

    def test_a_trained_one_is_measured_as_at_the_end_of_its_run(self, finished: tuple[RewardRunConfig, Path]) -> None:
        config, whole = finished
        found = measure_reward(config.model_copy(update={"start": str(whole / "model")}), progress=False)
        last = metrics(whole)[-1]
        assert dict(found) == {name: last[name] for name in found}

    def test_cached_and_live_are_the_same(self, tmp_path: Path) -> None:
        changes = {"max_steps": 1, "held_out_limit": 2, "timesteps": [501]}
        run(small(tmp_path, **changes), tmp_path / "live")
        for name in ("cold", "warm"):
            run(small(tmp_path, **changes, cache={"folder": str(tmp_path / "cache")}), tmp_path / name)
            for key, value in weights(tmp_path / "live").items():
                torch.testing.assert_close(weights(tmp_path / name)[key], value, rtol=0, atol=1e-5, msg=key)
        cold, warm = weights(tmp_path / "cold"), weights(tmp_path / "warm")
        assert all(torch.equal(value, warm[key]) for key, value in cold.items())

    def test_without_a_diffusion_model_a_plain_one_is_trained(self, tmp_path: Path) -> None:
        run(small(tmp_path, model=None), tmp_path / "run")
        assert json.loads((tmp_path / "run/model/config.json").read_text())["architectures"] == ["CLIPModel"]
        assert not build_reward(str(tmp_path / "run" / "model")).step_aware
        assert "accuracy/low" in metrics(tmp_path / "run")[0]

    def test_in_batch_negatives_and_new_labels(self, tmp_path: Path) -> None:
        changes = {"in_batch_negatives": True, "relabel": "jpeg-incompressibility", "max_steps": 1, "model": None}
        assert run(small(tmp_path, **changes), tmp_path / "run")["loss"] > 0

    def test_a_pair_of_a_frequent_prompt_counts_less(self, tmp_path: Path) -> None:
        table = pq.read_table(few_pairs(tmp_path))
        frequent = table.slice(1, 1)
        data = tmp_path / "frequent.parquet"
        pq.write_table(pa.concat_tables([table.slice(0, 1), *[frequent] * 3]), data)
        changes = {"model": None, "data": str(data), "batch_size": 4, "max_steps": 1}
        plain, weighted = (
            run(small(tmp_path, **changes, pair_weights=kind), tmp_path / str(kind))["loss"]
            for kind in (None, "prompt")
        )
        alone = run(small(tmp_path, **changes | {"batch_size": 1, "data": one(tmp_path, table)}), tmp_path / "one")[
            "loss"
        ]
        other = (4 * plain - alone) / 3
        assert weighted == pytest.approx((alone + other) / 2, rel=1e-4)
        assert weighted != pytest.approx(plain, rel=1e-3)


def one(folder: Path, table: pa.Table) -> str:
    """The first pair of a table as a set of its own."""
    pq.write_table(table.slice(0, 1), folder / "one.parquet")
    return str(folder / "one.parquet")


class TestStart:
    def test_pickscores_own_checkpoint(self, tmp_path: Path) -> None:
        """yuvalkirstain/PickScore_v1: a whole CLIPModel with the buffers of older libraries, and no tokenizer."""
        tokenizer = tiny_tokenizer(tmp_path / "words")
        tokenizer.save_pretrained(tmp_path / "words")
        torch.manual_seed(3)
        published = CLIPModel(tiny_config(tokenizer))
        published.save_pretrained(tmp_path / "clip")
        file = tmp_path / "clip" / "model.safetensors"
        places = {
            f"{tower}_model.embeddings.position_ids": torch.arange(length)[None]
            for tower, length in (("text", 12), ("vision", 5))
        }
        save_file(load_file(file) | places, file, metadata={"format": "pt"})
        for step_aware in (False, True):
            start = load_start(tmp_path / "clip", step_aware=step_aware, tokenizer=str(tmp_path / "words"))
            weights = start.trainable_parameters()
            assert weights.keys() >= dict(published.named_parameters()).keys()
            assert all(torch.equal(weights[name], value) for name, value in published.named_parameters())
        config = small(
            tmp_path, start=str(tmp_path / "clip"), tokenizer=str(tmp_path / "words"), model=None, max_steps=1
        )
        run(config, tmp_path / "run")
        assert build_reward(str(tmp_path / "run" / "model")).step_aware is False

    def test_a_step_aware_one_says_what_its_clip_says_at_every_time_step(self) -> None:
        aware, plain = (load_start(clip_folder(), step_aware=kind) for kind in (True, False))
        pixels = torch.randn(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        prompts = ["a small red circle on a white background"] * 3
        with torch.no_grad():
            wanted = plain.compare(SeenPairs(pixels=pixels), prompts).logits
            for step in (0, 500, 999):
                said = aware.compare(SeenPairs(pixels=pixels, timestep=torch.full((3,), step)), prompts).logits
                torch.testing.assert_close(said, wanted, rtol=1e-5, atol=1e-4)
        assert all(value.dtype == torch.float32 for value in aware.trainable_parameters().values())

    def test_new_layers_follow_from_the_seed_and_disturb_no_other_draw(self) -> None:
        torch.manual_seed(3)
        wanted = torch.rand(2)
        torch.manual_seed(3)
        first, again, other = (load_start(clip_folder(), step_aware=True, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(torch.rand(2), wanted)
        embedders = [model.clip.t_embedder.mlp[0].weight for model in (first, again, other)]
        assert torch.equal(embedders[0], embedders[1])
        assert not torch.equal(embedders[0], embedders[2])

    def test_a_step_aware_start_is_trained_on(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer(tmp_path)
        model = tiny_model(tokenizer)
        with torch.no_grad():
            model.t_embedder.mlp[0].weight.fill_(0.5)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        start = load_start(tmp_path, step_aware=True)
        assert torch.equal(start.clip.t_embedder.mlp[0].weight, model.t_embedder.mlp[0].weight)
        with pytest.raises(ConfigError, match="is step-aware, but model = none"):
            load_start(tmp_path, step_aware=False)

    def test_a_tokenizer_can_be_elsewhere(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer(tmp_path / "words")
        tokenizer.save_pretrained(tmp_path / "words")
        CLIPModel(tiny_config(tokenizer)).save_pretrained(tmp_path / "clip")
        with pytest.raises(DataError, match="has no tokenizer"):
            load_start(tmp_path / "clip", step_aware=True)
        assert load_start(tmp_path / "clip", step_aware=True, tokenizer=str(tmp_path / "words")).image_size == 8

    def test_the_text_tower_of_the_start_is_kept(self) -> None:
        model = load_start(clip_folder(), step_aware=True)
        saved = load_file(clip_folder() / "model.safetensors")
        assert isinstance(model.clip, StepAwareCLIP)
        for name, value in model.trainable_parameters().items():
            if name in saved:
                assert torch.equal(value, saved[name].float()), name


def test_a_run_is_not_resumed_on_another_held_out_set(tmp_path: Path) -> None:
    held_out = tmp_path / "held-out.parquet"
    shutil.copy(few_pairs(tmp_path), held_out)
    run(small(tmp_path, held_out=str(held_out), max_steps=1), tmp_path / "run")
    pq.write_table(pq.read_table(held_out).slice(1), held_out)
    with pytest.raises(RunFolderError, match=r"other held_out than held_out = .*held-out\.parquet .*\(rows \d+ -> \d+"):
        run(small(tmp_path, held_out=str(held_out), max_steps=2), tmp_path / "run", resume="latest")


class TestPairs:
    def test_some_prompts_are_kept_out_where_no_set_is_named(self, tmp_path: Path) -> None:
        config = small(tmp_path, held_out=None, held_out_share=0.4)
        training, held_out = build_preference_pairs(config)
        sides = [{side.prompt(row) for row in range(len(side))} for side in (training, held_out)]
        assert not sides[0] & sides[1]
        assert sides[0]
        assert sides[1]

    def test_the_embedded_scorer_is_the_default(self) -> None:
        config = resolve_reward_config()
        assert (config.data, config.held_out, config.start) == (
            "scenes-scorer-pairs",
            "scenes-held-out-pairs",
            "scenes-clip",
        )
        assert (config.max_steps, config.batch_size, config.learning_rate) == (900, 32, 5e-4)
        assert (config.guidance_scale, config.clean_share, config.optimizer.beta2) == (3.0, 0.25, 0.98)

    def test_other_data_get_the_published_settings(self) -> None:
        config = resolve_reward_config(changes={"data": "scenes-pairs"})
        assert (config.guidance_scale, config.clean_share, config.held_out) == (5.0, 0.0, None)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"start": "scenes-clp"}, r"'scenes-clp'; did you mean 'scenes-clip'"),
    ({"start": "nowhere/clip/x"}, r"start = .*nowhere/clip/x"),
    ({"timesteps": [1000]}, r"timesteps: 1000 .*model scenes, 999"),
    ({"relabel": "pickscor"}, r"'pickscor'; did you mean 'pickscore'"),
]


class TestBadInput:
    def test_shards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        with sharded(), pytest.raises(ConfigError, match="cannot be trained in shards"):
            train_reward(small(tmp_path), tmp_path / "run", accelerator=cpu_accelerator(small(tmp_path)))

    @pytest.mark.parametrize(("changes", "message"), BAD, ids=lambda value: str(value)[:30])
    def test_names_and_places(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises((ConfigError, DataError), match=message):
            build_parts(small(tmp_path, **changes), device=CPU)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"cache": {"folder": "x", "reference": True, "visits": 1}}, "cache.reference"),
            ({"pairs": {"empty_prompts": 0.2}}, "pairs.empty_prompts must be 0"),
            ({"timesteps": [0, 0]}, "each once"),
            ({"beta": 0.1}, "unknown key 'beta'"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_keys(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build_config(RewardRunConfig, changes)

    def test_pairs_of_another_size_than_the_model(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"latents of 8 x 16 x 16, but .* 8 x 8 x 8.*pairs.resolution"):
            run(small(tmp_path, pairs={"resolution": 64}), tmp_path / "run")

    def test_no_pairs(self, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(few_pairs(tmp_path))
        pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
        with pytest.raises(DataError, match=r"none\.parquet holds no pair"):
            build_preference_pairs(small(tmp_path, data=str(tmp_path / "none.parquet")))
        with pytest.raises(DataError, match=r"none\.parquet holds no pair"):
            build_preference_pairs(small(tmp_path, held_out=str(tmp_path / "none.parquet")))

    def test_a_start_that_lacks_weights(self, tmp_path: Path) -> None:
        shutil.copytree(clip_folder(), tmp_path / "clip")
        from safetensors.torch import save_file

        kept = load_file(tmp_path / "clip/model.safetensors")
        kept.pop("visual_projection.weight")
        save_file(kept, tmp_path / "clip/model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DataError, match=r"lacks weights, for example 'visual_projection.weight'"):
            load_start(tmp_path / "clip", step_aware=True)
        (tmp_path / "clip/model.safetensors").write_bytes(b"broken")
        with pytest.raises(DataError, match="cannot be loaded as a CLIP"):
            load_start(tmp_path / "clip", step_aware=True)


PUBLISHED: dict[str, dict[str, Any]] = {
    "spm-sd15": {"max_steps": 8000, "learning_rate": 3e-6, "guidance_scale": 5.0, "total": 64},
    "spm-sdxl": {"max_steps": 7000, "learning_rate": 1e-6, "guidance_scale": 5.0, "total": 64, "relabel": "pickscore"},
    "pickscore": {"max_steps": 4000, "learning_rate": 3e-6, "model": None, "total": 128},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_have_the_published_settings_and_name_their_command(name: str) -> None:
    path = ROOT / "src" / "seedpo" / "recipes" / f"{name}.yaml"
    config = resolve_reward_config(path, bfloat16=False)
    found = config.model_dump() | {"total": config.batch_size * config.gradient_accumulation_steps}
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert config.optimizer.warmup_steps == 500
    assert config.pair_weights == "prompt"
    assert config.pairs.ties == "half"
    assert f"seedpo reward train {name} --out" in path.read_text(encoding="utf-8")


def test_the_command_trains_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(few_pairs(tmp_path))
    options = [
        *("reward", "train", "--out", str(tmp_path / "run"), "--quiet"),
        *("--set", f"data={data}", "--set", f"held_out={data}", "--set", "timesteps=[0, 501]"),
        *("--set", "start=scenes-clip", "--set", "model=scenes"),
        *("--set", "max_steps=1", "--set", "batch_size=2"),
    ]
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "held-out pairs (95 % interval)" in shown
    assert "t=501" in shown
    assert f"--set reward={tmp_path / 'run/model'}" in shown
    assert load_scorer(tmp_path / "run/model").model.config.vision_config.image_size == 32


def test_the_registered_start_is_the_shipped_one() -> None:
    assert build_preference_model(resolve_reward_config()).image_size == 32


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardRunConfig, Path]:
    """A run of a latent reward model that never stopped."""
    folder = tmp_path_factory.mktemp("latent")
    config = small(folder, latent=True, pairs={"flip": True})
    run(config, folder / "run")
    return config, folder / "run"


class TestLatent:
    """A latent reward model in place of a CLIP."""

    def test_gives_a_reward_of_latents_and_images(self, latent: tuple[RewardRunConfig, Path]) -> None:
        reward = build_reward(str(latent[1] / "model"))
        assert reward.latent is not None
        noisy, prompts = torch.randn(2, 8, 8, 8), ["a large red circle on a gray background"] * 2
        early, late = (
            reward.latent.score_latents(noisy, prompts, timestep=torch.full((2,), step)) for step in (1, 951)
        )
        assert not torch.equal(early, late)
        assert torch.isfinite(reward(torch.rand(2, 3, 32, 32), prompts)).all()
        evaluations = [line for line in metrics(latent[1]) if line["kind"] == "evaluation"]
        assert {"accuracy/t=0", "accuracy/t=501"} <= set(evaluations[0])

    def test_resumed_and_never_stopped_are_the_same_bit_for_bit(
        self, latent: tuple[RewardRunConfig, Path], tmp_path: Path
    ) -> None:
        config, done = latent
        shutil.copytree(done, tmp_path / "run")
        shutil.rmtree(tmp_path / "run/checkpoints/checkpoint-000004")
        for name in ("finished.json", "model"):
            path = tmp_path / "run" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        run(config, tmp_path / "run", resume="latest")
        assert metrics(tmp_path / "run") == metrics(done)
        for file in sorted((done / "model").rglob("*.safetensors")):
            one, other = load_file(file), load_file(tmp_path / "run/model" / file.relative_to(done / "model"))
            assert all(torch.equal(one[name], other[name]) for name in one)

    def test_needs_a_diffusion_model(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="latent = true needs model"):
            small(tmp_path, latent=True, model=None)
        with pytest.raises(ConfigError, match="latent = true"):
            build_parts(small(tmp_path, latent=True, model="scenes-flow"), device=CPU)
