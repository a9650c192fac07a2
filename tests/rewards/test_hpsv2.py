from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from seedpo.errors import DataError
from seedpo.rewards.hpsv2 import V2, V21, configuration, hpsv2, hpsv21, network_of
from tests.rewards.small_checkpoints import open_clip_weights, write_clip, write_hps, write_tokenizer


def weights() -> dict[str, Tensor]:
    return open_clip_weights(layers=1)


def test_the_architecture_follows_from_the_shapes() -> None:
    config = configuration(open_clip_weights(width=240, text_width=192, layers=3), origin="w.pt")
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (240, 3, 3)
    assert (vision.image_size, vision.patch_size, vision.intermediate_size) == (16, 4, 720)
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (192, 3, 3)
    assert (text.max_position_embeddings, config.projection_dim) == (16, 12)
    assert (vision.hidden_act, text.hidden_act) == ("gelu", "gelu")


def test_the_published_shapes_are_those_of_vit_h() -> None:
    with torch.device("meta"):
        shapes = weights() | {
            "visual.conv1.weight": torch.empty(1280, 3, 14, 14),
            "visual.positional_embedding": torch.empty(257, 1280),
            "visual.proj": torch.empty(1280, 1024),
            "token_embedding.weight": torch.empty(49408, 1024),
            "positional_embedding": torch.empty(77, 1024),
        }
    config = configuration(shapes, origin="w.pt")
    assert config.vision_config.num_attention_heads == config.text_config.num_attention_heads == 16
    assert (config.vision_config.image_size, config.projection_dim) == (224, 1024)
    assert (config.text_config.bos_token_id, config.text_config.eos_token_id) == (49406, 49407)


def test_half_precision_files_become_float32() -> None:
    model = network_of({name: value.half() for name, value in weights().items()}, origin="w.pt")
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_the_mask_of_old_files_is_passed_over() -> None:
    network_of(weights() | {"attn_mask": torch.zeros(16, 16)}, origin="w.pt")


def test_it_is_loaded_once(tmp_path: Path) -> None:
    write_hps(tmp_path)
    assert hpsv2(str(tmp_path)) is hpsv2(str(tmp_path))


BLOCK = "visual.transformer.resblocks.0"
BROKEN = [
    ({"visual.proj": None}, r"w\.pt lacks visual\.proj; is it the right checkpoint"),
    ({f"{BLOCK}.attn.in_proj_bias": None}, rf"lacks {BLOCK}\.attn\.in_proj_bias"),
    ({f"{BLOCK}.mlp.c_fc.weight": None}, rf"lacks {BLOCK}\.mlp\.c_fc\.weight"),
    ({"score.weight": torch.ones(1)}, r"also holds score\.weight"),
    (
        {"ln_final.bias": torch.ones(3)},
        r"wrong shape for text_model\.final_layer_norm\.bias \(3,\) instead of \(128,\)",
    ),
    ({f"{BLOCK}.attn.in_proj_bias": torch.ones(4)}, "in_proj_bias"),
    ({"visual.conv1.weight": torch.ones(100, 3, 4, 4)}, "is 100 wide, not a multiple"),
    ({"visual.conv1.weight": torch.ones(3)}, "does not hold a CLIP with a square vision transformer"),
    ({"visual.positional_embedding": torch.ones(13, 160)}, "does not hold a CLIP with a square vision transformer"),
]


def test_weights_that_do_not_fit_are_named() -> None:
    for changes, message in BROKEN:
        changed = {name: value for name, value in (weights() | changes).items() if value is not None}
        with pytest.raises(DataError, match=message) as caught:
            network_of(changed, origin="w.pt")
        assert "\n" not in str(caught.value)


def test_a_missing_layer_is_noticed() -> None:
    held = {
        name: value
        for name, value in open_clip_weights(layers=3).items()
        if not name.startswith("transformer.resblocks.1.")
    }
    with pytest.raises(DataError, match=r"lacks transformer\.resblocks\.1\.attn\.in_proj_weight"):
        network_of(held, origin="w.pt")


class TestPlaces:
    """What is wrong with a folder is said before anything is scored."""

    def test_the_file_of_the_other_version(self, tmp_path: Path) -> None:
        write_hps(tmp_path, file=V2)
        with pytest.raises(DataError, match=rf"reward hpsv2\.1: .* lacks {V21}"):
            hpsv21(str(tmp_path))

    def test_another_scorers_weights(self, tmp_path: Path) -> None:
        torch.save(write_clip(tmp_path), tmp_path / V2)
        with pytest.raises(DataError, match=rf"{V2} lacks visual\.class_embedding,"):
            hpsv2(str(tmp_path))

    def test_a_tokenizer_of_another_clip(self, tmp_path: Path) -> None:
        write_tokenizer(tmp_path)
        held = open_clip_weights()
        held["token_embedding.weight"] = held["token_embedding.weight"][:-1].clone()
        torch.save({"state_dict": held}, tmp_path / V2)
        with pytest.raises(DataError, match="its text ends with token"):
            hpsv2(str(tmp_path))

    def test_no_tokenizer_and_no_hub(self, tmp_path: Path) -> None:
        write_hps(tmp_path)
        (tmp_path / "vocab.json").unlink()
        with pytest.raises(DataError, match=r"laion/CLIP-ViT-H-14"):
            hpsv2(str(tmp_path))
