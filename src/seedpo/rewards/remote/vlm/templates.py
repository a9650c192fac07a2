"""Templates: what a vision-language model is asked about images, and what of its answer is the score.

A template is data, in a YAML file of the package or of the user. Its key ``kind`` says which:

=============  ====================================================================================================
kind           score of an image
=============  ====================================================================================================
``point``      a number that the model writes, or the mean of several
``yes-no``     how probable the answer yes is, by the probabilities of the first token
``pair``       the share of the other images of its prompt that it is better than, each asked in both orders
``checklist``  the mean, the weighted sum or the geometric mean of many answers
=============  ====================================================================================================
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from seedpo.documents import read_yaml
from seedpo.errors import ConfigError
from seedpo.registry import unknown
from seedpo.settings import Section

FOLDER = Path(__file__).parent / "templates"
"""The templates of the package."""

PROMPT, QUESTION, IMAGE = "prompt", "question", "image"
"""What stands in braces in the text of a template, and is filled in."""

_PLACES = re.compile(r"\{(\w+)\}")

MEAN, SUM, GEOMETRIC = "mean", "sum", "geometric-mean"
Total = Literal["mean", "sum", "geometric-mean"]
"""What is made of the answers to a checklist; ``sum`` and ``mean`` are weighted."""


def _bare_word(value: Any) -> Any:
    """YAML 1.1 reads a bare yes as true."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


Word = Annotated[str, BeforeValidator(_bare_word)]
"""A word, also yes and no without quotes."""


class _Asked(Section):
    """What all templates have."""

    summary: str
    """One line: what the score says."""
    source: str
    """Where the wording, or the scale, comes from."""
    licence: str
    """Licence of the wording."""
    models: tuple[str, ...] = ()
    """Models that were trained on this wording; empty: any that follows instructions."""
    system: str = ""
    """The system message; empty: none is sent."""
    text: str = Field(min_length=1)
    """The user's message, with `{prompt}`, in a checklist `{question}`, and `{image}` where an image stands. Without
    `{image}` the images come first."""
    max_tokens: int = Field(ge=1, le=1 << 16)
    """Length of the answer at most."""

    @model_validator(mode="after")
    def _places_are_known(self) -> Self:
        allowed = (PROMPT, QUESTION, IMAGE)
        for place in _PLACES.findall(self.text):
            if place not in allowed:
                raise ValueError(f"text has {{{place}}}; there are {', '.join(f'{{{name}}}' for name in allowed)}")
        shown, needed = self.text.count(f"{{{IMAGE}}}"), 2 if isinstance(self, PairTemplate) else 1
        if shown not in (0, needed):
            raise ValueError(f"text has {{image}} {shown} times; write it {needed} times or not at all")
        return self


class Number(Section):
    """Where a number stands in an answer."""

    label: str = Field(min_length=1)
    """The words before it; marks, and a range in brackets, may stand between: `**Score (1-5):** 4`."""
    heading: str = ""
    """The heading of the part of the answer in which it stands; empty: anywhere."""
    optional: bool = False
    """Whether the model may write N/A; the number then does not count."""


Range = tuple[float, float]
"""Lowest and highest number that an answer may hold."""


def _checked_range(span: Range) -> None:
    if not span[0] < span[1]:
        raise ValueError(f"range {list(span)}: the first number must be lower than the second")


class PointTemplate(_Asked):
    """The model writes one or more numbers."""

    kind: Literal["point"]
    range: Range
    """Lowest and highest number; others are no answer."""
    aspects: dict[str, Number] = Field(min_length=1)
    """The numbers, by the names of what they are about. Their mean is the score, unless an aspect is chosen."""
    end: str = ""
    """The heading of what follows the last aspect."""
    bare: bool = False
    """Whether an answer may be nothing but the number."""
    rescaled: bool = False
    """Whether the range is mapped to [0, 1]."""

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        _checked_range(self.range)
        if self.bare and len(self.aspects) > 1:
            raise ValueError("bare: an answer that is nothing but a number cannot be about several aspects")
        return self


class YesNoTemplate(_Asked):
    """The model answers yes or no."""

    kind: Literal["yes-no"]
    yes_words: tuple[Word, ...] = Field(("yes",), min_length=1)
    """First tokens that mean yes; case and white space do not matter."""
    no_words: tuple[Word, ...] = Field(("no",), min_length=1)
    """First tokens that mean no."""
    score: Literal["log-odds", "probability"] = "log-odds"
    """log P(yes) / P(no), or P(yes) / (P(yes) + P(no)); P sums over the tokens."""


class Choice(Section):
    """Which of two images the model names."""

    label: str = ""
    """The words before the choice; empty: it may stand anywhere."""
    first: tuple[str, ...] = Field(min_length=1)
    """What means the first image."""
    second: tuple[str, ...] = Field(min_length=1)
    """What means the second image."""
    tie: tuple[str, ...] = ()
    """What means neither."""


class TwoNumbers(Section):
    """A number for each of two images, under a heading."""

    heading: str = Field(min_length=1)
    first: str = "Image 1"
    """The words before the number of the first image."""
    second: str = "Image 2"
    """The words before that of the second."""


