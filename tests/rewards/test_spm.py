"""SPO's published step-aware preference models: read as they are, and equal to the original's computation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPConfig, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.rewards.spm import CLIP_H14, SD15_WEIGHTS, SDXL_WEIGHTS, spm_sd15, spm_sdxl
from seedpo.rewards.step_aware_clip import StepAwareCLIP, StepAwareScorer, normalise
from tests.rewards.plain_spm import SIZE, Plain, checkpoint, prepared, publish
from tests.rewards.tiny_clip import tiny_tokenizer

PROMPTS = ["a large red circle on a gray background", "", "a ring", "red blue star ring " * 20]
"""Usual, empty, short, over-long."""

TIMES = [0, 251, 501, 951]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def weights(tokenizer: CLIPTokenizer) -> dict[str, Tensor]:
    return checkpoint(len(tokenizer))


@pytest.fixture(scope="module")
def folder(weights: dict[str, Tensor], tokenizer: CLIPTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("spm"), weights, tokenizer, file=SD15_WEIGHTS)


@pytest.fixture(scope="module")
def scorer(folder: Path) -> StepAwareScorer:
    return spm_sd15(str(folder))


@pytest.fixture(scope="module")
def plain(weights: dict[str, Tensor], tokenizer: CLIPTokenizer) -> Plain:
    return Plain(weights, tokenizer)


def decoded(height: int, width: int, *, rows: int = 4, seed: int = 1) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] that are smooth enough for resizing to matter little to their mean."""
    return torch.rand(rows, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


class TestAgreement:
    """With the original's computation, written a second time in plain torch and float64."""

    @pytest.mark.parametrize("size", [(16, 16), (64, 64), (40, 24), (17, 31), (9, 12), (33, 16)])
    def test_on_previews(self, scorer: StepAwareScorer, plain: Plain, size: tuple[int, int]) -> None:
        images = decoded(*size)
        scores = scorer(images / 2 + 0.5, PROMPTS, timestep=torch.tensor(TIMES))
        wanted = plain.scores(list(images), PROMPTS, TIMES)
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)
        assert wanted.std() > 0.1

    def test_on_finished_images(self, scorer: StepAwareScorer, plain: Plain) -> None:
        images = decoded(24, 24, rows=1)
        scores = scorer(images / 2 + 0.5, PROMPTS[:1])
        assert scores.shape == (1,)
        torch.testing.assert_close(scores, plain.scores(list(images), PROMPTS[:1], [0]), rtol=0, atol=1e-5)

    def test_on_pil_images_of_mixed_sizes(self, scorer: StepAwareScorer, plain: Plain) -> None:
        arrays = [
            ((one + 1) * 127.5).byte() for size in ((20, 16), (16, 16), (31, 47)) for one in decoded(*size, rows=1)
        ]
        arrays.append(arrays[0].flip(-1))
        images = [Image.fromarray(array.permute(1, 2, 0).numpy()) for array in arrays]
        scores = scorer(images, PROMPTS, timestep=torch.tensor(TIMES))
        wanted = plain.scores([array / 127.5 - 1 for array in arrays], PROMPTS, TIMES)
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)

    def test_previews_are_not_rounded_to_bytes(self, scorer: StepAwareScorer) -> None:
        images = decoded(16, 16) / 2 + 0.5
        rounded = (images * 255).round() / 255
        assert (scorer(images, PROMPTS) - scorer(rounded, PROMPTS)).abs().max() > 1e-4

    @pytest.mark.parametrize("size", [(16, 16), (40, 24), (17, 31), (1, 1)])
    def test_prepared_as_the_original_prepares(self, size: tuple[int, int]) -> None:
        images = decoded(*size)
        torch.testing.assert_close(normalise(images / 2 + 0.5, SIZE), prepared(images), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("part", ["shift", "scale", "gate", "shift_mlp", "scale_mlp", "gate_mlp"])
    def test_every_modulation_of_the_original_counts(
        self, weights: dict[str, Tensor], tokenizer: CLIPTokenizer, part: str
    ) -> None:
        """The comparison would see it if one were left out."""
        name = "model.vision_model.encoder.layers.1.adaLN_modulation.1.bias"
        changed = weights[name].clone().view(6, -1)
        changed[["shift", "scale", "gate", "shift_mlp", "scale_mlp", "gate_mlp"].index(part)] += 0.3
        image = decoded(16, 16)[0]
        before = Plain(weights, tokenizer).score(image, PROMPTS[0], 501)
        assert abs(Plain(weights | {name: changed.flatten()}, tokenizer).score(image, PROMPTS[0], 501) - before) > 1e-3


class TestLoading:
    def test_both_models_have_their_files(
        self, weights: dict[str, Tensor], tokenizer: CLIPTokenizer, tmp_path: Path, scorer: StepAwareScorer
    ) -> None:
        publish(tmp_path, weights, tokenizer, file=SDXL_WEIGHTS)
        images = decoded(16, 16) / 2 + 0.5
        assert torch.equal(spm_sdxl(str(tmp_path))(images, PROMPTS), scorer(images, PROMPTS))
        with pytest.raises(DataError, match=r"spm-sd15.*lacks sd-v1-5_step-aware_preference_model\.bin"):
            spm_sd15(str(tmp_path))

    def test_a_folder_of_our_own_format_will_do(
        self, scorer: StepAwareScorer, tokenizer: CLIPTokenizer, tmp_path: Path
    ) -> None:
        scorer.model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        images = decoded(16, 16) / 2 + 0.5
        assert torch.equal(spm_sd15(str(tmp_path))(images, PROMPTS), scorer(images, PROMPTS))

    def test_it_is_loaded_once(self, folder: Path, scorer: StepAwareScorer) -> None:
        assert spm_sd15(str(folder)) is scorer

    def test_half_precision(self, folder: Path, scorer: StepAwareScorer) -> None:
        images, half = decoded(16, 16) / 2 + 0.5, spm_sd15.__wrapped__(str(folder)).to(dtype=torch.bfloat16)
        scores = half(images, PROMPTS, timestep=torch.tensor(TIMES))
        assert scores.dtype == torch.float32
        wanted = scorer(images, PROMPTS, timestep=torch.tensor(TIMES))
        torch.testing.assert_close(scores, wanted, rtol=0.05, atol=0.1)

    def test_without_a_configuration_it_is_a_clip_h(
        self, weights: dict[str, Tensor], tokenizer: CLIPTokenizer, tmp_path: Path
    ) -> None:
        (publish(tmp_path, weights, tokenizer, file=SD15_WEIGHTS) / "config.json").unlink()
        with pytest.raises(DataError, match=r"instead of \(49408, 1024\)"):
            spm_sd15(str(tmp_path))

    def test_clip_h_has_the_published_sizes(self) -> None:
        """986 million weights, as PickScore has, and those of the time step."""
        with torch.device("meta"):
            model = StepAwareCLIP(CLIPConfig(**CLIP_H14))
        weights = model.state_dict()
        assert weights["vision_model.embeddings.position_embedding.weight"].shape == (257, 1280)
        assert weights["vision_model.encoder.layers.31.adaLN_modulation.1.weight"].shape == (7680, 1280)
        assert weights["text_model.encoder.layers.23.mlp.fc1.weight"].shape == (4096, 1024)
        plain = [value.numel() for name, value in weights.items() if "adaLN" not in name and "t_embedder" not in name]
        assert round(sum(plain) / 1e6) == 986

    @pytest.mark.parametrize(
        "name", ["t_embedder.mlp.2.bias", "vision_model.encoder.layers.1.adaLN_modulation.1.weight"]
    )
    def test_a_tensor_that_is_missing(
        self, weights: dict[str, Tensor], tokenizer: CLIPTokenizer, tmp_path: Path, name: str
    ) -> None:
        few = {key: value for key, value in weights.items() if key != f"model.{name}"}
        publish(tmp_path, few, tokenizer, file=SD15_WEIGHTS)
        with pytest.raises(DataError, match=f"it lacks {name}") as caught:
            spm_sd15(str(tmp_path))
        assert "\n" not in str(caught.value)

    def test_a_pickle_with_code_is_not_run(self, tokenizer: CLIPTokenizer, tmp_path: Path) -> None:
        publish(tmp_path, {}, tokenizer, file=SD15_WEIGHTS)
        torch.save({"model": Path("code")}, tmp_path / SD15_WEIGHTS)
        with pytest.raises(DataError, match="cannot be read as weights"):
            spm_sd15(str(tmp_path))

    def test_a_configuration_that_is_broken(
        self, weights: dict[str, Tensor], tokenizer: CLIPTokenizer, tmp_path: Path
    ) -> None:
        (publish(tmp_path, weights, tokenizer, file=SD15_WEIGHTS) / "config.json").write_text("{}", encoding="utf-8")
        with pytest.raises(DataError, match=r"config\.json.*projection_dim"):
            spm_sd15(str(tmp_path))

    def test_no_hub(self) -> None:
        with pytest.raises(DataError, match=r"reward spm-sdxl: .*SPO-Diffusion-Models/"):
            spm_sdxl()
