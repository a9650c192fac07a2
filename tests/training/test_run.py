"""From a configuration to a trained model, on the embedded model that ships with the package."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from seedpo.errors import ConfigError, DataError, RunFolderError, SeedpoError, TrainingDiverged
from seedpo.methods.anchors import Anchored
from seedpo.methods.dgpo import DGPO
from seedpo.methods.nft import DiffusionNFT
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.methods.sources.online import ImageRollout
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.steps import StepRollout
from seedpo.methods.sources.trajectories import TrajectoryRollout
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.loading import load_pipeline
from seedpo.models.lora_file import LORA_FILE
from seedpo.models.policy import build_policy
from seedpo.recipes.reading import read_recipe
from seedpo.scenes.shipped import scenes_folder
from seedpo.settings import build_config
from seedpo.training.configuration import resolve_config
from seedpo.training.run import (
    build_evaluation,
    build_method,
    build_source,
    train,
)
from seedpo.training.settings import RunConfig
from tests.small_runs import few_prompts, files_of, metrics, small
from tests.training.toys import cpu_accelerator

METHODS = ("diffusion-dpo", "d3po", "spo")


def run(path: Path, method: str, *, resume: Any = None, **changes: Any) -> dict[str, Any]:
    keys = small(path.parent, **changes)
    if "data_set" in keys.get("anchor", {}):
        keys["anchor"] |= {"data_set": keys["data"]}
    config = resolve_config(method, keys)
    return train(config, path, resume=resume, accelerator=cpu_accelerator(config), progress=False)


def train_lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in metrics(path) if line["kind"] == "train"]


class TestParts:
    @pytest.mark.parametrize(
        ("method", "objective", "source", "rollout"),
        [
            ("diffusion-dpo", NoiseDPO, OfflinePairs, None),
            ("d3po", TransitionDPO, RolloutSource, TrajectoryRollout),
            ("spo", TransitionDPO, RolloutSource, StepRollout),
            ("online-dpo", NoiseDPO, RolloutSource, ImageRollout),
            ("dgpo", DGPO, RolloutSource, ImageRollout),
            ("nft", DiffusionNFT, RolloutSource, ImageRollout),
        ],
    )
    def test_methods_are_built_as_their_presets_say(
        self, tmp_path: Path, method: str, objective: type, source: type, rollout: type | None
    ) -> None:
        config = resolve_config(method, small(tmp_path))
        method_built = build_method(config)
        assert type(method_built.method if isinstance(method_built, Anchored) else method_built) is objective
        assert isinstance(method_built, Anchored) == bool(config.anchor.weights)
        built = build_source(config, build_policy(config))
        assert type(built) is source
        assert rollout is None or type(built.rollout) is rollout

    @pytest.mark.parametrize(
        ("changes", "weights"),
        [
            ({"beta": 2.0, "gamma": 0.0}, (2.0, 2.0)),
            ({"beta": 2.0, "gamma": 3.0}, (8.0, 2.0)),
            ({"beta": 2.0, "gamma": 3.0, "entropy_convention": "absolute"}, (5.0, 2.0)),
        ],
    )
    def test_gamma_is_two_weights(self, changes: dict[str, Any], weights: tuple[float, float]) -> None:
        for method in METHODS:
            built: Any = build_method(resolve_config(method, changes))
            assert (built.policy_weight, built.reference_weight) == weights

    def test_settings_of_the_loss(self) -> None:
        built: Any = build_method(
            resolve_config("spo", {"reduction": "sum", "sampling": {"eta": 0.5, "guidance_scale": 2.0}})
        )
        assert (built.sampling.eta, built.sampling.guidance_scale, built.clip_range, built.reduction) == (
            0.5,
            2.0,
            None,
            "sum",
        )

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: build_policy(RunConfig(model="scones")), r"unknown model 'scones'; did you mean 'scenes'\?"),
            (
                lambda: build_source(
                    resolve_config("diffusion-dpo", {"model": "scenes", "data": "absent.parquet"}),
                    build_policy(RunConfig()),
                ),
                r"preference pairs absent\.parquet do not exist",
            ),
            (
                lambda: build_source(
                    resolve_config("diffusion-dpo", {"model": "scenes", "data": "scenes"}), build_policy(RunConfig())
                ),
                "unknown preference set 'scenes'",
            ),
            (
                lambda: build_source(resolve_config("spo", {"reward": "scorer"}), build_policy(RunConfig())),
                "unknown reward 'scorer'",
            ),
            (
                lambda: build_evaluation(resolve_config("spo", {"evaluation": {"num_prompts": 65}})),
                r"evaluation\.num_prompts = 65, but scenes-evaluation holds 64 prompts",
            ),
            (
                lambda: build_evaluation(build_config(RunConfig, {"evaluation": {"metrics": ["thruth"]}})),
                r"unknown metric 'thruth'; did you mean 'truth'\?",
            ),
        ],
    )
    def test_what_is_not_there_is_named(self, build: Callable[[], Any], message: str) -> None:
        with pytest.raises((ConfigError, DataError), match=message):
            build()

    def test_a_reward_that_cannot_see_time_steps_judges_previews_as_finished_images(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = resolve_config("spo", small(tmp_path, reward="jpeg-compressibility"))
        source = build_source(config, build_policy(config))
        (line,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert line.getMessage().startswith(
            "reward jpeg-compressibility knows no time step: for spo it judges previews"
        )
        source.next_batch()

    def test_a_reward_that_sees_time_steps_is_taken_without_a_word(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = resolve_config("spo", small(tmp_path, reward="scenes-scorer"))
        build_source(config, build_policy(config))
        assert not [record for record in caplog.records if record.levelname == "WARNING"]


# Method, adapter and gamma act apart from each other: each value once, and each adapter with both gammas.
@pytest.mark.parametrize(
    ("method", "adapter", "gamma"),
    [("diffusion-dpo", "lora", 0.0), ("diffusion-dpo", "full", 1.0), ("d3po", "full", 0.0), ("spo", "lora", 1.0)],
)
def test_a_run_writes_its_folder(tmp_path: Path, method: str, adapter: str, gamma: float) -> None:
    out = tmp_path / "run"
    last = run(out, method, adapter=adapter, gamma=gamma, checkpoint_every=1)
    weights = {"lora": "adapter", "full": "network"}[adapter]
    sometimes = {".lock", "alarms.jsonl"}  # these few steps may be so large that an alarm is raised
    assert sorted(path.name for path in out.iterdir() if path.name not in sometimes) == sorted(
        ["checkpoints", "config.yaml", "environment.json", "finished.json", "metrics.jsonl", "samples", weights]
    )
    assert json.loads((out / "finished.json").read_text())["step"] == 2
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["checkpoint-000001", "checkpoint-000002"]

    config = build_config(RunConfig, read_recipe(out / "config.yaml"))
    assert (config.method, config.adapter, config.gamma) == (method, adapter, gamma)
    assert config == resolve_config(method, small(tmp_path, adapter=adapter, gamma=gamma, checkpoint_every=1))

    lines = metrics(out)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("evaluation", 0), ("train", 1), ("train", 2), ("evaluation", 2),
    ]  # fmt: skip
    first = lines[1]
    assert first["pairs_seen"] == 2
    assert first["rewards/margins"] == pytest.approx(first["offset/mean"], abs=1e-6), "policy = reference at the start"
    assert (first["offset/mean"] == 0.0) == (gamma == 0.0)
    if gamma == 0.0:
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["grad_norm"] > 0
    assert ("source/pairs_kept" in first) == (method != "diffusion-dpo")
    assert last["step"] == 2
    for name in ("reward/scenes-scorer", "pairwise_diversity"):
        assert lines[0][f"{name}/low"] <= lines[0][name] <= lines[0][f"{name}/high"]

    assert sorted(path.name for path in (out / "samples").iterdir()) == [
        "index.json",
        "scores-000000.json",
        "scores-000002.json",
        "step-000000.json",
        "step-000000.png",
        "step-000002.json",
        "step-000002.png",
    ]
    with Image.open(out / "samples" / "step-000002.png") as sheet:
        assert sheet.size == (64, 64)
    assert (out / "samples" / "step-000000.png").read_bytes() != (out / "samples" / "step-000002.png").read_bytes()
    policy = build_policy(config)
    if adapter == "lora":
        plain = load_pipeline(scenes_folder())
        plain.load_lora_weights(out / "adapter", weight_name=LORA_FILE)
        policy.load(out / "adapter")
        latents, prompts = torch.ones(1, *policy.latent_shape), policy.encode_prompts(["a small red ring"])
        expected = plain.unet(latents, 500, encoder_hidden_states=prompts.prompt_embeds).sample
        torch.testing.assert_close(policy.predict(latents, torch.tensor([500]), prompts), expected)
    else:
        loaded = UNet2DConditionModel.from_pretrained(out / "network")
        policy.load(out / "network")
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), policy.module.parameters(), strict=True))


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_policy_is_its_reference_at_the_start_in_bf16(tmp_path: Path, adapter: str) -> None:
    """Both must be rounded alike, or their difference is noise that is trained on."""
    run(tmp_path / "run", "diffusion-dpo", adapter=adapter, mixed_precision="bf16", max_steps=1)
    first = train_lines(tmp_path / "run")[0]
    assert first["rewards/margins"] == 0.0
    assert first["log_ratio/chosen"] == 0.0


def test_runs_are_functions_of_their_seed(tmp_path: Path) -> None:
    for state, (name, seed) in enumerate((("one", 3), ("again", 3), ("other", 4))):
        torch.manual_seed(state)  # the global generators do not matter
        run(tmp_path / name, "spo", seed=seed, gamma=1.0)
    assert metrics(tmp_path / "one") == metrics(tmp_path / "again") != metrics(tmp_path / "other")
    weights = [(tmp_path / name / "adapter" / LORA_FILE).read_bytes() for name in ("one", "again", "other")]
    assert weights[0] == weights[1] != weights[2]


class Crash(Exception):
    pass


def crash_at_batch(monkeypatch: pytest.MonkeyPatch, source: Any, number: int) -> None:
    """Ends the run when its source is asked for a batch for the ``number``-th time."""
    asked = 0
    next_batch = source.next_batch

    def watched(self: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == number:
            raise Crash
        return next_batch(self)

    monkeypatch.setattr(source, "next_batch", watched)


RESUMED = {
    "max_steps": 5,
    "checkpoint_every": 3,
    "evaluate_every": 2,
    "log_every": 2,
    "gamma": 1.0,
    "optimizer": {"warmup_steps": 3},
}


@pytest.mark.parametrize(
    ("method", "source", "changes"),
    [
        ("spo", RolloutSource, {"steps": {"updates_per_rollout": 2}, "batch_size": 3}),
        ("d3po", RolloutSource, {"trajectories": {"steps_per_pair": 3}, "adapter": "full", "batch_size": 4}),
        (
            "flow-grpo",
            RolloutSource,
            {
                "gamma": 0.0,
                "groups": {"updates_per_rollout": 2},
                "step_groups": {"trained_steps": 2, "window": "random"},
                "batch_size": 5,
            },
        ),
        ("diffusion-dpo", OfflinePairs, {"batch_size": 5}),
        ("spo", RolloutSource, {"anchor": {"kl": 10.0, "steps": "early", "data": 0.1, "data_set": "pairs.parquet"}}),
        ("online-dpo", RolloutSource, {"groups": {"updates_per_rollout": 2, "pairs": "all"}, "batch_size": 3}),
        ("dgpo", RolloutSource, {"groups": {"updates_per_rollout": 2}, "batch_size": 3, "model": "scenes-flow"}),
        ("nft", RolloutSource, {"groups": {"updates_per_rollout": 2}, "batch_size": 3, "gamma": 0.0}),
    ],
)
def test_a_crashed_run_that_is_resumed_is_the_run_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, source: Any, changes: dict[str, Any]
) -> None:
    """Crashed after the checkpoint of step 3: in the middle of a roll-out, or of the second epoch of a pair set."""
    settings = RESUMED | changes
    run(tmp_path / "whole", method, **settings)
    with monkeypatch.context() as patched:
        crash_at_batch(patched, source, 4)
        with pytest.raises(Crash):
            run(tmp_path / "crashed", method, **settings)
    assert not (tmp_path / "crashed" / "finished.json").exists()
    assert [line["step"] for line in train_lines(tmp_path / "crashed")] == [2]
    run(tmp_path / "crashed", method, resume="latest", **settings)
    assert metrics(tmp_path / "crashed") == metrics(tmp_path / "whole")
    timed = ("metrics.jsonl", "finished.json", "checkpoint.json", ".lock")
    whole, crashed = (
        {name: content for name, content in files_of(tmp_path / name).items() if not name.endswith(timed)}
        for name in ("whole", "crashed")
    )
    assert whole.keys() == crashed.keys()
    assert [name for name in whole if whole[name] != crashed[name]] == []


def test_a_run_that_crashed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A scheduler passes the same command every time; the first time there is not even a folder."""
    run(tmp_path / "whole", "diffusion-dpo")
    with monkeypatch.context() as patched:
        crash_at_batch(patched, OfflinePairs, 2)
        with pytest.raises(Crash):
            run(tmp_path / "crashed", "diffusion-dpo", resume="latest")
    assert train_lines(tmp_path / "crashed")
    (tmp_path / "crashed" / "config.yaml").unlink()
    caplog.set_level(logging.INFO)
    run(tmp_path / "crashed", "diffusion-dpo", resume="latest")
    assert sum("begins anew" in record.getMessage() for record in caplog.records) == 1
    assert metrics(tmp_path / "crashed") == metrics(tmp_path / "whole")


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    settings = {"evaluate_every": 2, "checkpoint_every": 2}
    run(tmp_path / "whole", "spo", max_steps=4, **settings)
    run(tmp_path / "longer", "spo", max_steps=2, **settings)
    run(tmp_path / "longer", "spo", max_steps=4, resume="latest", **settings)
    assert metrics(tmp_path / "longer") == metrics(tmp_path / "whole")
    weights = [(tmp_path / name / "adapter" / LORA_FILE).read_bytes() for name in ("whole", "longer")]
    assert weights[0] == weights[1]


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "key", "changes"),
        [
            (
                "diffusion-dpo",
                "evaluation.metrics: truth",
                {"evaluation": {"metrics": ["truth", "vendi_clip@models/clip"]}},
            ),
            ("spo", "evaluation.rewards: scenes-truth", {"evaluation": {"metrics": [], "rewards": ["scenes-truth"]}}),
            ("d3po", "reward: scenes-truth", {"evaluation": {"metrics": []}, "reward": "scenes-truth"}),
        ],
    )
    def test_what_cannot_read_the_images(self, tmp_path: Path, method: str, key: str, changes: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=rf"{key} cannot read the images of model scenes, 48 x 48 px; set "):
            run(tmp_path / "run", method, resolution=48, **changes)
        assert not (tmp_path / "run").exists()

    def test_a_run_folder_that_is_in_use_is_left_alone(self, tmp_path: Path) -> None:
        run(tmp_path / "run", "diffusion-dpo", max_steps=1)
        before = files_of(tmp_path / "run")
        with pytest.raises(RunFolderError, match="is not empty; continue with --resume latest"):
            run(tmp_path / "run", "diffusion-dpo", max_steps=1)
        assert files_of(tmp_path / "run") == before

    def test_resuming_what_is_no_run_leaves_it_alone(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.txt").write_text("mine")
        with pytest.raises(RunFolderError, match=r"config\.yaml"):
            run(tmp_path / "run", "diffusion-dpo", resume="latest")
        assert files_of(tmp_path / "run") == {"thesis.txt": b"mine"}

    def test_resuming_with_other_settings(self, tmp_path: Path) -> None:
        run(tmp_path / "run", "diffusion-dpo", max_steps=1)
        with pytest.raises(RunFolderError, match=r"gamma \(0\.0 -> 0\.5\)"):
            run(tmp_path / "run", "diffusion-dpo", max_steps=1, gamma=0.5, resume="latest")

    @pytest.mark.parametrize("method", ["diffusion-dpo", "spo"])
    def test_a_diverging_run_stops_in_words_and_overwrites_nothing(self, tmp_path: Path, method: str) -> None:
        out = tmp_path / "run"
        with pytest.raises(SeedpoError, match="lower learning_rate") as failure:
            run(out, method, learning_rate=1e30, max_steps=4, checkpoint_every=1, steps={"prompts_per_rollout": 1})
        assert "\n" not in str(failure.value)
        if method == "diffusion-dpo":
            assert isinstance(failure.value, TrainingDiverged)
            assert str(failure.value).startswith("step 2: the loss is not finite for process 0, micro-batch 0, rows [")
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-000001"]
        assert not (out / "adapter").exists()
        assert not (out / "finished.json").exists()
        assert [line["step"] for line in train_lines(out)] == [1]

    def test_images_that_decayed_before_an_evaluation(self, tmp_path: Path) -> None:
        with pytest.raises(SeedpoError, match=r"step 1: .*not finite.*lower learning_rate"):
            run(tmp_path / "run", "diffusion-dpo", learning_rate=1e30, evaluate_every=1)

    def test_nothing_is_written_before_all_parts_are_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="unknown reward"):
            run(tmp_path / "run", "spo", reward="absent")
        assert not (tmp_path / "run").exists()


def test_unknown_words_are_named_and_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    few_prompts(tmp_path)
    strange = tmp_path / "strange.txt"
    strange.write_text("a small mauve circle on a white background\n")
    config = resolve_config("spo", small(tmp_path, prompts=str(strange), max_steps=1))
    last = train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    assert "'mauve'" in caplog.text
    assert last["step"] == 1
