"""SPO and D3PO: the training phase on pairs of denoising steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.as_published import TransitionSettings, transition_losses
from benchmarks.networks import Shape, gradient, ours, small_pipeline, trained, with_copy
from benchmarks.pair_rows import pair_rows
from benchmarks.timing import Comparison
from seedpo.methods.settings import SamplingConfig, StepPoolConfig, TrajectoryConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.step_pairs import StepPairs, step_batch, with_reference
from seedpo.methods.sources.steps import StepRollout
from seedpo.methods.sources.trajectories import TrajectoryRollout
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.policy import PipelinePolicy

PROMPTS = (
    "a small red circle on a white background",
    "a large blue star on a black background",
    "a large green ring on a navy background",
    "a small yellow square on a black background",
)
BETA, CLIP_RANGE, GUIDANCE, ETA = 10.0, 0.1, 5.0, 1.0


def brightness(images: Tensor, prompts: object, *, timestep: Tensor | None = None) -> Tensor:
    """A reward that costs nothing: only the training phase is measured."""
    return 100.0 * images.mean((1, 2, 3))


def spo(shape: Shape, *, pairs: int = 4, passes: int = 1) -> Comparison:
    """Single steps from a shared x_t, in one pass over the roll-out or several."""
    sampling = SamplingConfig(num_inference_steps=5, guidance_scale=GUIDANCE, eta=ETA)
    policy = ours(small_pipeline(shape))
    rolled, _ = StepRollout(
        policy,
        brightness,
        sampling=sampling,
        config=StepPoolConfig(candidates=2, plain_steps=3, min_gap=0.0),
    )(PROMPTS[: pairs // 2], generator=torch.Generator().manual_seed(0))
    assert rolled is not None
    return _comparison(
        f"SPO, {passes} pass{'es' if passes > 1 else ''} over a roll-out",
        f"{len(rolled)} pairs that share x_t: policy, reference and gradient",
        1.9 if passes == 1 else None,
        policy,
        shape,
        replace(rolled, reference_log_prob=None),
        sampling,
        pairs_per_call=len(rolled),
        grouped=False,
        passes=passes,
    )


def d3po(shape: Shape, *, images: int = 7, update_per: str = "group") -> Comparison:
    """All pairs of one prompt's images at one step."""
    sampling = SamplingConfig(num_inference_steps=4, guidance_scale=GUIDANCE, eta=ETA)
    policy = ours(small_pipeline(shape))
    rolled, _ = TrajectoryRollout(
        policy,
        brightness,
        sampling=sampling,
        config=TrajectoryConfig(images_per_prompt=images, update_per=update_per),
    )(PROMPTS[:1], generator=torch.Generator().manual_seed(0))
    assert rolled is not None
    timesteps, _ = policy.process.timesteps(sampling.num_inference_steps)
    step = (rolled.timestep[rolled.chosen] == timesteps[1]).nonzero()[:, 0]
    count = images * (images - 1) // 2
    return _comparison(
        f"D3PO, {images} images per prompt, {'groups' if update_per == 'group' else 'pairs'}",
        f"{count} pairs of one denoising step of {images} images, each image's reference asked once, and the gradient",
        5.0 if update_per == "group" else None,
        policy,
        shape,
        replace(rolled.select(step), reference_log_prob=None),
        sampling,
        pairs_per_call=images,
        grouped=update_per == "group",
    )


def _comparison(
    name: str,
    work: str,
    bar: float | None,
    policy: PipelinePolicy,
    shape: Shape,
    rolled: StepPairs,
    sampling: SamplingConfig,
    *,
    pairs_per_call: int,
    grouped: bool,
    passes: int = 1,
) -> Comparison:
    """Both structures on the same pairs.

    Args:
        name: of the case.
        work: what is done, in words.
        bar: expected ratio of times.
        policy: ours.
        shape: of the networks.
        rolled: the pairs, without the reference's log-probabilities, which are part of the work.
        sampling: guidance and eta.
        pairs_per_call: pairs that go through a network together in the published structure, and in ours unless grouped.
        grouped: whether ours runs every image once for all pairs.
        passes: over the same pairs; the weights stay as they are, so that gradients can be compared.
    """
    embeddings = PromptEmbeddings(policy)
    embeddings.of(rolled.prompts)
    embeddings.negative(1)
    pipeline, own = small_pipeline(shape), policy.pipeline
    unet, reference = with_copy(pipeline)
    settings = TransitionSettings(
        schedule=policy.process, beta=BETA, clip_range=CLIP_RANGE, guidance_scale=GUIDANCE, eta=ETA
    )
    method = TransitionDPO(policy_weight=BETA, reference_weight=BETA, sampling=sampling, clip_range=CLIP_RANGE)
    given = pair_rows(step_batch(rolled, embeddings, share_between_pairs=False))
    batches = torch.arange(len(rolled)).split(pairs_per_call) * passes

    def published() -> Tensor:
        for rows in batches:
            transition_losses(unet, reference, given[rows], settings).sum().backward()
        return gradient(trained(unet))

    def improved() -> Tensor:
        known = with_reference(rolled, policy, embeddings, sampling=sampling, rows_at_once=pairs_per_call)
        parts = (
            [step_batch(known, embeddings, share_between_pairs=True)] * passes
            if grouped
            else [step_batch(known.select(rows), embeddings, share_between_pairs=False) for rows in batches]
        )
        for batch in parts:
            method.loss(policy, batch, generator=torch.Generator()).losses.sum().backward()
        return gradient(policy.trainable_parameters())

    return Comparison(
        name=name,
        work=work,
        bar=bar,
        published=published,
        ours=improved,
        networks=(
            [unet, reference, pipeline.vae, pipeline.text_encoder],
            [own.unet, own.vae, own.text_encoder],
        ),
        memory_bar=0.6,
    )
