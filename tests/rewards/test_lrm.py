"""LPO's published latent reward models: read as they are, and equal to the original's computation."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.latent_scorer import LatentScorer
from seedpo.rewards.lrm import LAYOUTS, load_latent_scorer, read_scorer
from seedpo.rewards.named import build_reward
from seedpo.weights import read_nested_weights
from tests.rewards.plain_lrm import FOLDERS, KINDS, SIZE, Plain, publish

PROMPTS = ["a large red circle on a gray background", "", "a ring", "red blue star ring " * 20]
"""Usual, empty, short, over-long."""


def latents(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lrm")
    return {kind: publish(root / kind, kind) for kind in KINDS}


def scorer_of(published: dict[str, Path], kind: str) -> LatentScorer:
    return read_scorer(f"lrm-{kind}", published[kind], base=LAYOUTS[f"lrm-{kind}"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [1, 251, 951])
def test_scores_are_the_originals(published: dict[str, Path], kind: str, time: int) -> None:
    scorer, times = scorer_of(published, kind), torch.full((4,), time)
    scores = scorer.score_latents(latents(), PROMPTS, timestep=times)
    expected = Plain(published[kind], kind).score(latents(), PROMPTS, times)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.05, "or the comparison would say little"


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_read_matters(published: dict[str, Path], kind: str) -> None:
    scorer = scorer_of(published, kind)
    scores = scorer.score_latents(latents(), PROMPTS, timestep=torch.full((4,), 501))
    later = scorer.score_latents(latents(), PROMPTS, timestep=torch.full((4,), 551))
    others = scorer.score_latents(latents(seed=1), PROMPTS, timestep=torch.full((4,), 501))
    reworded = scorer.score_latents(latents(), ["a star"] * 4, timestep=torch.full((4,), 501))
    for changed in (later, others, reworded):
        assert (changed - scores).abs().min() > 1e-4


def test_rows_may_have_times_of_their_own_and_clean_latents_are_scored_at_the_first_time(
    published: dict[str, Path],
) -> None:
    scorer, times = scorer_of(published, "sd15"), torch.tensor([0, 1, 301, 951])
    together = scorer.score_latents(latents(), PROMPTS, timestep=times)
    alone = [
        scorer.score_latents(latents()[row : row + 1], PROMPTS[row : row + 1], timestep=times[row : row + 1].clamp(1))
        for row in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_found_within_a_repository_and_as_a_folder_of_its_own(published: dict[str, Path], kind: str) -> None:
    name, times = f"lrm-{kind}", torch.full((4,), 401)
    within, own = (build_reward(f"{name}@{place}").latent for place in (published[kind].parent, published[kind]))
    bare = build_reward(str(published[kind])).latent
    assert within is not None
    assert own is not None
    assert bare is not None
    expected = within.score_latents(latents(), PROMPTS, timestep=times)
    for reward in (own, bare):
        assert torch.equal(reward.score_latents(latents(), PROMPTS, timestep=times), expected)


def test_finished_images_are_encoded_and_scored_as_clean_latents(published: dict[str, Path]) -> None:
    scorer = scorer_of(published, "sd15")
    images = torch.randint(0, 256, (4, 3, 8 * SIZE, 8 * SIZE), generator=torch.Generator().manual_seed(0)) / 255.0
    vae = AutoencoderKL.from_pretrained(published["sd15"] / "vae")
    with torch.no_grad():
        encoded = vae.encode(images * 2 - 1).latent_dist.mean * 0.18215
    expected = scorer.score_latents(encoded, PROMPTS, timestep=torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(scorer(images, PROMPTS), expected, rtol=1e-4, atol=1e-4)


def test_what_seedpo_writes_is_read_again(published: dict[str, Path], tmp_path: Path) -> None:
    own = publish(tmp_path, "sd15")
    expected = scorer_of({"sd15": own}, "sd15").score_latents(latents(), PROMPTS, timestep=torch.full((4,), 5))
    save_file(read_nested_weights(own / "state_dict.pt"), own / "state.safetensors")
    (own / "state_dict.pt").unlink()
    again = read_scorer("x", own, base=None).score_latents(latents(), PROMPTS, timestep=torch.full((4,), 5))
    assert torch.equal(again, expected)


def test_the_global_random_state_is_left_alone(published: dict[str, Path]) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    scorer_of(published, "sdxl")
    assert torch.equal(torch.get_rng_state(), before)


class _Unpickled:
    def __reduce__(self) -> Any:
        return (print, ("code of the file ran",))


class TestFaults:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        return publish(tmp_path, "sd15")

    def read(self, own: Path) -> str:
        with pytest.raises(DataError) as caught:
            read_scorer("lrm-sd15", own, base=LAYOUTS["lrm-sd15"])
        message = str(caught.value)
        assert "\n" not in message
        return message

    def test_no_state(self, own: Path) -> None:
        (own / "state_dict.pt").unlink()
        assert "state_dict.pt" in self.read(own)

    def test_a_pickle_that_holds_code_runs_none(self, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (own / "state_dict.pt").write_bytes(pickle.dumps({"visual_projection": _Unpickled()}))
        assert "state_dict.pt" in self.read(own)
        assert "ran" not in capsys.readouterr().out

    def test_a_projection_that_is_missing_or_of_another_model(self, own: Path) -> None:
        state = torch.load(own / "state_dict.pt", weights_only=True)
        torch.save({"logit_scale": 2.0}, own / "state_dict.pt")
        assert "visual_projection.weight" in self.read(own)
        torch.save({**state, "visual_projection": {"weight": torch.zeros(20, 39)}}, own / "state_dict.pt")
        assert "visual_projection.weight" in self.read(own)
        torch.save({name: value for name, value in state.items() if "text" not in name}, own / "state_dict.pt")
        assert "text_projection.weight" in self.read(own)

    @pytest.mark.parametrize("part", ["unet", "text_encoder"])
    def test_a_part_without_weights(self, own: Path, part: str) -> None:
        next((own / part).glob("*.safetensors")).unlink()
        assert str(own / part) in self.read(own)

    def test_a_part_that_is_cut(self, own: Path) -> None:
        file = next((own / "unet").glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:2000])
        assert str(file) in self.read(own)

    def test_no_autoencoder_for_images(self, own: Path) -> None:
        shutil.rmtree(own / "vae")
        scorer = load_latent_scorer(own)
        assert torch.isfinite(scorer.score_latents(latents(), PROMPTS, timestep=torch.ones(4))).all()
        with pytest.raises(DataError, match=f"{own / 'vae'}"):
            scorer(torch.zeros(1, 3, 64, 64), ["a"])


def test_folders_are_those_of_the_layouts() -> None:
    assert all(Path(FOLDERS[kind]).match(LAYOUTS[f"lrm-{kind}"].folder) for kind in KINDS)
