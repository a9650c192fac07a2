"""The published DiNa-LRM: read as it is, and equal to the original's computation."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from seedpo.core.sampling import draw_noise
from seedpo.errors import DataError
from seedpo.rewards.dina_lrm import dina_lrm
from seedpo.rewards.dina_lrm_model import CLEAN_LEVEL, NOISE_SEED
from seedpo.rewards.named import build_reward
from tests.rewards.plain_dina_lrm import CHANNELS, SIZE, Plain, publish, settings

PROMPTS = ["a large red circle on a gray background", "", "a ring", "red blue star ring " * 40]
"""Usual, empty, short, over-long."""


def latents(count: int = 4, *, seed: int = 0, height: int = SIZE) -> Tensor:
    return torch.randn(count, CHANNELS, height, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("dina"))


@pytest.mark.parametrize("sigma", [0.003, 0.4, 0.97, 1.0])
def test_scores_are_the_originals(published: Path, sigma: float) -> None:
    levels = torch.full((4,), sigma)
    scores = dina_lrm(str(published)).score_latents(latents(), PROMPTS, timestep=levels)
    expected = Plain(published).score(latents(), PROMPTS, levels)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05, "or the comparison would say little"


@pytest.mark.parametrize(
    "changes",
    [
        {"use_lora": False, "freeze_backbone": True},
        {"reward_head": {**settings("")["model"]["reward_head"], "use_proj_in": True}},
    ],
    ids=["no LoRA", "projected"],
)
def test_other_forms_of_the_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    publish(tmp_path, **changes)
    levels = torch.tensor([0.1, 0.2, 0.5, 0.9])
    scores = dina_lrm(str(tmp_path)).score_latents(latents(), PROMPTS, timestep=levels)
    torch.testing.assert_close(scores.double(), Plain(tmp_path).score(latents(), PROMPTS, levels), rtol=1e-4, atol=1e-4)


def test_everything_that_is_read_matters(published: Path) -> None:
    scorer, levels = dina_lrm(str(published)), torch.full((4,), 0.5)
    scores = scorer.score_latents(latents(), PROMPTS, timestep=levels)
    for changed in (
        scorer.score_latents(latents(), PROMPTS, timestep=levels + 0.05),
        scorer.score_latents(latents(seed=1), PROMPTS, timestep=levels),
        scorer.score_latents(latents(), ["a star"] * 4, timestep=levels),
    ):
        assert (changed - scores).abs().min() > 1e-4


def test_rows_do_not_depend_on_each_other_and_may_have_any_shape(published: Path) -> None:
    scorer, levels, tall = dina_lrm(str(published)), torch.tensor([0.0, 0.1, 0.6, 0.99]), latents(height=2 * SIZE)
    together = scorer.score_latents(tall, PROMPTS, timestep=levels)
    alone = [
        scorer.score_latents(tall[row : row + 1], PROMPTS[row : row + 1], timestep=levels[row : row + 1])
        for row in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_clean_latents_get_noise_of_the_schedulers_level_that_is_nearest(published: Path) -> None:
    steps = torch.arange(1, 1001, dtype=torch.float64) / 1000
    table = 3 * steps / (1 + 2 * steps)
    level = float(table[(table - CLEAN_LEVEL).abs().argmin()])
    noise = draw_noise((CHANNELS, SIZE, SIZE), generator=torch.Generator().manual_seed(NOISE_SEED))
    noisy = (1 - level) * latents() + level * noise
    scores = dina_lrm(str(published)).score_latents(latents(), PROMPTS, timestep=torch.zeros(4))
    expected = Plain(published).score(noisy, PROMPTS, torch.full((4,), level))
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-4)


def test_finished_images_are_encoded_as_they_are_and_scored_as_clean_latents(published: Path) -> None:
    scorer = dina_lrm(str(published))
    images = torch.randint(0, 256, (4, 3, 2 * SIZE, 3 * SIZE), generator=torch.Generator().manual_seed(0)) / 255.0
    vae = AutoencoderKL.from_pretrained(published / "base" / "vae")
    with torch.no_grad():
        encoded = (vae.encode(images * 2 - 1).latent_dist.mean - 0.1) * 1.5
    expected = scorer.score_latents(encoded, PROMPTS, timestep=torch.zeros(4))
    torch.testing.assert_close(scorer(images, PROMPTS), expected, rtol=1e-4, atol=1e-4)
    for sides in ((2, 16), (16, 80)):
        with pytest.raises(DataError, match=f"{sides[0]} x {sides[1]} pixels"):
            scorer(torch.zeros(1, 3, *sides), ["a"])


def test_safetensors_in_place_of_the_pickle(published: Path, tmp_path: Path) -> None:
    own = shutil.copytree(published, tmp_path / "own")
    head = own / "checkpoint" / "rm_head.pt"
    save_file(torch.load(head, weights_only=True), head.with_suffix(".safetensors"))
    head.unlink()
    rows: list[Tensor] = []
    for place in (own, published):
        latent = build_reward(f"dina-lrm@{place}").latent
        assert latent is not None
        rows.append(latent.score_latents(latents(), PROMPTS, timestep=torch.full((4,), 0.3)))
    assert torch.equal(*rows)


def test_half_precision_is_close(tmp_path: Path) -> None:
    scorer, levels = dina_lrm(str(publish(tmp_path))), torch.tensor([0.1, 0.4, 0.7, 0.99])
    whole = scorer.score_latents(latents(), PROMPTS, timestep=levels)
    half = scorer.to(dtype=torch.bfloat16).score_latents(latents(), PROMPTS, timestep=levels)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.1 * whole.abs().max()


def test_the_global_random_state_is_left_alone(published: Path) -> None:
    before = torch.get_rng_state()
    dina_lrm.__wrapped__(str(published))
    assert torch.equal(torch.get_rng_state(), before)


class _Unpickled:
    def __reduce__(self) -> Any:
        return (print, ("code of the file ran",))


def _config(**changes: Any) -> Callable[[Path], None]:
    def write(own: Path) -> None:
        (own / "config.json").write_text(json.dumps(settings("nobody/nothing", **changes)), encoding="utf-8")

    return write


def _adapter(**changes: Any) -> Callable[[Path], None]:
    def write(own: Path) -> None:
        file = own / "checkpoint" / "backbone_lora" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes), encoding="utf-8")

    return write


def _without(*path: str) -> Callable[[Path], None]:
    def remove(own: Path) -> None:
        target = own.joinpath(*path)
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return remove


def _factors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def write(own: Path) -> None:
        file = own / "checkpoint" / "backbone_lora" / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)

    return write


def _head(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(own: Path) -> None:
        file = own / "checkpoint" / "rm_head.pt"
        file.write_bytes(pickle.dumps(_Unpickled())) if change is pickle.dumps else torch.save(
            change(torch.load(file, weights_only=True)), file
        )

    return write


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no head": (_without("checkpoint", "rm_head.pt"), "rm_head"),
    "a pickle that holds code": (_head(pickle.dumps), "rm_head.pt"),
    "a head without its queries": (
        _head(lambda head: {name: value for name, value in head.items() if name != "query_tokens"}),
        "query_tokens",
    ),
    "a head of another width": (_head(lambda head: head | {"head.weight": torch.zeros(1, 20)}), "head.weight"),
    "no LoRA": (_without("checkpoint", "backbone_lora"), "adapter_config.json"),
    "no factors": (_without("checkpoint", "backbone_lora", "adapter_model.safetensors"), "adapter_model"),
    "one factor of a layer": (_factors(lambda all_: dict(list(all_.items())[1:])), "lora_"),
    "a layer that is not there": (
        _factors(lambda all_: {name.replace("blocks.1", "blocks.9"): value for name, value in all_.items()}),
        "blocks.9",
    ),
    "a factor of another size": (
        _factors(lambda all_: {name: value[..., :2].contiguous() for name, value in all_.items()}),
        "shapes",
    ),
    "a DoRA": (_adapter(use_dora=True), "use_dora"),
    "a LoRA of many ranks": (_adapter(rank_pattern={"to_q": 2}), "rank_pattern"),
    "no rank": (_adapter(r=0), "r = 0"),
    "no config": (_without("config.json"), "config.json"),
    "another config": (lambda own: (own / "config.json").write_text("{}") and None, "part model"),
    "a logistic curve": (_config(use_logistic=True), "use_logistic"),
    "a whole network": (_config(use_lora=False), "freeze_backbone"),
    "all blocks": (_config(num_transformer_layers=4), "num_transformer_layers = 4"),
    "a block that is not there": (_config(text_head_idx=[1, 3]), "text_head_idx"),
    "no blocks": (_config(visual_head_idx=[]), "visual_head_idx"),
    "heads": (_config(reward_head={"num_attn_heads": 0}), "num_attn_heads"),
    "no base model": (_without("base"), "nobody/nothing"),
    "a base model without T5": (_without("base", "text_encoder_3"), "text_encoder_3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_in_one_line(
    published: Path, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(published, tmp_path / "own")
    change, named = FAULTS[fault]
    change(own)
    with pytest.raises(DataError) as caught:
        dina_lrm.__wrapped__(str(own))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "ran" not in capsys.readouterr().out
