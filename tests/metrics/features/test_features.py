from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel, Dinov2Model

from seedpo.errors import DataError
from seedpo.metrics.catalogue import FEATURES
from seedpo.metrics.features.clip import clip
from seedpo.metrics.features.dino import dino
from seedpo.metrics.features.pixels import pixels
from seedpo.rewards.preprocessing import clip_pixels
from seedpo.rewards.scoring import to_bytes
from seedpo.scenes.shipped import scenes_clip
from tests.metrics.features.small_networks import PREPARATION, small_clip, small_dino


def images(rows: int = 3, height: int = 40, width: int = 36) -> Tensor:
    """Of bytes, so that they are the same as PIL images."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(256, (rows, 3, height, width), generator=generator) / 255.0


def as_pil(batch: Tensor) -> list[Image.Image]:
    return [Image.fromarray(row.permute(1, 2, 0).mul(255).round().byte().numpy()) for row in batch]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    return {
        "clip": str(small_clip(tmp_path_factory.mktemp("clip"))),
        "dino": str(small_dino(tmp_path_factory.mktemp("dino"))),
        "pixels": None,
        "scenes-clip": None,
    }


def test_every_row_holds_all_facts() -> None:
    for entry in FEATURES.entries:
        assert entry.width, entry.name
        assert entry.source, entry.name
        assert (entry.place is None) == (entry.size is None), entry.name


@pytest.mark.parametrize("name", FEATURES.names())
class TestAll:
    def test_one_finite_vector_per_image(self, places: dict[str, str | None], name: str) -> None:
        extractor = FEATURES.load(name)(places[name])
        found = extractor(images())
        assert found.shape[0] == 3
        assert found.dtype == torch.float32
        assert found.device.type == "cpu"
        assert not found.requires_grad
        assert found.isfinite().all()
        assert found.std(0).max() > 1e-4, "the images are told apart"

    def test_files_tensors_and_single_images_agree(self, places: dict[str, str | None], name: str) -> None:
        extractor = FEATURES.load(name)(places[name])
        together = extractor(images())
        torch.testing.assert_close(extractor(as_pil(images())), together, rtol=0, atol=1e-5)
        for row in range(3):
            torch.testing.assert_close(extractor(images()[row : row + 1])[0], together[row], rtol=0, atol=1e-5)

    def test_sizes_may_differ_and_the_order_is_kept(self, places: dict[str, str | None], name: str) -> None:
        extractor = FEATURES.load(name)(places[name])
        mixed = [*as_pil(images(1)), *as_pil(images(1, 64, 33)), *as_pil(images(2)[1:])]
        found = extractor(mixed)
        for row, image in enumerate(mixed):
            torch.testing.assert_close(extractor([image])[0], found[row], rtol=0, atol=1e-5)

    def test_is_loaded_once_and_can_be_moved(self, places: dict[str, str | None], name: str) -> None:
        load = FEATURES.load(name)
        assert load(places[name]) is load(places[name])
        assert load(places[name]).to("cpu", torch.float32) is load(places[name])

    def test_what_is_no_image_is_refused(self, places: dict[str, str | None], name: str) -> None:
        extractor = FEATURES.load(name)(places[name])
        with pytest.raises(DataError, match="features"):
            extractor([])
        with pytest.raises(DataError, match="image 1 "):
            extractor([*as_pil(images(1)), "a.png"])


def test_pixels_are_area_means() -> None:
    grid = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8) / 64
    big = grid.repeat_interleave(16, 2).repeat_interleave(16, 3)  # 128 x 128: areas of 4 x 4
    found = pixels()(big).view(3, 32, 32)
    wanted = to_bytes(grid)[0].float().div(255).repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(found, wanted)
    small = images(2, 32, 32)
    torch.testing.assert_close(pixels()(small), small.flatten(1))


def test_clip_gives_the_embeddings_of_the_model(tmp_path: Path) -> None:
    folder = small_clip(tmp_path)
    model = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model.get_image_features(pixel_values=clip_pixels(to_bytes(images()), 8, crop="transformers"))
    wanted = found if isinstance(found, Tensor) else found.pooler_output
    wanted = wanted / wanted.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(clip(str(folder))(images()), wanted, rtol=0, atol=1e-5)


def test_scenes_clip_ships_and_knows_colours() -> None:
    colours = torch.tensor([[1.0, 0, 0], [0.9, 0, 0], [0, 0, 1.0]])[:, :, None, None].expand(-1, -1, 32, 32)
    found = scenes_clip()(colours)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    cosines = found @ found.T
    assert cosines[0, 1] > cosines[0, 2]


class TestDino:
    def prepared(self, batch: Sequence[Image.Image]) -> Tensor:
        """As transformers itself prepares images; without torchvision its class has another name."""
        kind: Any = getattr(transformers, "BitImageProcessorPil", None) or transformers.BitImageProcessor
        settings = {key: value for key, value in PREPARATION.items() if key != "image_processor_type"}
        return torch.from_numpy(np.stack(kind(**settings)(list(batch), return_tensors="np")["pixel_values"]))

    @pytest.mark.parametrize("size", [(40, 36), (32, 32), (33, 64), (20, 24)])
    def test_prepares_images_as_transformers(self, places: dict[str, str | None], size: tuple[int, int]) -> None:
        batch = images(2, *size)
        found = dino(places["dino"]).pixels(to_bytes(batch))
        torch.testing.assert_close(found, self.prepared(as_pil(batch)), rtol=0, atol=1e-5)

    def test_gives_the_class_token_of_the_model(self, places: dict[str, str | None]) -> None:
        model = Dinov2Model.from_pretrained(places["dino"]).eval()
        with torch.no_grad():
            wanted = model(pixel_values=self.prepared(as_pil(images()))).last_hidden_state[:, 0]
        torch.testing.assert_close(dino(places["dino"])(images()), wanted, rtol=0, atol=1e-5)

    def test_missing_files_are_named(self, tmp_path: Path) -> None:
        small_dino(tmp_path)
        (tmp_path / "preprocessor_config.json").unlink()
        with pytest.raises(DataError, match=r"features dino: .* lacks preprocessor_config\.json; copy them there"):
            dino(str(tmp_path))

    @pytest.mark.parametrize("change", [{"resample": 2}, {"crop_size": {"height": 28, "width": 20}}])
    def test_another_preparation_is_refused(self, tmp_path: Path, change: dict[str, Any]) -> None:
        small_dino(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPARATION | change))
        with pytest.raises(DataError, match="preprocessor_config"):
            dino(str(tmp_path))

    def test_a_preparation_that_cannot_be_read(self, tmp_path: Path) -> None:
        small_dino(tmp_path)
        (tmp_path / "preprocessor_config.json").write_text("{}")
        with pytest.raises(DataError, match="preprocessor_config"):
            dino(str(tmp_path))

    def test_weights_that_are_missing(self, tmp_path: Path) -> None:
        small_dino(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
        save_file({k: v for k, v in weights.items() if k != "layernorm.bias"}, tmp_path / "model.safetensors")
        with pytest.raises(DataError, match=r"features dino lacks weights, for example 'layernorm\.bias'"):
            dino(str(tmp_path))


def test_a_place_that_is_no_folder_says_what_to_write() -> None:
    with pytest.raises(DataError, match=r"^features clip: .*nothing.*METRIC@FOLDER"):
        clip("nothing")


def test_values_that_are_not_finite_are_found(tmp_path: Path) -> None:
    folder = small_clip(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(DataError, match=r"features clip.*image 0"):
        clip(str(folder))(images())
