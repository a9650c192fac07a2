"""A LoRA's file is read as peft and diffusers read it, without them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from peft.utils.other import get_pattern_key
from safetensors.torch import save_file

from seedpo.errors import DataError
from seedpo.models.lora_file import METADATA_KEY, alphas, read_description, read_lora

NAMES = ("mid_block.attn.to_q", "to_q", "mid_block.xto_q", "down.0.to_k", "down.10.to_k", "up.conv")


def test_the_header_is_that_of_diffusers() -> None:
    assert METADATA_KEY == LORA_ADAPTER_METADATA_KEY


def test_alphas_are_those_of_peft() -> None:
    pattern = {"to_q": 2.0, r"0\.to_k": 3.0, "up.conv": 4.0}
    ours = alphas(NAMES, {"alpha_pattern": pattern, "lora_alpha": 8.0})
    assert ours == {name: pattern.get(get_pattern_key(list(pattern), name), 8.0) for name in NAMES}
    assert set(ours.values()) == {2.0, 3.0, 4.0, 8.0}


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole, cut, narrow = (tmp_path / f"{name}.safetensors" for name in ("whole", "cut", "narrow"))
    save_file({"a": torch.zeros(8)}, whole)
    cut.write_bytes(whole.read_bytes()[:70])
    save_file({"a": torch.zeros(8, dtype=torch.bfloat16)}, narrow)
    assert read_lora(whole)["a"].shape == (8,)
    for file in (cut, narrow, tmp_path / "absent.safetensors"):
        with pytest.raises(DataError, match=file.name):
            read_lora(file)
    for file in (cut, tmp_path / "absent.safetensors", whole):
        with pytest.raises(DataError, match=file.name):
            read_description(file, "unet")


@pytest.mark.parametrize(
    "content",
    [
        {"alpha_pattern": {"(a+)+$": 1.0}, "lora_alpha": 8.0},
        {"alpha_pattern": {".*.*.*.*.*x": 1.0}, "lora_alpha": 8.0},
        {"alpha_pattern": {"to_q\\": 1.0}, "lora_alpha": 8.0},
        {"alpha_pattern": {"to_q": "much"}, "lora_alpha": 8.0},
        {"alpha_pattern": {}},
    ],
)
def test_patterns_that_could_take_forever_are_refused(content: dict[str, object]) -> None:
    with pytest.raises(DataError, match="alpha"):
        alphas(["a" * 100 + "!"], content)
