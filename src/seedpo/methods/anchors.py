"""Anchors: weighted terms that hold the policy near something, beside any objective.

Each row of :data:`ANCHORS` is one term. :class:`Anchored` hands the objective a policy that remembers its forward
passes, so that the terms read the predictions that the objective made anyway, whatever the objective is.

Kept: DiverseGRPO's distance of means without 1 / std^2, on the first steps alone if wanted (arXiv 2512.21514); DDRL's
forward KL as the diffusion loss on data (arXiv 2512.04332); GARDO's KL of suspects alone (arXiv 2512.24138). A
supervised term on winners is usual beside DPO. Left out: DiverseGRPO's reward for rare images, and DDRL's guidance in
the data term.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from seedpo.core.anchors import is_early_step, is_early_time, target_error
from seedpo.core.draws import KeyedDraws
from seedpo.core.processes import Process
from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.transitions import squared_distance
from seedpo.core.types import Conditioning, ImageGroups, ImagePairs, Likes, LossOutput, StepBatch, StepGroups, Steps
from seedpo.methods.noising import drawn, noised
from seedpo.methods.settings import AnchorConfig, MethodConfig
from seedpo.protocols import Method, Policy

Answering = Literal["policy", "reference", "initial"]
"""Whose prediction a forward pass gives."""


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """One call of a network with R rows.

    Attributes:
        latents: x_t, (R, ...).
        timestep: (R,).
        conditioning: of R rows.
        prediction: the network's output, (R, ...).
    """

    latents: Tensor
    timestep: Tensor
    conditioning: Conditioning
    prediction: Tensor

    def has_inputs_of(self, other: ForwardPass) -> bool:
        """Whether both calls asked the same."""
        ours, theirs = self.conditioning.tensors(), other.conditioning.tensors()
        pairs = [(self.latents, other.latents), (self.timestep, other.timestep)]
        pairs += [(value, theirs[name]) for name, value in ours.items()]
        return all(one is another or torch.equal(one, another) for one, another in pairs)


class RememberingPolicy:
    """A policy that remembers what it was asked and what it answered; all else is the policy's own.

    Args:
        policy: that answers.

    Attributes:
        passes: forward passes by who answered; those of the policy with gradient only.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.passes: dict[Answering, list[ForwardPass]] = {"policy": [], "reference": [], "initial": []}
        self._answering: Answering = "policy"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The policy's prediction, (R, ...)."""
        prediction = self.policy.predict(latents, timestep, conditioning)
        if self._answering != "policy" or torch.is_grad_enabled():
            asked = ForwardPass(latents=latents, timestep=timestep, conditioning=conditioning, prediction=prediction)
            self.passes[self._answering].append(asked)
        return prediction

    def reference(self) -> AbstractContextManager[None]:
        """Within this context the reference answers."""
        return self._answers("reference", self.policy.reference())

    def initial(self) -> AbstractContextManager[None]:
        """Within this context the model before training answers."""
        return self._answers("initial", self.policy.initial())

    @contextmanager
    def _answers(self, who: Answering, inside: AbstractContextManager[None]) -> Iterator[None]:
        before, self._answering = self._answering, who
        try:
            with inside:
                yield
        finally:
            self._answering = before

    def prediction_of(self, who: Literal["reference", "initial"], asked: ForwardPass) -> Tensor:
        """What somebody answers to a pass of the policy, (R, ...), without gradient; computed unless it is known."""
        for known in self.passes[who]:
            if known.has_inputs_of(asked):
                return known.prediction
        with self.reference() if who == "reference" else self.initial():
            return self.predict(asked.latents, asked.timestep, asked.conditioning)


class Form(Protocol):
    """How the terms read the batches of one kind of objective."""

    def means(self, process: Process, batch: Any, asked: ForwardPass, prediction: Tensor) -> Tensor:
        """The means (S, ...) that predictions (R, ...) stand for."""

    def is_early(self, process: Process, batch: Any, asked: ForwardPass) -> Tensor:
        """Which of the means are at early times, (S,) bool."""

    def is_suspect(self, batch: Any) -> Tensor:
        """Which of the means are of suspects, (S,) bool."""

    def winner_errors(self, process: Process, batch: Any, asked: ForwardPass) -> Tensor:
        """Errors of what is preferred, one for each pair or like; 0 where nothing is."""


