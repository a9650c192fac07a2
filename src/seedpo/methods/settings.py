"""How the policy draws images, and the pairs that online methods make of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from seedpo.settings import Section


class SamplingConfig(Section):
    """How the policy draws images, in roll-outs and in training alike."""

    num_inference_steps: int = Field(20, ge=2)
    """Denoising steps of a trajectory."""
    guidance_scale: float = Field(5.0, ge=1.0)
    """Classifier-free guidance; 1 switches it off and halves the cost."""
    eta: float = Field(1.0, gt=0.0, le=1.0)
    """DDIM's eta of roll-outs; 1 gives the ancestral sampler, 0 has no density and cannot be trained on."""


Distance = Literal["mean", "nearest", "log_nearest"]
"""How far an image is from a prompt's other samples; see :mod:`seedpo.methods.sources.diversity`."""


class TrajectoryConfig(Section):
    """Pairs of whole trajectories (D3PO)."""

    images_per_prompt: int = Field(2, ge=2)
    """Trajectories per prompt that share x_T; their final images are ranked."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over the pairs of one roll-out."""
    min_gap: float = Field(0.0, ge=0.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this."""
    steps_per_pair: int | None = Field(None, ge=1)
    """Denoising steps that are trained on from each pair, drawn at random (with `update_per` group, one draw for all
    pairs of a prompt); none: all of them, as published."""
    update_per: Literal["pair", "group"] = "pair"
    """What `batch_size` counts. `pair`: single pairs of steps, as published. `group`: all pairs of a prompt at one
    denoising step, whose images run through the network once for all their pairs; with k images per prompt an update
    at the same `batch_size` sees up to k (k - 1) / 2 times as many pairs, and there are as many times fewer updates."""
    diversity_bonus: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """Images are ranked by reward + diversity_bonus x distance to the prompt's other images; 0: by the reward alone, as
    published. In reward per unit of distance; needs 3 images per prompt or more."""
    diversity_distance: Distance = "mean"
    """Which distance: `mean` of the root mean square pixel differences to the others, in [0, 1]; `nearest`, to the
    closest of them; `log_nearest`, its logarithm, an estimate of the entropy of images. Does nothing without
    `diversity_bonus`."""
    reference: Literal["frozen", "refreshed"] = "frozen"
    """`frozen`: the untrained model, as published for automatic rewards. `refreshed`: the policy as it was when it drew
    the images, as D3PO's code does with human feedback; each roll-out then starts with all margins at 0, and nothing
    holds the policy near the untrained model."""

    @model_validator(mode="after")
    def _distances_can_rank(self) -> Self:
        _check_bonus(self.diversity_bonus, self.images_per_prompt, key="trajectories.images_per_prompt")
        return self


class StepPoolConfig(Section):
    """Pairs of single steps from a shared x_t (SPO)."""

    candidates: int = Field(4, ge=2)
    """Candidates x_{t-1} drawn from every shared x_t."""
    noise: Literal["independent", "equal_norm", "antithetic"] = "independent"
    """How the noises of the candidates of one x_t hang together: `independent`, as published; `equal_norm`: one length
    for all of them; `antithetic`: every second one mirrors the one before it, which needs an even `candidates`. Each
    candidate alone is a draw from the policy in any case; candidates of one length differ in no part of the entropy
    offset that depends on that length."""
    plain_steps: int = Field(4, ge=0)
    """First steps that are sampled without making pairs."""
    inner_steps: int = Field(0, ge=0)
    """Steps that each candidate walks on by itself before it is judged; all its steps are trained on, and only the
    first shares x_t. 0: judged at once, as for SD1.5; 3 is published for SDXL."""
    min_gap: float = Field(0.3, ge=0.0, lt=1.0)
    """A pair is kept if the preference probability of its winner exceeds that of its loser by more than this."""
    prompts_per_rollout: int = Field(16, ge=1)
    """Prompts sampled together by one process."""
    updates_per_rollout: int = Field(1, ge=1)
    """Passes over the pairs of one roll-out."""
    preview_checks: int = Field(4, ge=0)
    """First roll-outs whose previews are decoded by the model's own autoencoder too, to measure how often `preview_vae`
    ranks a pair the same way; without `preview_vae` it does nothing. 0 measures nothing."""
    diversity_bonus: float = Field(0.0, ge=0.0, allow_inf_nan=False)
    """Candidates are ranked by reward + diversity_bonus x distance of their preview to those of the other candidates;
    0: by the reward alone, as published. In reward per unit of distance; needs 3 candidates or more."""
    diversity_distance: Distance = "mean"
    """Which distance, as in `trajectories`."""

    @model_validator(mode="after")
    def _candidates_can_be_drawn_and_ranked(self) -> Self:
        if self.noise == "antithetic" and self.candidates % 2:
            raise ValueError(
                f"steps.noise = antithetic draws candidates in pairs, but steps.candidates is {self.candidates}; "
                f"set it to {self.candidates + 1}, or steps.noise to equal_norm"
            )
        _check_bonus(self.diversity_bonus, self.candidates, key="steps.candidates")
        return self


def _check_bonus(weight: float, count: int, *, key: str) -> None:
    if weight > 0 and count < 3:
        raise ValueError(
            f"{key} = {count} makes diversity_bonus = {weight:g} useless: two images are as far from each other as "
            f"each is from the other; set {key} to 3 or more"
        )