class PairTemplate(_Asked):
    """The model sees two images of a prompt and says which is better, or gives each a number."""

    kind: Literal["pair"]
    choice: Choice | None = None
    """What names the better image."""
    aspects: dict[str, TwoNumbers] = Field(default_factory=dict)
    """Instead of a choice: two numbers for each aspect. The means are compared, unless an aspect is chosen."""
    range: Range = (0.0, 1.0)
    """Lowest and highest number; others are no answer."""

    @model_validator(mode="after")
    def _says_how_it_is_read(self) -> Self:
        _checked_range(self.range)
        if (self.choice is None) == (not self.aspects):
            raise ValueError("give either choice or aspects, which say how the answer is read")
        return self


class Question(Section):
    """One question of a checklist."""

    text: str = Field(min_length=1)
    """The question; `{prompt}` may stand in it."""
    answer: Word = "yes"
    """The right answer: yes, no, or, where probabilities are those among all tokens, any word."""
    weight: float = 1.0
    """What its value is multiplied by; of the geometric mean, the power."""
    value: Literal["probability", "sign"] = "probability"
    """The probability of the right answer, or 1 if it exceeds one half and else -1."""
    needs: tuple[int, ...] = ()
    """Places, from 0, of earlier questions that must be answered rightly; otherwise the value is 0."""


class ChecklistTemplate(_Asked):
    """The model answers many questions about an image, each by itself."""

    kind: Literal["checklist"]
    questions: tuple[Question, ...] = ()
    """The questions, the same for all prompts; none: those of each prompt come from the file that the reward names."""
    among: Literal["yes-no", "all"] = "yes-no"
    """The probability of the right answer: among yes and no alone, or among all tokens that could come first."""
    total: Total = "mean"
    """What is made of the values."""

    @model_validator(mode="after")
    def _questions_fit(self) -> Self:
        for place, question in enumerate(self.questions):
            check_question(question, self.among, f"question {place}")
            if any(not 0 <= needed < place for needed in question.needs):
                raise ValueError(f"question {place}: needs must name earlier questions, from 0")
        if self.questions and sum(question.weight for question in self.questions) <= 0.0 and self.total != SUM:
            raise ValueError("the weights of the questions must have a sum above 0, or write total: sum")
        if self.total == GEOMETRIC and (reason := _no_geometric_mean(self)):
            raise ValueError(reason)
        return self


def _no_geometric_mean(template: ChecklistTemplate) -> str | None:
    """Why the values of a checklist have no geometric mean."""
    signs = any(question.value == "sign" for question in template.questions)
    return "a geometric mean needs values of at least 0, and some have value: sign" if signs else None


def check_question(question: Question, among: str, place: str) -> None:
    """Checks that a question's right answer can be read.

    Raises:
        ValueError: naming the place.
    """
    if among == "yes-no" and question.answer.casefold() not in ("yes", "no"):
        raise ValueError(f"{place}: the answer {question.answer!r} must be yes or no, or write among: all")


Template = PointTemplate | YesNoTemplate | PairTemplate | ChecklistTemplate

KINDS: dict[str, type[Template]] = {
    "point": PointTemplate,
    "yes-no": YesNoTemplate,
    "pair": PairTemplate,
    "checklist": ChecklistTemplate,
}
"""Templates by the value of their key ``kind``."""


def template_names() -> list[str]:
    """Names of the templates of the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_template(name: str) -> Template:
    """A template of the package by its name, or the one in a YAML file.

    Raises:
        ConfigError: if there is none, or it cannot be used; the message names the key.
    """
    if name in template_names():
        path = FOLDER / f"{name}.yaml"
    elif Path(name).suffix in (".yaml", ".yml"):
        path = Path(name)
    else:
        raise unknown("template", name, template_names(), also="; or the path of a .yaml file with one of your own")
    try:
        return read_template(read_yaml(path))
    except FileNotFoundError as error:
        raise ConfigError(f"template {name} does not exist; there are: {', '.join(template_names())}") from error
    except (ValueError, OSError) as error:
        raise ConfigError(f"template {name}: {error}") from error


def read_template(tree: Any) -> Template:
    """A template from what YAML holds.

    Raises:
        ValueError: if it cannot be used; the message names the keys.
    """
    kind = tree.get("kind") if isinstance(tree, dict) else None
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r} must be one of: {', '.join(KINDS)}")
    try:
        return KINDS[kind].model_validate(tree)
    except ValidationError as error:
        raise ValueError("; ".join(_fault(problem) for problem in error.errors())) from error


def _fault(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def check_aspect(template: Template, aspect: str | None) -> None:
    """Checks that an aspect can be chosen as the score.

    Raises:
        ConfigError: if the template has none of this name.
    """
    if aspect is None:
        return
    if isinstance(template, ChecklistTemplate):
        names = [MEAN, SUM] if _no_geometric_mean(template) else [MEAN, SUM, GEOMETRIC]
    else:
        names = [] if isinstance(template, YesNoTemplate) else list(template.aspects)
    if aspect not in names:
        raise ConfigError(
            f"aspect = {aspect!r}: the template has {', '.join(names) or 'no aspects; leave the key out'}"
        )
