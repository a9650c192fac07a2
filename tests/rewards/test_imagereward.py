from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.imagereward import ImageReward, ImageRewardNetwork, imagereward, published_name
from tests.rewards.plain_blip import SIZE, Plain, checkpoint, publish, shapes

PROMPTS = ["a red star on a blue ring", "", "Cat [ENC] dog", "red blue star ring cat " * 12]
"""Usual, empty, with one of the tokens that BLIP adds, and over-long."""


def pictures(*sizes: tuple[int, int], seed: int = 1) -> list[Image.Image]:
    """Smooth random images of given widths and heights."""
    generator = torch.Generator().manual_seed(seed)
    coarse = [(torch.rand(6, 6, 3, generator=generator) * 255).byte().numpy() for _ in sizes]
    return [
        Image.fromarray(one).resize(size, Image.Resampling.BILINEAR) for one, size in zip(coarse, sizes, strict=True)
    ]


def as_tensor(images: Sequence[Image.Image]) -> Tensor:
    pixels = [torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8) for image in images]
    shaped = [one.view(image.height, image.width, 3) for one, image in zip(pixels, images, strict=True)]
    return torch.stack(shaped).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return checkpoint()


@pytest.fixture(scope="module")
def folder(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("imagereward"), weights)


@pytest.fixture(scope="module")
def reward(folder: Path) -> ImageReward:
    return imagereward(str(folder))


class TestAgreement:
    """With the original's computation, written a second time in plain torch and float64."""

    def test_on_pil_images_of_mixed_sizes(self, reward: ImageReward, weights: dict[str, Tensor]) -> None:
        images = pictures((SIZE, SIZE), (57, 41), (41, 57), (20, 23), (SIZE, SIZE), (97, 33), (33, 34))
        prompts = [PROMPTS[row % 4] for row in range(len(images))]
        wanted = torch.tensor([Plain(weights).score(*pair) for pair in zip(images, prompts, strict=True)])
        scores = reward(images, prompts)
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)
        assert wanted.std() > 0.1

    @pytest.mark.parametrize("rows", [1, 4])
    def test_on_tensors(self, reward: ImageReward, weights: dict[str, Tensor], rows: int) -> None:
        images = pictures(*[(45, 38)] * rows)
        wanted = torch.tensor([Plain(weights).score(*pair) for pair in zip(images, PROMPTS[:rows], strict=True)])
        scores = reward(as_tensor(images), PROMPTS[:rows])
        assert scores.shape == (rows,)
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)

    def test_all_that_the_original_does_counts(self, weights: dict[str, Tensor]) -> None:
        """Each of these would be missed if it were left out: the comparison sees it."""
        (image,) = pictures((40, 40))
        plain = Plain(weights)
        score = plain.score(image, PROMPTS[0])
        for name in shapes():
            if name.startswith(("blip.vision_proj", "blip.text_proj")):
                continue
            if name.endswith(("key.bias", "qkv.bias")):  # a key's bias adds one number to all scores of a query
                continue
            changed = weights | {name: weights[name] + 0.3 * torch.randn(weights[name].shape, generator=seeded())}
            assert abs(Plain(changed).score(image, PROMPTS[0]) - score) > 1e-5, name


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


class TestNetwork:
    def test_every_tensor_has_its_published_name(self, reward: ImageReward) -> None:
        found = {published_name(name): tuple(value.shape) for name, value in reward.network.state_dict().items()}
        unused = ("blip.vision_proj", "blip.text_proj")
        assert found == {name: shape for name, shape in shapes().items() if not name.startswith(unused)}

    def test_layer_norms_are_those_of_the_original(self, reward: ImageReward) -> None:
        """BLIP's vision tower has 1e-6, where the maintained class has another default."""
        eps = {module.eps for module in reward.network.vision.modules() if isinstance(module, torch.nn.LayerNorm)}
        assert eps == {1e-6}
        assert {m.eps for m in reward.network.text.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-12}

    def test_it_is_frozen(self, reward: ImageReward) -> None:
        assert not reward.network.training
        assert not any(parameter.requires_grad for parameter in reward.network.parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, folder: Path, reward: ImageReward, dtype: torch.dtype) -> None:
        images = as_tensor(pictures((40, 40), (40, 40), (40, 40)))
        half = imagereward.__wrapped__(str(folder)).to(dtype=dtype)
        scores = half(images, PROMPTS[:3])
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, reward(images, PROMPTS[:3]), rtol=0.05, atol=0.1)

    def test_prompts_are_tokenised_once(self, folder: Path) -> None:
        fresh = imagereward.__wrapped__(str(folder))
        seen: list[str] = []
        tokenizer = fresh.tokenizer
        fresh.tokenizer = lambda prompts, **settings: seen.extend(prompts) or tokenizer(prompts, **settings)  # type: ignore[assignment]
        images = as_tensor(pictures((40, 40), (40, 40), (40, 40)))
        first = fresh(images, ["a cat", "a dog", "a cat"])
        assert torch.equal(fresh(images, ["a cat", "a dog", "a cat"]), first)
        assert seen == ["a cat", "a dog"]

    def test_it_is_loaded_once(self, folder: Path, reward: ImageReward) -> None:
        assert imagereward(str(folder)) is reward


