"""The networks that rewards are counted as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from seedpo.errors import DataError
from seedpo.planning import latent_rewards
from seedpo.planning.meter import metering
from seedpo.planning.scorers import Scorer, build_scorer
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.dina_lrm import dina_lrm
from seedpo.rewards.hpsv3 import AFTER_IMAGE, BEFORE_IMAGE, INSTRUCTION, REWARD_TOKEN, hpsv3
from seedpo.rewards.imagereward import MAX_TOKENS, imagereward
from seedpo.rewards.networks import RewardNetwork
from seedpo.rewards.settings import RewardDefinition
from seedpo.rewards.spm import SD15_WEIGHTS, spm_sd15
from tests.planning.real_runs import counted
from tests.rewards import plain_blip, plain_dina_lrm, plain_qwen2_vl, plain_spm
from tests.rewards.tiny_clip import tiny_tokenizer

MILLIONS = {
    "scenes-scorer": 0.674,
    "pickscore": 986.1,
    "hpsv2": 986.1,
    "hpsv2.1": 986.1,
    "hpsv3": 7748.6,
    **dict.fromkeys(("mps", "mps-aesthetics", "mps-detail", "mps-alignment"), 1104.6),
    "clipscore": 427.6,
    "aesthetic": 305.5,
    "imagereward": 446.0,
    "spm-sd15": 1306.2,
    "spm-sdxl": 1306.2,
    "lrm-sd15": 559.7,
    "lrm-sd21": 780.2,
    "lrm-sdxl": 2149.2,
    "dina-lrm": 7036.5,
}
"""Weights of the networks at their published sizes, in millions."""


def only(scorer: Scorer) -> RewardNetwork:
    (part,) = scorer.parts.values()
    assert part is not None
    return part


def weights_of(network: nn.Module) -> float:
    return sum(weight.numel() for weight in network.parameters()) / 1e6


@pytest.mark.parametrize("name", REWARDS.names())
def test_the_network_of_every_registered_reward_is_stated(name: str) -> None:
    part = only(build_scorer(name))
    assert weights_of(part.network) == pytest.approx(MILLIONS.get(name, 0.0), abs=0.5)
    assert {weight.device.type for weight in part.network.parameters()} <= {"meta"}
    assert REWARDS[name].network or not REWARDS[name].size, "a reward with weights must name its network"
    with torch.no_grad():
        for call in (part.images, part.prompts):
            assert call is None or call(2) is not None


def flops_of(part: RewardNetwork, kind: str, rows: int) -> int:
    call = getattr(part, kind)
    with torch.no_grad(), metering() as meter:
        call(rows)
    return int(meter.flops().total)


class TestEqualToScoring:
    """FLOPs of a row of images, against those that torch counts while the reward itself scores."""

    def test_a_step_aware_folder(self, tmp_path: Path) -> None:
        tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
        weights = plain_spm.checkpoint(len(tokenizer))
        folder = str(plain_spm.publish(tmp_path / "spm", weights, tokenizer, file=SD15_WEIGHTS))
        part, scorer = only(build_scorer(f"spm-sd15@{folder}")), spm_sd15(folder)
        prompts, images = ["a ring", "a star", "a ring"], torch.zeros(3, 3, 16, 16)
        planned = flops_of(part, "images", 3) + flops_of(part, "prompts", 2)
        assert planned == counted(lambda: scorer(images, prompts, timestep=torch.tensor([0, 1, 2])))
        assert planned > 0

    @pytest.mark.parametrize("kind", ["images", "latents"])
    def test_a_latent_reward_of_a_flow_model(self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = str(plain_dina_lrm.publish(tmp_path))
        monkeypatch.setattr(latent_rewards, "USUAL_SIZE", 16)
        part, scorer = only(build_scorer(f"dina-lrm@{folder}")), dina_lrm(folder)
        prompts = ["a ring", "a star", "a ring"]
        noisy = torch.zeros(3, 4, 8, 8)
        if kind == "images":
            planned = flops_of(part, "images", 3)
            real = counted(lambda: scorer(torch.zeros(3, 3, 16, 16), prompts))
        else:
            assert part.latents is not None
            with torch.no_grad(), metering() as meter:
                part.latents(noisy.to("meta"))
            planned = int(meter.flops().total)
            real = counted(lambda: scorer.score_latents(noisy, prompts, timestep=torch.full((3,), 0.5)))
        assert planned + flops_of(part, "prompts", 2) == real
        assert planned > 0

    def test_heads_that_share_keys(self, tmp_path: Path) -> None:
        """All but the texts, whose length a plan only guesses."""
        reward = hpsv3(str(plain_qwen2_vl.publish(tmp_path, plain_qwen2_vl.checkpoint())))
        part, images = only(build_scorer(f"hpsv3@{tmp_path}")), torch.zeros(2, 3, 32, 32)
        text = f"{AFTER_IMAGE}{INSTRUCTION.format(text_prompt='a ring')}{REWARD_TOKEN}"
        before, after = (len(reward._ids(part)) for part in (BEFORE_IMAGE, text))
        network = reward.network.to("meta")
        pixels, ids = torch.zeros(2, 3, 448, 448, device="meta"), torch.zeros(2, after, dtype=int, device="meta")
        with torch.no_grad(), metering() as meter:
            network(pixels, ids[0, :before], ids, ids[:, 0])
        again = hpsv3.__wrapped__(str(tmp_path))
        assert int(meter.flops().total) == counted(lambda: again(images, ["a ring", "a ring"]))
        assert flops_of(part, "images", 2) > 0

    def test_a_network_that_reads_prompt_and_image_together(self, tmp_path: Path) -> None:
        reward = imagereward(str(plain_blip.publish(tmp_path, plain_blip.checkpoint())))
        ids = torch.zeros(2, MAX_TOKENS, dtype=torch.int64, device="meta")
        with torch.no_grad(), metering() as meter:
            reward.network.to("meta")(torch.empty(2, 3, 32, 32, device="meta"), ids, None)
        planned = int(meter.flops().total)
        again = imagereward.__wrapped__(str(tmp_path))
        assert planned == counted(lambda: again(torch.zeros(2, 3, 32, 32), ["a cat", "a dog"]))


def test_a_folder_says_whether_its_clip_is_step_aware(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(tmp_path / "tokenizer")
    config = plain_spm.configuration(tokenizer)
    for name, architecture in (("plain", "CLIPModel"), ("aware", "StepAwareCLIP")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
        scorer = build_scorer(str(tmp_path / name))
        assert type(only(scorer).network).__name__ == architecture
        assert scorer.origin == str(tmp_path / name)


def test_a_weighted_sum_costs_its_terms_once() -> None:
    mix = RewardDefinition.model_validate({"terms": {"jpeg-compressibility": 1.0, "scenes-scorer": 0.5}})
    nested = RewardDefinition.model_validate({"terms": {"mix": 1.0, "scenes-scorer": 1.0}})
    scorer = build_scorer("nested", definitions={"mix": mix, "nested": nested})
    assert list(scorer.parts) == ["jpeg-compressibility", "scenes-scorer"]
    assert [len(scorer.calls(kind)) for kind in ("images", "prompts")] == [1, 1]
    assert weights_of(scorer.networks) == weights_of(build_scorer("scenes-scorer").networks)


def test_a_reward_on_a_server_costs_nothing_here() -> None:
    mix = RewardDefinition.model_validate({"terms": {"http://127.0.0.1:8077/pickscore": 1.0, "scenes-scorer": 0.5}})
    scorer = build_scorer("mix", definitions={"mix": mix})
    assert weights_of(scorer.networks) == weights_of(build_scorer("scenes-scorer").networks)
    assert scorer.unknown == []
    assert scorer.origin == "http://127.0.0.1:8077/pickscore at http://127.0.0.1:8077; scenes-scorer"


def test_half_precision_halves_the_weights() -> None:
    half = build_scorer("scenes-scorer", precision="bf16")
    assert {weight.dtype for weight in half.networks.parameters()} == {torch.bfloat16}
    full = build_scorer("scenes-scorer")
    for kind in ("images", "prompts"):
        assert flops_of(only(half), kind, 2) == flops_of(only(full), kind, 2)


@pytest.mark.parametrize("name", ["my_rewards:redness", "someone/clip"])
def test_an_unknown_network_is_never_guessed(name: str) -> None:
    scorer = build_scorer(name)
    assert scorer.unknown == [name]
    assert scorer.calls("images") == []


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"config\.json"):
        build_scorer(str(tmp_path))
