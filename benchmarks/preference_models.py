"""What gradient checkpointing saves in the training of preference models: ``python -m benchmarks.preference_models``.

One loss and its gradients of each kind of preference model, on small networks of the published classes, with all
activations kept and with most of them computed again. Gradients must be equal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# Before the first import of torch: one thread, with which small networks are timed best.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from transformers import CLIPConfig, CLIPModel

from benchmarks.memory import peak_bytes
from benchmarks.networks import TOKENS, gradient, small_pipeline
from benchmarks.table import aligned
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.rewards.latent_training import latent_start
from seedpo.rewards.preference_model import PairModel, PreferenceModel, made_step_aware
from seedpo.rewards.preference_objective import pair_losses
from seedpo.rewards.previews import SeenPairs
from tools.scenes.components import build_tokenizer

PAIRS = 4
IMAGE = 112
"""Height and width of images, in pixels: 16 x 16 patches, as many as CLIP-L/14 has."""


def small_clip(*, vision_layers: int = 12, text_layers: int = 6, width: int = 256) -> PreferenceModel:
    """CLIP-L/14 with about a fourth of its width and half of its layers, on images and patches of half the size."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = build_tokenizer(Path(folder))
        tokenizer.model_max_length = TOKENS
        text = {
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": text_layers,
            "num_attention_heads": 3,
            "max_position_embeddings": TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        vision = {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": 4,
            "image_size": IMAGE,
            "patch_size": 7,
        }
        return PreferenceModel(
            CLIPModel(CLIPConfig(projection_dim=192, text_config=text, vision_config=vision)), tokenizer
        )


def step_aware_clip() -> PreferenceModel:
    """The same, told the time step."""
    plain = small_clip()
    return PreferenceModel(made_step_aware(plain.clip, seed=0), plain.tokenizer)


def latent_reward() -> PairModel:
    """Encoder half and text encoder of the small Stable Diffusion."""
    return latent_start(PipelineDenoiser(small_pipeline()), seed=0)


MODELS: Mapping[str, Callable[[], PairModel]] = {
    "plain CLIP": small_clip,
    "step-aware CLIP": step_aware_clip,
    "latent": latent_reward,
}
"""Preference models by their kind, as they start."""


def seen_pairs(kind: str, count: int = PAIRS) -> SeenPairs:
    """Pairs of noise as a kind of model sees them."""
    shape = (4, 32, 32) if kind == "latent" else (3, IMAGE, IMAGE)
    pixels = torch.randn(count, 2, *shape, generator=torch.Generator().manual_seed(0))
    timestep = None if kind == "plain CLIP" else torch.linspace(1, 951, count).long()
    return SeenPairs(pixels=pixels, timestep=timestep)


def learn(model: PairModel, seen: SeenPairs) -> None:
    """One loss and its gradients."""
    prompts = [f"a large red circle and {number} blue stars" for number in range(len(seen.pixels))]
    pair_losses(model.compare(seen, prompts), torch.ones(len(prompts))).sum().backward()


def measure(kind: str, *, repetitions: int) -> list[str]:
    """One row of the table."""
    seen, bytes_, seconds, gradients = seen_pairs(kind), [], [], []
    for checkpointing in (False, True):
        model = MODELS[kind]()
        if checkpointing:
            model.checkpoint_activations()
        learn(model, seen)  # what libraries set up once
        gradients.append(gradient(model.trainable_parameters()))
        bytes_.append(peak_bytes(lambda model=model: learn(model, seen), []))  # type: ignore[misc]
        turns = []
        for _ in range(repetitions):
            start = time.process_time()
            learn(model, seen)
            turns.append(time.process_time() - start)
        seconds.append(statistics.median(turns))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    weights = sum(value.nbytes for value in model.trainable_parameters().values())
    return [
        kind,
        f"{weights / 2**20:.1f} MiB",
        *(f"{size / 2**20:.1f} MiB" for size in bytes_),
        f"{bytes_[1] / bytes_[0]:.2f}",
        f"{seconds[1] / seconds[0]:.2f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preference_models", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5, help="turns that are timed (default: 5)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows = [("model", "weights", "all kept", "computed again", "memory", "time")]
    rows += [tuple(measure(kind, repetitions=options.repetitions)) for kind in MODELS]
    print(aligned(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