class NoiseForm:
    """Objectives on the noise surrogate: what the network predicts is compared, row by row."""

    def means(self, process: Process, batch: Any, asked: ForwardPass, prediction: Tensor) -> Tensor:
        """The predictions themselves."""
        return prediction

    def is_early(self, process: Process, batch: Any, asked: ForwardPass) -> Tensor:
        """By the noisiest third of the time scale."""
        return is_early_time(asked.timestep, process)

    def is_suspect(self, batch: ImagePairs | ImageGroups) -> Tensor:
        """Both images of suspect pairs, or the suspect images of groups."""
        assert batch.suspect is not None
        return batch.suspect.flatten() if isinstance(batch, ImageGroups) else batch.suspect.repeat(2)

    def winner_errors(self, process: Process, batch: ImagePairs | Likes, asked: ForwardPass) -> Tensor:
        """Mean squared errors of the preferred images of pairs, whose rows come first, or of liked ones, (B,)."""
        clean = batch.latents if isinstance(batch, Likes) else batch.chosen_latents
        rows = slice(len(clean))
        error = target_error(asked.prediction[rows], clean, asked.latents[rows], asked.timestep[rows], process)
        if isinstance(batch, Likes):
            return error * batch.liked
        label = batch.chosen_probability
        return error if label is None else error * (label > 0.5)


@dataclass(frozen=True)
class _Answer:
    """A network whose prediction is known."""

    process: Process
    prediction: Tensor

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The prediction."""
        return self.prediction


@dataclass(frozen=True)
class StepForm:
    """Objectives on denoising steps: the means of guided steps are compared.

    Attributes:
        sampling: of the steps.
    """

    sampling: SamplingSettings

    def means(self, process: Process, batch: Steps, asked: ForwardPass, prediction: Tensor) -> Tensor:
        """Means of the steps from each x_t."""
        step = Sampler(_Answer(process, prediction), self.sampling).step(
            batch.latents, batch.timestep, batch.next_timestep, batch.conditioning, batch.negative_conditioning
        )
        return step.mean

    def is_early(self, process: Process, batch: Steps, asked: ForwardPass) -> Tensor:
        """By the first third of the sampler's steps."""
        return is_early_step(batch.timestep, process, self.sampling.num_inference_steps)

    def is_suspect(self, batch: StepBatch | StepGroups) -> Tensor:
        """The x_t from which a step of a suspect pair or image starts."""
        assert batch.suspect is not None
        marked = torch.zeros_like(batch.timestep, dtype=torch.bool)
        for steps in (batch.chosen, batch.rejected) if isinstance(batch, StepBatch) else (slice(None),):
            marked[batch.start[steps][batch.suspect]] = True
        return marked

    def winner_errors(self, process: Process, batch: StepBatch, asked: ForwardPass) -> Tensor:
        """Mean squared distance of the preferred next latents from the mean of their step, (P,)."""
        means = self.means(process, batch, asked, asked.prediction)
        error = squared_distance(means[batch.start][batch.chosen], batch.next_latents[batch.chosen])
        return error if batch.weight is None else error * (batch.weight != 0)


