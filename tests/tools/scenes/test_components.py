from __future__ import annotations

import string
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from seedpo.scenes.prompts import WORDS
from tests.scenes.drawings import ALL_PROMPTS
from tools.scenes.components import (
    END,
    LATENT_CHANNELS,
    PROMPT_LENGTH,
    START,
    build_autoencoder,
    build_scheduler,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    scorer_config,
)
from tools.scenes.denoiser import tokenize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizer")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> CLIPTokenizer:
    return build_tokenizer(folder)


class TestTokenizer:
    def test_nearly_every_word_is_one_token_of_its_own(self, tokenizer: CLIPTokenizer) -> None:
        """The shipped weights know "green" and "black" as four tokens each; a change of either needs new weights."""
        tokens = {word: tokenizer(word).input_ids for word in WORDS}
        assert {word: len(ids) - 2 for word, ids in tokens.items() if len(ids) != 3} == {"green": 4, "black": 4}
        assert len({tuple(ids) for ids in tokens.values()}) == len(WORDS)
        for ids in tokens.values():
            assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)

    def test_prompts_stay_distinct_when_they_are_cut(self, tokenizer: CLIPTokenizer) -> None:
        ids = tokenize(tokenizer, ALL_PROMPTS)
        assert ids.shape == (480, PROMPT_LENGTH)
        assert len({tuple(row) for row in ids.tolist()}) == 480

    def test_tokens_are_read_back_as_the_prompt(self, tokenizer: CLIPTokenizer) -> None:
        for prompt in ALL_PROMPTS[:20]:
            assert tokenizer.decode(tokenizer(prompt).input_ids, skip_special_tokens=True).strip() == prompt

    def test_case_does_not_matter(self, tokenizer: CLIPTokenizer) -> None:
        assert tokenizer("A Large RED star").input_ids == tokenizer("a large red star").input_ids

    def test_words_of_other_worlds_are_spelt(self, tokenizer: CLIPTokenizer) -> None:
        """Letters are known, anything else is the unknown token: no prompt is refused."""
        assert len(tokenizer("crimson").input_ids) > 3
        assert tokenizer.unk_token_id not in tokenizer("crimson").input_ids[1:-1]
        assert tokenizer("7").input_ids[1] == tokenizer.unk_token_id == tokenizer.eos_token_id

    def test_padding_is_that_of_stable_diffusion(self, tokenizer: CLIPTokenizer) -> None:
        ids = tokenize(tokenizer, ["a red star", "", "a " * 40])
        assert ids.shape == (3, PROMPT_LENGTH)
        assert (ids[:, 0] == tokenizer.bos_token_id).all()
        assert (ids[0, 4:] == tokenizer.eos_token_id).all()
        assert (ids[1, 1:] == tokenizer.eos_token_id).all()
        assert ids[2, -1] == tokenizer.eos_token_id
        assert ids[2, -2] != tokenizer.eos_token_id

    def test_vocabulary(self, tokenizer: CLIPTokenizer) -> None:
        vocabulary = tokenizer.get_vocab()
        assert sorted(vocabulary.values()) == list(range(len(tokenizer)))
        assert {*string.ascii_lowercase, START, END} <= vocabulary.keys()

    def test_a_stored_tokenizer_is_the_same(self, tokenizer: CLIPTokenizer, folder: Path, tmp_path: Path) -> None:
        tokenizer.save_pretrained(tmp_path)
        for again in (CLIPTokenizer.from_pretrained(folder), CLIPTokenizer.from_pretrained(tmp_path)):
            assert again(ALL_PROMPTS[:20]).input_ids == tokenizer(ALL_PROMPTS[:20]).input_ids
            assert again.model_max_length == PROMPT_LENGTH


class TestNetworks:
    def test_32_pixels_become_8_latents_and_back(self) -> None:
        torch.manual_seed(0)
        autoencoder = build_autoencoder().eval()
        with torch.no_grad():
            latents = autoencoder.encode(torch.zeros(2, 3, 32, 32)).latent_dist.mean
            assert latents.shape == (2, LATENT_CHANNELS, 8, 8)
            assert autoencoder.decode(latents).sample.shape == (2, 3, 32, 32)

    def test_the_denoiser_reads_the_text(self, tokenizer: CLIPTokenizer) -> None:
        torch.manual_seed(0)
        text_encoder = build_text_encoder(tokenizer).eval()
        unet = build_unet(text_encoder.config.hidden_size).eval()
        ids = tokenize(tokenizer, ["a red star", "a blue star"])
        latents = torch.randn(1, LATENT_CHANNELS, 8, 8).expand(2, -1, -1, -1)
        with torch.no_grad():
            embeds = text_encoder(ids).last_hidden_state
            predicted = unet(latents, torch.tensor([10, 10]), embeds).sample
        assert embeds.shape == (2, PROMPT_LENGTH, 64)
        assert predicted.shape == (2, LATENT_CHANNELS, 8, 8)
        assert (predicted[0] - predicted[1]).abs().max() > 1e-5

    def test_the_schedule_is_that_of_stable_diffusion(self) -> None:
        scheduler = build_scheduler()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        torch.testing.assert_close(scheduler.alphas_cumprod, torch.cumprod(1 - betas, 0))
        assert scheduler.config.prediction_type == "epsilon"
        assert not scheduler.config.clip_sample
        assert scheduler.config.steps_offset == 1

    def test_the_scorer_fits_the_world(self, tokenizer: CLIPTokenizer) -> None:
        config = scorer_config(tokenizer)
        assert config.vision_config.image_size == 32
        assert config.text_config.vocab_size == len(tokenizer)
        assert config.text_config.max_position_embeddings == PROMPT_LENGTH
        assert config.text_config.eos_token_id == tokenizer.eos_token_id
