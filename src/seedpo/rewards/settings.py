"""Rewards under names of the user's own: weighted sums of others, and those that a server computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from seedpo.settings import NO_EFFECT, Place, Section, changes_results

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


class RewardTerm(Section):
    """One reward in a weighted sum; a number alone is its weight."""

    weight: float
    """What the term is multiplied by; below 0: less of it is better."""
    mean: float | None = None
    """With `std`: subtracted first. A fixed number, as `seedpo score --as-sum` prints it, never that of the images that
    are scored together: the score of an image does not depend on the others, so that a resumed run and several
    processes agree."""
    std: float | None = Field(None, gt=0.0)
    """With `mean`: then divided by, so that `weight` alone weighs terms of different scales; `None`: the term
    counts as it is."""

    @model_validator(mode="before")
    @classmethod
    def _bare_weight(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; give both, or neither for a term that counts as it is")
        return self


def _as_address(url: str) -> str:
    if not _ADDRESS.fullmatch(url):
        raise ValueError(
            "write the address of a server, such as http://127.0.0.1:8077; no user name, no ? and no # belong in it"
        )
    return url.rstrip("/")


class Remote(Section):
    """What rewards that a server computes have in common."""

    target: ClassVar[str]
    """``module:function`` that returns the reward, from its name and these settings."""

    url: Annotated[str, AfterValidator(_as_address), NO_EFFECT]
    """Address of the server, such as `http://127.0.0.1:8077`. It may change when a run is resumed."""
    key_env: Annotated[str | None, NO_EFFECT] = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the server's token or key, sent as `Authorization: Bearer`. The key
    itself is written nowhere. None: nothing is sent."""
    concurrency: Annotated[int, NO_EFFECT] = Field(4, ge=1, le=256)
    """Requests that are under way at once, at most."""
    timeout: Annotated[float, NO_EFFECT] = Field(120.0, gt=0.0, le=86400.0)
    """Seconds in which a request must be answered whole."""
    retries: Annotated[int, NO_EFFECT] = Field(5, ge=0, le=100)
    """How often a request is repeated that did not arrive, or that the server could not answer at the time (429, 5xx).
    The waits begin at half a second and double, up to a minute."""
    cache: Annotated[str | None, Place(output=True), NO_EFFECT] = None
    """SQLite file that keeps all scores, by image, prompt and the reward's version, for this run and others. None:
    nothing is kept."""


class HttpSettings(Remote):
    """A reward that a server of `seedpo reward serve` computes, or another that speaks its protocol."""

    target = "seedpo.rewards.remote.http_reward:http_reward"

    reward: str = Field(min_length=1)
    """The name under which the server offers it."""
    batch_size: int = Field(16, ge=1, le=4096)
    """Images of a request, at most, which the server scores together."""


class VlmSettings(Remote):
    """A reward that a vision-language model gives, which any server with OpenAI's chat completions offers."""

    target = "seedpo.rewards.remote.vlm.reward:vlm_reward"

    model: str = Field(min_length=1)
    """Name of the model on the server, such as `Qwen/Qwen2.5-VL-7B-Instruct`. The key `url` ends in `/v1` as a rule."""
    template: Annotated[str, Place()]
    """What is asked, and what of the answer is the score: a template of the package (docs/vlm-rewards.md lists
    them), or a YAML file of your own."""
    aspect: str | None = Field(None, min_length=1)
    """Which of the template's aspects is the score; None: its usual one."""
    questions: Annotated[str | None, Place(names="prompts")] = None
    """Of a checklist whose questions depend on the prompt: their set or file, `geneval2@geneval2_data.jsonl`."""
    max_side: int = Field(1024, ge=16, le=16384)
    """Pixels of an image's longer side at most; larger images are made smaller before they are sent."""
    max_tokens: int | None = Field(None, ge=1, le=1 << 16)
    """Length of an answer at most, in tokens; None: as the template says."""
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    """Of the answers; 0: the most probable one."""
    seed: int = Field(0, ge=0)
    """Of the server's draws. Asking again takes the next one."""
    ask_again: int = Field(2, ge=0, le=20)
    """How often a question is asked again whose answer cannot be read, at a temperature of at least 0.7."""
    unanswered: Literal["error", "lowest", "mean"] = "error"
    """What an image scores whose answers cannot be read even then. `error`: the run ends. `lowest` and `mean`: as the
    lowest, or the mean, of the other images of its prompt that are scored with it, else of all of them. Each time a
    line says how many there were, and why."""
    most_unanswered: float = Field(0.1, ge=0.0, le=1.0)
    """Share of answers that cannot be read, of all so far, above which the run ends in any case; counts from the 50th
    answer on."""
    body: dict[str, Any] = Field(default_factory=dict)
    """More fields of the requests, such as `{chat_template_kwargs: {enable_thinking: false}}`."""


class RewardDefinition(Section):
    """A reward under a name of your own: one of these keys says what it is.

    A weighted sum of others is sum_i weight_i r_i, or weight_i (r_i - mean_i) / std_i where these are given.
    """

    terms: Annotated[dict[str, RewardTerm], Place(names="rewards")] = Field(default_factory=dict)
    """Of a weighted sum: terms by the names of their rewards, each a weight or `weight`, `mean` and `std`."""
    http: HttpSettings | None = None
    """Of a reward that a server computes: where, and how it is asked."""
    vlm: VlmSettings | None = None
    """Of a reward that a vision-language model gives: where it is served, and what it is asked."""

    @property
    def remote(self) -> Remote | None:
        """How a server is asked; `None` of a weighted sum."""
        return self.http or self.vlm

    def deciding(self) -> dict[str, Any]:
        """The keys that decide scores, as JSON values; where a server is and how it is asked do not."""
        return {
            kind: {key: value for key, value in part.items() if changes_results(type(self), f"{kind}.{key}")}
            for kind, part in self.model_dump(mode="json").items()
        }

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        given = [
            key for key in type(self).model_fields if key in self.model_fields_set and getattr(self, key) is not None
        ]
        if len(given) != 1:
            kinds = "terms (a weighted sum), http (a server computes it) or vlm (a vision-language model judges)"
            raise ValueError(f"give one of {kinds}, not {' and '.join(given) or 'nothing'}")
        return self

    @model_validator(mode="after")
    def _sum_has_terms(self) -> Self:
        if self.remote is not None:
            return self
        if not self.terms:
            raise ValueError("a weighted sum needs at least one term, for example terms: {pickscore: 1.0}")
        if not any(term.weight for term in self.terms.values()):
            raise ValueError("every weight is 0, so that the sum judges nothing; give a term another weight")
        return self

    @model_serializer(mode="wrap")
    def _what_is_given(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialise(self).items() if value}


Definitions = TypeVar("Definitions", bound=Mapping[str, RewardDefinition])


def refuse_cycles(definitions: Definitions) -> Definitions:
    """The definitions, checked: no sum contains itself.

    Raises:
        ValueError: naming the way around.
    """

    def follow(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(
                f"{' -> '.join((*path[path.index(name) :], name))} is a circle: a sum cannot be made of itself; remove "
                "one of these terms"
            )
        for term in definitions[name].terms if name in definitions else ():
            follow(term, (*path, name))

    for name in definitions:
        follow(name, ())
    return definitions


class RewardDefinitions(Section):
    """The key that defines rewards, wherever it stands: in a recipe, in a run or in a file of its own."""

    rewards: Annotated[dict[str, RewardDefinition], AfterValidator(refuse_cycles)] = Field(default_factory=dict)
    """Weighted sums of rewards, and rewards on servers, by names of your own, to be used wherever a reward is named."""