class TestBadCheckpoints:
    """One line that names the file and the tensor."""

    def load(self, folder: Path, weights: dict[str, Tensor]) -> ImageReward:
        return imagereward(str(publish(folder, weights)))

    @pytest.mark.parametrize(
        "name",
        [
            "blip.visual_encoder.blocks.1.attn.qkv.weight",
            "blip.visual_encoder.pos_embed",
            "blip.text_encoder.encoder.layer.0.crossattention.self.key.weight",
            "mlp.layers.7.bias",
        ],
    )
    def test_a_tensor_that_is_missing(self, weights: dict[str, Tensor], tmp_path: Path, name: str) -> None:
        with pytest.raises(DataError, match=rf"ImageReward\.pt lacks {name}; is it") as caught:
            self.load(tmp_path, {key: value for key, value in weights.items() if key != name})
        assert "\n" not in str(caught.value)

    def test_a_tensor_that_is_unknown_or_of_another_shape(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"also holds mlp\.layers\.8\.weight"):
            self.load(tmp_path / "a", weights | {"mlp.layers.8.weight": torch.zeros(1)})
        with pytest.raises(DataError, match=r"wrong shape for head\.0\.weight"):
            self.load(tmp_path / "b", weights | {"mlp.layers.0.weight": torch.zeros(1024, 7)})

    def test_contrastive_heads_may_be_left_out(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        few = {name: value for name, value in weights.items() if "_proj." not in name and "position_ids" not in name}
        assert isinstance(self.load(tmp_path, few), ImageReward)

    def test_a_configuration_that_is_broken_or_incomplete(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        publish(tmp_path, weights)
        (tmp_path / "med_config.json").write_text("{", encoding="utf-8")
        with pytest.raises(DataError, match=r"med_config\.json cannot be read as JSON"):
            imagereward(str(tmp_path))
        (tmp_path / "med_config.json").write_text(json.dumps({"hidden_size": 48}), encoding="utf-8")
        with pytest.raises(
            DataError, match=r"med_config\.json beside .* does not describe BLIP's text tower.*vocab_size"
        ):
            imagereward(str(tmp_path))

    def test_files_that_are_missing(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        (publish(tmp_path, weights) / "med_config.json").unlink()
        with pytest.raises(DataError, match=r"imagereward.*lacks med_config\.json"):
            imagereward(str(tmp_path))

    def test_no_tokenizer_and_no_hub(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        (publish(tmp_path, weights) / "vocab.txt").unlink()
        with pytest.raises(DataError, match=r"bert-base-uncased") as caught:
            imagereward(str(tmp_path))
        assert "\n" not in str(caught.value)

    def test_a_tokenizer_with_more_words_than_the_network(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        publish(tmp_path, weights)
        with (tmp_path / "vocab.txt").open("a", encoding="utf-8") as file:
            file.write("more\n")
        with pytest.raises(
            DataError, match=r"tokenizer has 17 tokens but its network 16; it needs .*bert-base-uncased"
        ):
            imagereward(str(tmp_path))


def test_the_published_sizes_make_blip_large() -> None:
    """Counted on the meta device from the published shapes: ViT-L/16 at 224 px, BERT-base with cross attention."""
    from transformers import BlipTextConfig, BlipVisionConfig

    vision = BlipVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224
    )
    with torch.device("meta"):
        network = ImageRewardNetwork(
            vision, BlipTextConfig(encoder_hidden_size=1024, num_attention_heads=12, vocab_size=30524)
        )
    shapes_of = {published_name(name): tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes_of["blip.visual_encoder.pos_embed"] == (1, 197, 1024)
    assert shapes_of["blip.text_encoder.encoder.layer.11.crossattention.self.key.weight"] == (768, 1024)
    assert shapes_of["mlp.layers.0.weight"] == (1024, 768)
