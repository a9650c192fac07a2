"""Rewards that score: by their names, see :mod:`seedpo.rewards.names`, checked, and as weighted sums."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import torch
from torch import Tensor

from seedpo.protocols import Denoiser, Images, LatentReward
from seedpo.rewards.names import Definitions, leaves, source_of, terms_of
from seedpo.rewards.scoring import checked_scores
from seedpo.rewards.settings import RewardTerm
from seedpo.rewards.user_code import takes_timestep
from seedpo.settings import Precision
from seedpo.weights import DTYPES


class CheckedReward:
    """A reward whose scores are checked before anything is ranked by them.

    Args:
        name: as the user wrote it.
        reward: returns the scores.
        elsewhere: whether they are computed elsewhere, so that this process need not wait for them.
    """

    def __init__(self, name: str, reward: Callable[..., Tensor], *, elsewhere: bool = False) -> None:
        self.name = name
        self.reward = reward
        # One call at a time: its bound of requests at once is that of the reward.
        self._line = ThreadPoolExecutor(1, thread_name_prefix=f"reward {name}") if elsewhere else None

    @property
    def elsewhere(self) -> bool:
        """Whether it, or a term of a sum, is computed elsewhere."""
        if isinstance(self.reward, SummedReward):
            return any(reward.elsewhere for reward, _ in self.reward.parts)
        return self._line is not None

    @property
    def step_blind(self) -> tuple[str, ...]:
        """Names of the parts that take no time step: its own, or those of terms of a sum."""
        if isinstance(self.reward, SummedReward):
            return self.reward.step_blind
        return () if takes_timestep(self.reward) else (self.name,)

    @property
    def step_aware(self) -> bool:
        """Whether all parts judge previews at their time step."""
        return not self.step_blind

    @property
    def latent(self) -> LatentReward | None:
        """The reward as a judge of noisy latents; ``None`` if it, or any term of a sum, judges images alone."""
        if isinstance(self.reward, SummedReward):
            parts = [(reward.latent, term) for reward, term in self.reward.parts]
            latent = [(reward, term) for reward, term in parts if reward is not None]
            return SummedLatents(latent) if len(latent) == len(parts) else None
        return CheckedLatents(self.name, self.reward) if isinstance(self.reward, LatentReward) else None

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the network, if there is one, to a device and to a number format."""
        if hasattr(self.reward, "to"):
            self.reward.to(device=device, dtype=dtype)
        return self

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1], or of B PIL images, each with its prompt.

        Args:
            images: finished images, or previews.
            prompts: one for each image.
            timestep: of the previews, (B,); a reward that takes none judges them as finished images.

        Raises:
            DataError: if the scores have another shape, are not real or are not finite.
        """
        aware = timestep is not None and takes_timestep(self.reward)
        scores = self.reward(images, prompts, timestep=timestep) if aware else self.reward(images, prompts)
        return checked_scores(scores, prompts, reward=self.name)

    def later(self, images: Images, prompts: Sequence[str]) -> Callable[[], Tensor]:
        """Begins to score finished images, and returns what waits for the scores (B,) and gives them.

        What is computed here is computed at once, after what is computed elsewhere was asked.

        Args:
            images: as for a call.
            prompts: one for each image.

        Raises:
            DataError: as a call; of what is computed elsewhere when it is waited for.
        """
        if isinstance(self.reward, SummedReward):
            wait = self.reward.later(images, prompts)
            return lambda: checked_scores(wait(), prompts, reward=self.name)
        if self._line is not None:
            return self._line.submit(self, images, prompts).result
        scores = self(images, prompts)
        return lambda: scores


class SummedReward:
    """A weighted sum of rewards; see :class:`seedpo.rewards.settings.RewardDefinition`.

    Args:
        parts: the reward and the settings of each term.
    """

    def __init__(self, parts: Sequence[tuple[CheckedReward, RewardTerm]]) -> None:
        self.parts = parts

    @property
    def step_blind(self) -> tuple[str, ...]:
        """Names of the terms that take no time step."""
        return tuple(dict.fromkeys(name for reward, _ in self.parts for name in reward.step_blind))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Moves the networks of all terms."""
        for reward, _ in self.parts:
            reward.to(device, dtype)
        return self

    def __call__(self, images: Images, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        """Scores (B,); see :class:`CheckedReward`."""
        return added(
            [reward(images, prompts, timestep=timestep) for reward, _ in self.parts], [term for _, term in self.parts]
        )

    def later(self, images: Images, prompts: Sequence[str]) -> Callable[[], Tensor]:
        """What waits for the scores (B,); see :meth:`CheckedReward.later`."""
        order = sorted(range(len(self.parts)), key=lambda index: not self.parts[index][0].elsewhere)
        waits = {index: self.parts[index][0].later(images, prompts) for index in order}
        return lambda: added([waits[index]() for index in range(len(waits))], [term for _, term in self.parts])


class CheckedLatents:
    """A latent reward whose scores are checked before anything is ranked by them.

    Args:
        name: as the user wrote it.
        reward: returns the scores.
    """

    def __init__(self, name: str, reward: LatentReward) -> None:
        self.name = name
        self.reward = reward

    def misfit(self, policy: Denoiser) -> str | None:
        """Why it cannot read a policy's latents; it names the reward."""
        reason = self.reward.misfit(policy)
        return None if reason is None else f"reward {self.name}: {reason}"

    def score_latents(self, latents: Tensor, prompts: Sequence[str], *, timestep: Tensor) -> Tensor:
        """Scores (B,) float32.

        Raises:
            DataError: if the scores have another shape, are not real or are not finite.
        """
        return checked_scores(self.reward.score_latents(latents, prompts, timestep=timestep), prompts, reward=self.name)


class SummedLatents:
    """A weighted sum of latent rewards.

    Args:
        parts: the reward and the settings of each term.
    """

    def __init__(self, parts: Sequence[tuple[LatentReward, RewardTerm]]) -> None:
        self.parts = parts

    def misfit(self, policy: Denoiser) -> str | None:
        """That of the first term that cannot read them."""
        return next((reason for reward, _ in self.parts if (reason := reward.misfit(policy)) is not None), None)

    def score_latents(self, latents: Tensor, prompts: Sequence[str], *, timestep: Tensor) -> Tensor:
        """Scores (B,); see :class:`CheckedLatents`."""
        scores = [reward.score_latents(latents, prompts, timestep=timestep) for reward, _ in self.parts]
        return added(scores, [term for _, term in self.parts])


def build_reward(
    name: str,
    *,
    definitions: Definitions | None = None,
    device: torch.device | str | None = None,
    precision: Precision = "no",
) -> CheckedReward:
    """The reward of a name; its models are loaded once per process.

    So a call with another device or precision moves the networks that earlier calls returned, too, and weights that
    were rounded to 16 bits stay rounded: use one precision in a process.

    Args:
        name: see the top of this module.
        definitions: weighted sums and rewards on servers by their names.
        device: of the networks; `None` leaves them where they are.
        precision: of the networks; ``no`` is float32.

    Raises:
        ConfigError: if there is no reward of this name; the message lists the known names.
        DataError: if it cannot be loaded.
    """
    return _build(name, definitions or {}).to(device, DTYPES[precision])


def _build(name: str, definitions: Definitions) -> CheckedReward:
    terms = terms_of(name, definitions)
    if not terms:
        source = source_of(name, definitions)
        return CheckedReward(name, source.loader()(), elsewhere=source.remote is not None)
    return CheckedReward(name, SummedReward([(_build(term, definitions), terms[term]) for term in terms]))


def server_versions(names: Iterable[str], definitions: Definitions | None = None) -> dict[str, str]:
    """The versions that servers state of those of some rewards, and of their terms, that they compute.

    Raises:
        RewardServerError: if a server does not answer.
    """
    parts = dict.fromkeys(leaf for name in names for leaf in leaves(name, definitions))
    remote = [leaf for leaf in parts if source_of(leaf, definitions).remote is not None]
    rewards: dict[str, Any] = {leaf: build_reward(leaf, definitions=definitions).reward for leaf in remote}
    return {leaf: str(reward.version) for leaf, reward in rewards.items()}


def combined(name: str, definitions: Definitions, scores: Mapping[str, Tensor]) -> Tensor:
    """Scores (B,) of a name from those of its :func:`leaves`."""
    terms = terms_of(name, definitions)
    if not terms:
        return scores[name]
    return added([combined(term, definitions, scores) for term in terms], list(terms.values()))


def added(scores: Sequence[Tensor], terms: Sequence[RewardTerm]) -> Tensor:
    """The weighted sum (B,) of the scores (B,) of several rewards, on the device of the first.

    sum_i w_i (r_i - m_i) / s_i; without mean m and standard deviation s, w_i r_i.
    """
    total = torch.zeros_like(scores[0])
    for values, term in zip(scores, terms, strict=True):
        scaled = values if term.mean is None or term.std is None else (values - term.mean) / term.std
        total = total + term.weight * scaled.to(total.device)
    return total


def forget(name: str, definitions: Definitions | None = None) -> None:
    """Frees what was loaded for a name that is not a sum, so that another model finds its memory free."""
    source = source_of(name, definitions)
    loader: Any = source.loader()
    loader = getattr(loader, "func", loader)
    if not source.is_code and hasattr(loader, "cache_clear"):
        loader.cache_clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
