"""What features know of truth that a proxy does not, before any training: ``python -m benchmarks.partial_gains``.

A term tilts the optimal policy by a feature of images: the entropy term by how atypical an image is of the reference,
novelty by its distance from the others, a second opinion by a held-out reward. At equal proxy, and at a small strength
that costs D nats of divergence, truth changes by

    sqrt(2 D) Cov(t, f given r) / sd(f given r)                                  docs/derivations.md, section 13

which images of the model alone give. A run that is named takes the model's place: what would help from there on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.objectives.contenders import DRAWING_STEPS, WORLDS
from benchmarks.phases import CHOICE
from seedpo.core.stats.bootstrap import RESAMPLES
from seedpo.core.weighting import nearest_distances
from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.settings import Drawing
from seedpo.evaluation.targets import ModelOptions, load_target, parse_target
from seedpo.methods.noising import noised
from seedpo.metrics.named import load_features
from seedpo.metrics.records import Samples
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.rewards.named import build_reward
from seedpo.scenes.metrics import mean_truth

PROXIES = ("jpeg-compressibility", "scenes-vividness", "scenes-few")
"""What is optimised; the sign of a proxy makes no difference."""

OPINIONS = ("scenes-scorer", "scenes-plain", "scenes-few")
FEATURES = ("pixels", "scenes-clip")

NATS = 0.1
"""Divergence that a term may cost."""

LEVELS = 8
"""Time steps, those of a sampler of as many, at which the model's errors are measured."""

SMALLEST = 1e-6
"""Distance that copies of an image are taken to have."""


def distances(features: Tensor) -> Tensor:
    """Log of 1 - cos to the nearest other image of the same prompt, (P, K), of features (P, K, D)."""
    return nearest_distances(features).clamp(min=SMALLEST).log()


@torch.no_grad()
def atypicality(reference: PipelineDenoiser, samples: Samples, *, seed: int = 0) -> Tensor:
    """-log pi_ref up to a constant, (P, K), by the model's mean squared errors, all images under the same noise."""
    images, prompts = samples.flat()
    clean = reference.encode_images(images)
    conditioning = reference.encode_prompts(prompts)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(images), dtype=torch.float64)
    for time in reference.process.timesteps(LEVELS)[0]:
        noise = torch.randn(clean.shape[1:], generator=generator).expand_as(clean)
        rows = noised(reference.process, clean, noise, time.expand(len(clean)), conditioning)
        error = reference.predict(rows.latents, rows.timestep, conditioning) - rows.target
        total += error.flatten(1).double().square().mean(1).cpu()
    return (total / LEVELS).view(samples.images.shape[:2])


def within(values: Tensor) -> Tensor:
    """Less the mean of each prompt, (P, K)."""
    return values - values.mean(1, keepdim=True)


def gain(truth: Tensor, proxy: Tensor, feature: Tensor, *, nats: float = NATS) -> float:
    """Change of truth at equal proxy, to first order, for a tilt by a feature that costs some nats.

    Args:
        truth, proxy, feature: of K images of P prompts, (P, K); only differences within a prompt count.
        nats: of divergence from the policy that drew the images.
    """
    t, r, f = (within(values.double()) for values in (truth, proxy, feature))
    rest = f - (f * r).mean() / (r * r).mean() * r
    return float((2 * nats) ** 0.5 * (t * rest).mean() / rest.square().mean().sqrt())


def gain_interval(truth: Tensor, proxy: Tensor, feature: Tensor, *, seed: int = 0) -> tuple[float, float, float]:
    """:func:`gain` and its 95 % percentile bootstrap interval over prompts."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(truth), (RESAMPLES, len(truth)), generator=generator)
    gains = torch.tensor([gain(truth[rows], proxy[rows], feature[rows]) for rows in drawn], dtype=torch.float64)
    low, high = gains.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return gain(truth, proxy, feature), low, high


def measured(target: str, images: int) -> tuple[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]]:
    """Truth, proxies and features, (P, K) each, of what a model or a run draws."""
    place = parse_target(target, ModelOptions())
    model = str(place.settings.model)
    drawing = Drawing(
        images=images,
        seed=CHOICE.seed,
        num_inference_steps=DRAWING_STEPS,
        guidance_scale=WORLDS[model].guidance_scale,
        batch_size=96,
    )
    samples = draw_samples(load_target(place), CHOICE.prompts, drawing)
    flat, prompts = samples.flat()
    shape = samples.images.shape[:2]
    rewards = {name: build_reward(name)(flat, prompts).detach().view(shape) for name in {*PROXIES, *OPINIONS}}
    truth = mean_truth(Samples(images=flat[:, None], prompts=prompts)).view(shape)
    novelty = {f"novelty of {name}": distances(load_features(name)(flat).view(*shape, -1)) for name in FEATURES}
    reference = load_target(parse_target(model, ModelOptions()))
    features = {
        "entropy term": atypicality(reference, samples),
        **novelty,
        **{name: rewards[name] for name in OPINIONS},
    }
    return truth, {name: rewards[name] for name in PROXIES}, features


def table(target: str, images: int) -> list[str]:
    """Rows of Markdown: for every proxy what each feature would add to truth."""
    truth, proxies, features = measured(target, images)
    rows = [f"| proxy | {' | '.join(features)} |", "|---" * (len(features) + 1) + "|"]
    for name, proxy in proxies.items():
        cells = []
        for feature, values in features.items():
            if feature == name:
                cells.append("-")
                continue
            mean, low, high = gain_interval(truth, proxy, values)
            cells.append(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each model or run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partial_gains", description=__doc__)
    parser.add_argument("targets", nargs="*", default=["scenes"], help="models or runs; RUN@STEP for a checkpoint")
    parser.add_argument("--images", type=int, default=16, help="per prompt")
    chosen = parser.parse_args(arguments)
    for target in chosen.targets:
        print(f"\n{Path(target).name}\n")
        print("\n".join(table(target, chosen.images)))


if __name__ == "__main__":
    main()
