from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DModel

from seedpo.errors import ConfigError, DataError
from seedpo.models.preview import load_preview_decoder
from tests.models.tiny import seeded

CPU = torch.device("cpu")


def autoencoder(kind: str) -> Any:
    """The smallest of its class, for latents of 4 channels, with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind.startswith("tiny"):
            return AutoencoderTiny(
                latent_channels=16 if kind == "tiny-16" else 4,
                encoder_block_out_channels=(8, 8),
                decoder_block_out_channels=(8, 8),
                num_encoder_blocks=(1, 1),
                num_decoder_blocks=(1, 1),
            )
        return AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1, latent_channels=4)


def test_latents_of_a_flow_are_decoded_as_the_network_sees_them(tmp_path: Path) -> None:
    """taesd3 and taef1: 16 channels, and no scale or shift, as diffusers uses them in a pipeline's place."""
    vae = autoencoder("tiny-16").eval()
    vae.save_pretrained(tmp_path)
    latents = torch.randn(2, 16, 8, 8, generator=seeded())
    images = load_preview_decoder(str(tmp_path), channels=16, device=CPU)(latents)
    with torch.no_grad():
        expected = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, expected)
    with pytest.raises(ConfigError, match=r"16 channels, the model's 4"):
        load_preview_decoder(str(tmp_path), channels=4, device=CPU)


@pytest.mark.parametrize("kind", ["tiny", "kl"])
def test_decodes_as_the_autoencoder_itself(tmp_path: Path, kind: str) -> None:
    vae = autoencoder(kind).eval()
    vae.save_pretrained(tmp_path)
    latents = 0.3 * torch.randn(11, 4, 8, 8, generator=seeded())
    images = load_preview_decoder(str(tmp_path), channels=4, device=CPU)(latents)
    with torch.no_grad():
        expected = (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, expected)
    assert images.shape[:2] == (11, 3)
    assert not images.requires_grad


def test_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    autoencoder("tiny").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"preview_vae = .*its latents have 4 channels, the model's 8"):
        load_preview_decoder(str(tmp_path), channels=8, device=CPU)


def test_another_class_is_refused(tmp_path: Path) -> None:
    UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"'UNet2DModel' is not one of AutoencoderTiny, AutoencoderKL"):
        load_preview_decoder(str(tmp_path), channels=4, device=CPU)


def test_a_cut_file_is_an_error_in_words(tmp_path: Path) -> None:
    autoencoder("tiny").save_pretrained(tmp_path)
    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"preview_vae = .* cannot be loaded \(.*\); name a folder") as told:
        load_preview_decoder(str(tmp_path), channels=4, device=CPU)
    assert "\n" not in str(told.value)


def test_a_folder_without_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be loaded .*madebyollin/taesd"):
        load_preview_decoder(str(tmp_path), channels=4, device=CPU)
