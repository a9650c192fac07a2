from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.rewards.catalogue import REWARDS
from seedpo.rewards.clip import ClipScorer
from seedpo.rewards.clip_score import clipscore, load_clip_scorer, load_reward, pickscore
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import to_bytes
from seedpo.rewards.step_aware_clip import StepAwareScorer
from tests.rewards.tiny_clip import tiny_config, tiny_model, tiny_tokenizer

PROMPTS = ["a large red circle on a gray background", "a small blue star on a white background", "a ring"]


def images(height: int, width: int, rows: int = 3) -> Tensor:
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def model(tokenizer: CLIPTokenizer) -> CLIPModel:
    torch.manual_seed(3)
    return CLIPModel(tiny_config(tokenizer)).eval()


@pytest.fixture
def folder(model: CLIPModel, tokenizer: CLIPTokenizer, tmp_path: Path) -> Path:
    """A preference model as PickScore is stored."""
    model.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


def test_scores_are_the_logits_of_the_model(model: CLIPModel, folder: Path, tokenizer: CLIPTokenizer) -> None:
    tokens = tokenizer(PROMPTS, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    with torch.no_grad():
        pixels = clip_pixels(to_bytes(images(16, 16)), 8, crop="transformers")
        wanted = model(pixel_values=pixels, **tokens).logits_per_image.diagonal()
    scorer = load_clip_scorer(str(folder))
    torch.testing.assert_close(scorer(images(16, 16), PROMPTS), wanted, rtol=0, atol=1e-5)
    assert wanted.std() > 1e-3


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_each_image_is_scored_by_its_own_prompt(folder: Path, rows: int) -> None:
    scorer = load_clip_scorer(str(folder))
    scores = scorer(images(16, 16)[:rows], PROMPTS[:rows])
    assert scores.shape == (rows,)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    for row in range(rows):
        alone = scorer(images(16, 16)[row : row + 1], PROMPTS[row : row + 1])
        torch.testing.assert_close(alone[0], scores[row], rtol=0, atol=1e-5)


def test_what_was_scored_before_makes_no_difference(folder: Path) -> None:
    """To the last bit: a resumed run begins without the embeddings that the first one had."""
    fresh, used = load_clip_scorer(folder), load_clip_scorer(folder)
    used(images(32, 32), PROMPTS[:3])
    assert torch.equal(used(images(32, 32, 1), PROMPTS[1:2]), fresh(images(32, 32, 1), PROMPTS[1:2]))


def test_a_move_forgets_the_texts_of_the_other_device(folder: Path) -> None:
    scorer = load_clip_scorer(str(folder))
    before = scorer(images(8, 8), PROMPTS)
    assert scorer.to("cpu") is scorer
    assert scorer(images(8, 8), PROMPTS).equal(before)


def test_a_folder_says_itself_whether_it_is_step_aware(folder: Path, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
    tiny_model(tokenizer).save_pretrained(tmp_path / "aware")
    tokenizer.save_pretrained(tmp_path / "aware")
    assert isinstance(load_reward(str(folder)), ClipScorer)
    assert isinstance(load_reward(str(tmp_path / "aware")), StepAwareScorer)


def test_a_registered_name_reads_another_place_once(folder: Path) -> None:
    assert pickscore(str(folder)) is pickscore(str(folder))
    assert clipscore(str(folder))(images(8, 8), PROMPTS).min() >= 0


class TestErrors:
    """One line that names the reward and the mend."""

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"reward .*nothing"):
            load_reward(str(tmp_path / "nothing"))

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"lacks config\.json"):
            load_reward(str(tmp_path))

    def test_no_tokenizer(self, model: CLIPModel, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        with pytest.raises(DataError, match="has no tokenizer"):
            load_reward(str(tmp_path))

    def test_weights_that_are_missing(self, folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file(
            {name: value for name, value in weights.items() if name != "logit_scale"}, folder / "model.safetensors"
        )
        with pytest.raises(DataError, match="lacks weights, for example 'logit_scale'"):
            load_reward(str(folder))

    def test_pickles_are_not_opened(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(DataError, match="cannot be loaded as a CLIP preference model") as caught:
            load_reward(str(folder))
        assert "\n" not in str(caught.value)

    def test_a_configuration_that_is_broken(self, folder: Path) -> None:
        (folder / "config.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match=r"config\.json"):
            load_reward(str(folder))

    def test_pickscore_without_the_hub(self) -> None:
        with pytest.raises(DataError, match=r"reward pickscore: .*yuvalkirstain/PickScore_v1") as caught:
            REWARDS.load("pickscore")()
        assert "\n" not in str(caught.value)
