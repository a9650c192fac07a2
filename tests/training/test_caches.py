"""Caches of whole runs on the embedded model, and what makes a cache void."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from seedpo.cli.cache_builds import build_cache
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.models.settings import LoraForm
from seedpo.settings import build_config
from seedpo.training.caches import open_caches
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_caches, build_method, build_source, train
from seedpo.training.scopes import idle_keys
from seedpo.training.settings import RunConfig
from tests.models.tiny import tiny_policy
from tests.small_runs import files_of, metrics, small
from tests.training.toys import cpu_accelerator


@dataclass
class Calls:
    """What the model was asked in training."""

    images: int = 0
    prompts: int = 0
    reference: int = 0
    released: list[str] = field(default_factory=list)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    counted = Calls()
    encode_images, encode_prompts = PipelinePolicy.encode_images, PipelinePolicy.encode_prompts
    reference, release = PipelinePolicy.reference, PipelinePolicy.release
    small(tmp_path)
    captions = set(pq.read_table(tmp_path / "pairs.parquet")["caption"].to_pylist())

    def count_images(policy: PipelinePolicy, images: Tensor) -> Tensor:
        counted.images += len(images)
        return encode_images(policy, images)

    def count_prompts(policy: PipelinePolicy, prompts: Sequence[str]) -> Conditioning:
        counted.prompts += sum(prompt in captions for prompt in prompts)  # evaluations ask for others
        return encode_prompts(policy, prompts)

    @contextmanager
    def count_reference(policy: PipelinePolicy) -> Iterator[None]:
        counted.reference += 1
        with reference(policy):
            yield

    def note_release(policy: PipelinePolicy, *parts: Any) -> None:
        counted.released += parts
        release(policy, *parts)

    monkeypatch.setattr(PipelinePolicy, "release", note_release)
    monkeypatch.setattr(PipelinePolicy, "encode_images", count_images)
    monkeypatch.setattr(PipelinePolicy, "encode_prompts", count_prompts)
    monkeypatch.setattr(PipelinePolicy, "reference", count_reference)
    return counted


LEAST_EVALUATION = {
    "num_prompts": 1,
    "images_per_prompt": 1,
    "num_inference_steps": 1,
    "rewards": ["scenes-scorer"],
    "metrics": [],
}


def run(path: Path, *, resume: Any = None, **changes: Any) -> dict[str, Any]:
    """A run of Diffusion-DPO; what it measured, and its weights."""
    # Ten pairs at two a step: the third step begins the second epoch.
    settings = {"batch_size": 4, "max_steps": 3, "pairs": {"flip": True}, "evaluation": LEAST_EVALUATION} | changes
    config = resolve_config("diffusion-dpo", small(path.parent, **settings))
    train(config, path, resume=resume, accelerator=cpu_accelerator(config), progress=False)
    weights = {name: content for name, content in files_of(path).items() if name.startswith(("adapter/", "network/"))}
    assert weights
    # Nobody can say how far a policy is from a reference of which two numbers of each pair are known.
    lines = [{name: value for name, value in line.items() if name != "distance"} for line in metrics(path)]
    return {"metrics": lines, **weights}


def flip_a_byte_of_each_shard(folder: Path, place: int = -1) -> list[Path]:
    """The last bytes of a file are those of its index, or the numbers of its last entry; both happen here."""
    paths = sorted(folder.rglob("*.safetensors"))
    for path in paths:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
    return paths


def build(path: Path, cache: dict[str, Any], **changes: Any) -> None:
    """Fills the cache of :func:`run`."""
    settings = {"batch_size": 4, "pairs": {"flip": True}, "cache": cache} | changes
    build_cache(resolve_config("diffusion-dpo", small(path, **settings)), progress=False)


class TestRuns:
    def test_cached_and_live_training_are_the_same_bit_for_bit(
        self, tmp_path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        live = run(tmp_path / "live")
        assert (calls.images > 0, calls.prompts > 0, calls.released) == (True, True, [])
        cache = {"folder": str(tmp_path / "cache")}
        with caplog.at_level(logging.INFO):
            assert run(tmp_path / "empty", cache=cache) == live
        assert f"cache {cache['folder']}: 0 latents, 0 prompts" in caplog.text
        assert not (tmp_path / "cache").exists(), "a run writes no cache"
        build(tmp_path, cache)
        calls.images = calls.prompts = 0
        calls.released.clear()
        assert run(tmp_path / "full", cache=cache) == live
        assert (calls.images, calls.prompts, sorted(calls.released)) == (0, 0, ["text_encoder", "vae"])

    def test_prompts_left_out_are_read_from_the_caches_of_prompts_and_reference(
        self, tmp_path: Path, calls: Calls
    ) -> None:
        cache = {"folder": str(tmp_path / "cache"), "reference": True, "visits": 2}
        pairs = {"flip": True, "empty_prompts": 0.5}
        live = run(tmp_path / "live", cache=cache, pairs=pairs)
        build(tmp_path, cache, pairs=pairs)
        calls.images = calls.prompts = calls.reference = 0
        assert run(tmp_path / "full", cache=cache, pairs=pairs) == live
        assert (calls.images, calls.prompts, calls.reference) == (0, 0, 0)
        assert run(tmp_path / "all", cache=cache, pairs={"flip": True}) != live
        assert calls.reference > 0, "what the reference says without a prompt is not taken for what it says with one"

    def test_runs_of_a_sweep_share_the_reference(self, tmp_path: Path, calls: Calls) -> None:
        cache = {"folder": str(tmp_path / "cache"), "reference": True, "visits": 2}
        live = run(tmp_path / "live", cache=cache)
        assert calls.reference == 3
        build(tmp_path, cache)
        calls.reference = 0
        assert run(tmp_path / "cached", cache=cache) == live
        assert run(tmp_path / "gamma", cache=cache, gamma=0.01, beta=100.0)["metrics"] != live["metrics"]
        assert calls.reference == 0, "in neither of them"

    def test_trained_text_encoders_use_no_stored_prompts(self, tmp_path: Path, calls: Calls) -> None:
        cache = {"folder": str(tmp_path / "cache"), "reference": True, "visits": 2}
        live = run(tmp_path / "live", cache=cache, lora_text_encoder=True)
        build(tmp_path, cache, lora_text_encoder=True)
        calls.images = calls.prompts = calls.reference = 0
        calls.released.clear()
        assert run(tmp_path / "cached", cache=cache, lora_text_encoder=True) == live
        assert (calls.images, calls.reference) == (0, 0)
        assert calls.prompts > 0
        assert "text_encoder" not in calls.released

    @pytest.mark.slow
    def test_full_fine_tuning_uses_the_reference_of_the_adapter(self, tmp_path: Path, calls: Calls) -> None:
        cache = {"folder": str(tmp_path / "cache"), "reference": True, "visits": 1}
        build(tmp_path, cache)
        calls.reference = 0
        run(tmp_path / "full", cache=cache, adapter="full", learning_rate=1e-5)
        assert calls.reference == 0

    def test_a_damaged_cache_is_reported_and_changes_no_number(
        self, tmp_path: Path, calls: Calls, caplog: pytest.LogCaptureFixture
    ) -> None:
        cache = {"folder": str(tmp_path / "cache"), "reference": True, "visits": 2}
        build(tmp_path, cache)
        intact = run(tmp_path / "intact", cache=cache)
        damaged = flip_a_byte_of_each_shard(tmp_path / "cache")
        assert len(damaged) == 3
        calls.images = calls.prompts = calls.reference = 0
        assert run(tmp_path / "damaged", cache=cache) == intact
        assert min(calls.images, calls.prompts, calls.reference) > 0
        for path in damaged:
            assert str(path) in caplog.text
        build(tmp_path, cache)
        calls.images = calls.prompts = calls.reference = 0
        assert run(tmp_path / "repaired", cache=cache) == intact
        assert (calls.images, calls.prompts, calls.reference) == (0, 0, 0)

    @pytest.mark.parametrize("between", ["damaged", pytest.param("lost", marks=pytest.mark.slow)])
    def test_a_resumed_run_gives_the_uninterrupted_numbers(self, tmp_path: Path, calls: Calls, between: str) -> None:
        cache = {"folder": str(tmp_path / "cache"), "reference": True, "visits": 2}
        build(tmp_path, cache)
        whole = run(tmp_path / "whole", cache=cache, max_steps=4)
        run(tmp_path / "parts", cache=cache, max_steps=2)
        if between == "damaged":
            flip_a_byte_of_each_shard(tmp_path / "cache", -5)
        else:
            cache["folder"] = str(tmp_path / "other")
        parts = run(tmp_path / "parts", cache=cache, max_steps=4, resume="latest")
        for line in whole["metrics"]:
            assert line in parts["metrics"]
        assert {key: value for key, value in parts.items() if key != "metrics"} == {
            key: value for key, value in whole.items() if key != "metrics"
        }

    def test_online_methods_read_no_cache(self, tmp_path: Path) -> None:
        config = resolve_config("d3po", {"cache": {"folder": str(tmp_path / "cache")}})
        assert build_caches(config, tiny_policy()).stores == []
        assert [key.name for key in idle_keys(config)] == ["cache.folder"]


def nudge(parameter: Tensor) -> None:
    with torch.no_grad():
        parameter[(0,) * parameter.dim()] += 1e-3


def digests(root: Path, policy: PipelinePolicy | None = None, **changes: Any) -> dict[str, str]:
    """The stores that a run would use."""
    config = build_config(RunConfig, {"cache": {"folder": str(root), "reference": True, "visits": 1}}, changes)
    caches = open_caches(config, policy or fresh_policy(), with_empty=True)
    return {store.kind: store.digest for store in caches.stores} | {"pairs": caches.identity or ""}


def fresh_policy(**settings: Any) -> PipelinePolicy:
    """With parts of its own, which may be changed."""
    from copy import deepcopy

    policy = tiny_policy(**settings)
    for name in ("vae", "text_encoder"):
        setattr(policy.pipeline, name, deepcopy(getattr(policy.pipeline, name)))
    return policy


def change_vae(policy: PipelinePolicy) -> None:
    nudge(next(policy.pipeline.vae.encoder.parameters()))


def change_vae_scale(policy: PipelinePolicy) -> None:
    policy.pipeline.vae.register_to_config(scaling_factor=0.5)


def change_vae_precision(policy: PipelinePolicy) -> None:
    policy.pipeline.vae.to(torch.bfloat16)


def change_text_encoder(policy: PipelinePolicy) -> None:
    nudge(next(policy.pipeline.text_encoder.parameters()))


def change_length(policy: PipelinePolicy) -> None:
    from copy import deepcopy

    policy.pipeline.tokenizer = deepcopy(policy.pipeline.tokenizer)
    policy.pipeline.tokenizer.model_max_length = 8


def change_unet(policy: PipelinePolicy) -> None:
    nudge(policy.pipeline.unet.conv_in.weight)


def change_adapter(policy: PipelinePolicy) -> None:
    for parameter in policy.trainable_parameters().values():
        nudge(parameter)


class TestStaleness:
    @pytest.mark.parametrize(
        ("change", "void"),
        [
            (change_vae, {"latents", "pairs"}),
            (change_vae_scale, {"latents", "pairs"}),
            (change_vae_precision, {"latents", "pairs"}),
            (change_text_encoder, {"prompts", "pairs"}),
            (change_length, {"prompts", "pairs"}),
            (change_unet, {"reference"}),
            (change_adapter, set()),
        ],
    )
    def test_changed_weights_void_what_depends_on_them(
        self, tmp_path: Path, change: Callable[[PipelinePolicy], None], void: set[str]
    ) -> None:
        before, policy = digests(tmp_path), fresh_policy()
        change(policy)
        after = digests(tmp_path, policy)
        assert {kind for kind in before if before[kind] != after[kind]} == void

    @pytest.mark.parametrize(
        ("changes", "void"),
        [
            ({"reduction": "sum"}, {"reference"}),
            ({"mixed_precision": "bf16"}, {"prompts", "reference", "pairs"}),
            ({"beta": 7.0, "gamma": 0.5, "seed": 3, "learning_rate": 1e-3, "batch_size": 1}, set()),
        ],
    )
    def test_settings_void_what_depends_on_them(self, tmp_path: Path, changes: dict[str, Any], void: set[str]) -> None:
        before, after = digests(tmp_path), digests(tmp_path, **changes)
        assert {kind for kind in before if before[kind] != after[kind]} == void

    def test_prediction_type_and_diffusion_process(self, tmp_path: Path) -> None:
        before = digests(tmp_path)
        for scheduler in ({"prediction_type": "v_prediction"}, {"beta_end": 0.02}):
            after = digests(tmp_path, fresh_policy(**scheduler))
            assert {kind for kind in before if before[kind] != after[kind]} == {"reference"}

    def test_asking_the_tokenizer_changes_nothing(self, tmp_path: Path) -> None:
        policy = fresh_policy()
        before = digests(tmp_path, policy)
        policy.encode_prompts(["a prompt"])
        assert digests(tmp_path, policy) == before

    def test_adapter_and_full_runs_share_everything(self, tmp_path: Path) -> None:
        assert digests(tmp_path, fresh_policy(adapter="full")) == digests(tmp_path)

    def test_trained_text_encoders_share_all_but_prompts(self, tmp_path: Path) -> None:
        shared = digests(tmp_path)
        del shared["prompts"]
        policy = fresh_policy(lora=LoraForm(text_encoder=True))
        assert digests(tmp_path, policy) == shared
        change_text_encoder(policy)
        assert digests(tmp_path, policy)["pairs"] != shared["pairs"]

    def test_latents_of_another_autoencoder_are_not_used(self, tmp_path: Path, calls: Calls) -> None:
        cache = {"folder": str(tmp_path / "cache")}
        build(tmp_path, cache)
        config = resolve_config("diffusion-dpo", small(tmp_path, pairs={"flip": True}, cache=cache))
        batches = []
        for change in (lambda policy: None, change_vae):
            policy = build_policy(config)
            change(policy)
            calls.images = 0
            source = build_source(config, policy, caches=open_caches(config, policy))
            batches.append((source.next_batch(), calls.images))
        assert [count > 0 for _, count in batches] == [False, True]
        assert not torch.equal(batches[0][0].chosen_latents, batches[1][0].chosen_latents)


class TestSettings:
    def test_off_by_default(self) -> None:
        config = resolve_config("diffusion-dpo")
        assert config.cache.folder is None
        assert open_caches(config, tiny_policy()).stores == []
        assert build_method(config).draws is None  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("cache", "key"),
        [
            ({"reference": True}, r"cache\.folder"),
            ({"folder": "x", "reference": True}, r"cache\.visits"),
            ({"folder": "x", "visits": 2}, r"cache\.visits"),
            ({"folder": "x", "visits": 0}, r"cache\.visits = 0"),
        ],
    )
    def test_refused(self, cache: dict[str, Any], key: str) -> None:
        with pytest.raises(ConfigError, match=key):
            resolve_config("diffusion-dpo", {"cache": cache})