@dataclass(frozen=True, kw_only=True)
class BatchWithData:
    """A batch of an objective, and pairs of the set of the anchor `data`."""

    batch: Any
    data: ImagePairs


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """The terms of a run.

    Attributes:
        config: weights and what they mean.
        form: how batches of the objective are read.
        draws: time and noise of the anchor `data`, by pair and visit.
        gated: whether the anchor `kl` acts on suspects alone.
    """

    config: AnchorConfig
    form: Form
    draws: KeyedDraws
    gated: bool = False


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the terms read of one micro-batch.

    Attributes:
        policy: that remembers the objective's forward passes.
        batch: of the objective.
        data: pairs whose preferred images are data; ``None`` without the anchor `data`.
        anchors: the terms of the run.
    """

    policy: RememberingPolicy
    batch: Any
    data: ImagePairs | None
    anchors: Anchors


def _kl(sight: Sight) -> Tensor:
    """Squared distance of the policy's means from those of the reference; 0 at times that are not anchored."""
    policy, batch, form, config = sight.policy, sight.batch, sight.anchors.form, sight.anchors.config
    distances = []
    for asked in policy.passes["policy"]:
        theirs = policy.prediction_of(config.toward, asked)
        means, anchors = (
            form.means(policy.process, batch, asked, prediction) for prediction in (asked.prediction, theirs)
        )
        distance = squared_distance(means, anchors)
        if config.steps == "early":
            distance = distance * form.is_early(policy.process, batch, asked)
        if sight.anchors.gated:
            distance = distance * form.is_suspect(batch)
        distances.append(distance)
    return torch.cat(distances)


def _winner(sight: Sight) -> Tensor:
    """Squared error of what is preferred."""
    (asked,) = sight.policy.passes["policy"]
    return sight.anchors.form.winner_errors(sight.policy.process, sight.batch, asked)


def _data(sight: Sight) -> Tensor:
    """Squared error of the data's preferred images, in a forward pass of their own."""
    pairs, policy = sight.data, sight.policy.policy
    assert pairs is not None
    clean = pairs.chosen_latents
    timestep, noise = drawn(
        pairs, policy.process, clean.shape[1:], draws=sight.anchors.draws, generator=torch.Generator()
    )
    rows = noised(policy.process, clean, noise, timestep, pairs.conditioning)
    return squared_distance(rows.prediction(policy), rows.target)


ANCHORS: Mapping[str, Callable[[Sight], Tensor]] = {"kl": _kl, "winner": _winner, "data": _data}
"""Terms, of which the mean over rows is added to the loss, by the key of their weight in `anchor`."""


@dataclass(frozen=True, kw_only=True)
class Anchored:
    """An objective with anchors: L + sum over anchors of weight * mean of the term.

    Attributes:
        method: the objective.
        anchors: the terms.
    """

    method: Method[Any]
    anchors: Anchors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)  # what an objective does besides, such as filling a cache

    def loss(self, policy: Policy, batch: Any, *, generator: torch.Generator) -> LossOutput:
        """Losses of the objective, each with the mean of the terms; ``anchor/<name>`` is a term without its weight.

        Args:
            policy: the trained model and its reference.
            batch: of the objective; with the anchor `data` a :class:`BatchWithData`.
            generator: the objective's; the anchors draw nothing from it.
        """
        data = None
        if isinstance(batch, BatchWithData):
            batch, data = batch.batch, batch.data
        remembering = RememberingPolicy(policy)
        output = self.method.loss(remembering, batch, generator=generator)
        sight = Sight(policy=remembering, batch=batch, data=data, anchors=self.anchors)
        losses, metrics = output.losses, dict(output.metrics)
        for name, weight in self.anchors.config.weights.items():
            term = ANCHORS[name](sight).mean().to(losses)
            losses = losses + weight * term
            metrics[f"anchor/{name}"] = term.detach().expand_as(losses)
        return replace(output, losses=losses, metrics=metrics)


def anchored(method: Method[Any], config: MethodConfig, *, log_prob: Literal["noise", "steps"]) -> Method[Any]:
    """An objective with the anchors of a run; without any, the objective itself."""
    anchor = config.anchor
    if not anchor.weights:
        return method
    if config.reference.kind == "frozen":  # the model before training, which the objective asks anyway
        anchor = anchor.model_copy(update={"toward": "reference"})
    form: Form = NoiseForm() if log_prob == "noise" else StepForm(config.sampling)
    draws, gated = KeyedDraws(seed=config.seed), config.weighting.gate_anchor
    return Anchored(method=method, anchors=Anchors(config=anchor, form=form, draws=draws, gated=gated))
