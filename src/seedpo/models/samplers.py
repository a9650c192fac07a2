"""Samplers beside a model's own: schedulers of diffusers, with the noise levels that the model was trained with.

A family lists those that fit its process. The step of its own sampler is that of its :class:`Process`, with which runs
train and evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Protocol

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from seedpo.core.sampling import Denoise, Predictor, Sampler, SamplingSettings, guided_prediction
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError
from seedpo.registry import unknown


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A scheduler of diffusers.

    Attributes:
        kind: its class.
        options: of its configuration; all else comes from the model's own scheduler.
        shift: the option that takes the shift of a flow's levels; ``None``: the levels are those of DDPM.
    """

    kind: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    shift: str | None = None

    def of(self, pipeline: Any, process: Any = None) -> Any:
        """The scheduler, with the noise levels and the kind of prediction of a pipeline.

        Args:
            pipeline: whose scheduler it takes the place of.
            process: of the pipeline at its image size; the levels of a flow are shifted as it says.
        """
        shift = {} if self.shift is None else {self.shift: process.shift, **_UNSHIFTED}
        return self.kind.from_config(pipeline.scheduler.config, **self.options, **shift)

    def time(self, scheduler_time: Tensor, scheduler: Any) -> Tensor:
        """The process's time for one of the scheduler's: the level of a flow, the same for DDPM."""
        return scheduler_time if self.shift is None else scheduler_time / scheduler.config.num_train_timesteps


_UNSHIFTED = {"use_dynamic_shifting": False}
"""The process has turned a shift by image size into a number."""


DDPM_SAMPLERS: Mapping[str, Scheduler] = {
    "dpm++": Scheduler(kind=DPMSolverMultistepScheduler),
    "dpm++-karras": Scheduler(kind=DPMSolverMultistepScheduler, options={"use_karras_sigmas": True}),
    "dpm++-sde": Scheduler(kind=DPMSolverMultistepScheduler, options={"algorithm_type": "sde-dpmsolver++"}),
    "euler": Scheduler(kind=EulerDiscreteScheduler),
    "euler-a": Scheduler(kind=EulerAncestralDiscreteScheduler),
    "heun": Scheduler(kind=HeunDiscreteScheduler),
    "lms": Scheduler(kind=LMSDiscreteScheduler),
    "pndm": Scheduler(kind=PNDMScheduler, options={"skip_prk_steps": True}),
    "unipc": Scheduler(kind=UniPCMultistepScheduler),
}
"""For models whose noise levels are those of DDPM. ``dpm++-sde`` and ``euler-a`` draw noise at each step."""


_FLOW: Mapping[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}

FLOW_SAMPLERS: Mapping[str, Scheduler] = {
    "dpm++": Scheduler(kind=DPMSolverMultistepScheduler, options=_FLOW, shift="flow_shift"),
    "dpm++-sde": Scheduler(
        kind=DPMSolverMultistepScheduler, options={**_FLOW, "algorithm_type": "sde-dpmsolver++"}, shift="flow_shift"
    ),
    "heun": Scheduler(kind=FlowMatchHeunDiscreteScheduler, shift="shift"),
    "unipc": Scheduler(kind=UniPCMultistepScheduler, options=_FLOW, shift="flow_shift"),
}
"""For flow matching. ``dpm++-sde`` draws noise at each step; ``heun`` predicts twice in all steps but one."""


class SampledModel(Protocol):
    """What a sampler needs of a model: that it predicts, and which samplers its family has."""

    @property
    def pipeline(self) -> Any:
        """The pipeline."""

    @property
    def family(self) -> Any:
        """Its :class:`seedpo.models.families.Family`."""

    @property
    def process(self) -> Any:
        """Its :class:`seedpo.core.processes.Process`."""

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The network's raw prediction."""


def denoise_with(
    model: SampledModel, name: str | None, settings: SamplingSettings, *, predictor: Predictor | None = None
) -> Denoise:
    """How a model's images are drawn by a sampler.

    Args:
        model: has a family and a schedule.
        name: a sampler of the model's family; ``None`` for its own.
        settings: steps and guidance; ``eta`` counts for the model's own sampler alone, and is 0.
        predictor: predicts; ``None`` for the model itself.

    Returns:
        The function that denoises a batch. Noise of a step comes from each row's own generator.

    Raises:
        ConfigError: if the family has no such sampler, or the sampler cannot take so many steps.
    """
    family = model.family
    if name not in (None, family.own_sampler, *family.samplers):
        raise unknown("sampler", str(name), sorted((family.own_sampler, *family.samplers)))
    chosen = None if name in (None, family.own_sampler) else family.samplers[name]
    scheduler = None if chosen is None else chosen.of(model.pipeline, model.process)
    try:
        if scheduler is None:
            model.process.timesteps(settings.num_inference_steps)
        else:
            scheduler.set_timesteps(settings.num_inference_steps)
    except (ValueError, IndexError, RuntimeError) as error:
        raise ConfigError(
            f"{settings.num_inference_steps} denoising steps do not fit this model ({error}); give another --steps"
        ) from error
    predicting: Predictor = model if predictor is None else predictor
    if chosen is None:
        return lambda latents, positive, negative, _: Sampler(predicting, settings).sample(latents, positive, negative)
    return lambda latents, positive, negative, generators: _scheduled(
        predicting, chosen, scheduler, settings, latents, positive, negative, generators
    )


@torch.no_grad()
def _scheduled(
    model: Predictor,
    chosen: Scheduler,
    scheduler: Any,
    settings: SamplingSettings,
    latents: Tensor,
    positive: Conditioning,
    negative: Conditioning,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Denoises as the pipelines of diffusers do; the scheduler begins anew."""
    scheduler.set_timesteps(settings.num_inference_steps, device=latents.device)
    noise = {"generator": list(generators)} if "generator" in signature(scheduler.step).parameters else {}
    latents = latents.to(torch.promote_types(latents.dtype, torch.float32))
    if chosen.shift is None:
        latents = latents * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, time) if chosen.shift is None else latents
        times = chosen.time(time, scheduler).repeat(len(latents))
        prediction = guided_prediction(model, scaled, times, positive, negative, settings.guidance_scale)
        latents = scheduler.step(prediction, time, latents, return_dict=False, **noise)[0]
    return latents
