"""``study.yaml``: its keys, what a new study begins with, and how the file is read and written.

The docstring of a key is also the comment above it in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from seedpo.documents import YAML_SIZE, compose_yaml, parse_yaml
from seedpo.errors import ConfigError
from seedpo.files import read_bytes
from seedpo.settings import Section
from seedpo.study.records import Form, Side

NAME = "study.yaml"

Kind = Literal["collect", "study"]

Place = tuple[str | int, ...]
"""Path of a key or item in a file: ``("questions", 0, "key")``."""


CHOICES: Mapping[Form, tuple[Side, ...]] = {
    "pair": ("left", "right", "tie", "bad", "skip"),
    "single": ("like", "dislike", "skip"),
    "best-worst": ("ranked", "skip"),
}
"""What each form offers unless a question says otherwise."""

_OFFERED: Mapping[Form, tuple[set[Side], set[Side]]] = {
    "pair": ({"left", "right"}, {"tie", "bad", "skip"}),
    "single": ({"like", "dislike"}, {"skip"}),
    "best-worst": ({"ranked"}, {"bad", "skip"}),
}
"""What each form must offer, and what it may offer besides."""


class Question(Section):
    """One question."""

    key: str
    """Its name in groups and tables."""
    text: str
    """What the rater reads."""
    form: Form = "pair"
    """pair: which of two. single: like or dislike of one. best-worst: best and worst of several in one view."""
    per_view: int = Field(default=4, ge=3, le=6)
    """Candidates in one view of best-worst, 3 to 6. If a prompt has more, balanced views of so many are drawn; if it
    has fewer, a view holds all. Other forms do not use it."""
    shows: Literal["image", "set"] = "image"
    """One image for each candidate, or, in pairs, a set whose first image is the reference."""
    choices: tuple[Side, ...] = Field(default_factory=lambda data: CHOICES[data.get("form", "pair")], min_length=1)
    """What may be answered. Of a pair: left, right, tie, bad, skip; of a single image: like, dislike, skip; of several:
    ranked (best and worst), skip, and bad (all bad). Absent: all of these, without bad for several."""


class StudySettings(Section):
    """A study."""

    id: str
    """Identifies this study in its database. Do not change it."""
    title: str = "Which image is better?"
    """What raters see above the page."""
    kind: Kind = "collect"
    """collect: preferences for training. study: blinded comparisons of models."""
    questions: tuple[Question, ...] = Field(min_length=1)
    """The questions. key: the name in groups.jsonl and tables. text: what the rater reads. form: pair (which of two),
    single (like or dislike of one) or best-worst (the best and the worst of per_view candidates, 3 to 6). shows: image,
    or set (a reference and other images; pairs only). choices: of a pair any of left, right, tie, bad, skip; of a
    single one like, dislike, skip; of best-worst ranked, bad, skip."""
    primary: str | None = None
    """Key of the question that the study is made to answer; null: all questions alike. Verdicts are corrected for its
    comparisons alone, and other questions are explored. Decide before the first vote: later changes are reported."""
    contrasts: tuple[tuple[str, str], ...] = ()
    """Pairs of models whose difference the study is made to find; empty: all pairs. Decide before the first vote."""
    raters_per_pair: int = Field(default=1, ge=1)
    """How many raters each pair gets; with the other forms, each image or view."""
    tasks_per_rater: int | None = Field(default=None, ge=1)
    """Limit of shows for each rater, attention checks and repeats included; null: no limit."""
    # Older studies lack this key. Its default is the order they had, which must not change while votes come in.
    order: Literal["blocks", "mixed"] = "mixed"
    """With several questions: blocks (a rater answers one question for all pairs before the next, and raters begin
    with different questions) or mixed (any question at any pair)."""
    tournament: Literal["full", "knockout"] = "full"
    """With more than two images of a prompt: full (every pair: k (k - 1) / 2 comparisons) or knockout (the better one
    stays: k - 1 comparisons, which show the best image and not how the others rank)."""
    repeats: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of a rater's pairs that are shown a second time with the sides drawn anew, 0 to 0.5."""
    checks: float = Field(default=0.0, ge=0.0, le=0.5)
    """Share of a rater's pairs that are attention checks, 0 to 0.5; the study must contain some."""
    seed: int = 0
    """Seed of everything that is drawn: the next pair, sides, checks and repeats."""
    enrolment: Literal["links", "open"] = "links"
    """links: raters need a personal link that you made. open: whoever opens the page gets one."""
    link_days: float | None = Field(default=None, gt=0.0)
    """Days until a personal link ends; null: never."""
    consent: str = ""
    """Raters agree to this text before they begin; empty: no consent is asked."""
    instructions: str = ""
    """Shown before the first pair and on demand."""
    database: str | None = None
    """Where votes are stored: null (votes.db in this folder) or a URL, postgresql+psycopg://user@host/name."""

    @property
    def asks_consent(self) -> bool:
        """Whether raters have to agree to a text."""
        return bool(self.consent.strip())


QUESTIONS: Mapping[str, Question] = {
    question.key: question
    for question in (
        Question(key="preference", text="Which image do you prefer overall, given the prompt?"),
        Question(key="appeal", text="Which image looks better, whatever the prompt says?"),
        Question(key="alignment", text="Which image shows better what the prompt describes?"),
        Question(
            key="diversity",
            text="Which side has more variety: whose three images differ more from the first one and from each other?",
            shows="set",
            choices=("left", "right", "tie", "skip"),
        ),
    )
}
"""The questions of SEE-DPO's user study (arXiv 2411.04712, Fig. 3), by key."""

_OTHER_TEXTS: Mapping[Form, Mapping[str, str]] = {
    "single": {
        "preference": "Do you like this image, given the prompt?",
        "appeal": "Does this image look good, whatever the prompt says?",
        "alignment": "Does this image show what the prompt describes?",
    },
    "best-worst": {
        "preference": "Which image do you prefer most, and which least, given the prompt?",
        "appeal": "Which image looks best, and which worst, whatever the prompt says?",
        "alignment": "Which image shows best what the prompt describes, and which worst?",
    },
}


def questions_of(form: Form, *, per_view: int = 4) -> Mapping[str, Question]:
    """The questions that a new study may ask in a form, by key: those of pairs, and the first three in other words.

    Args:
        form: how they are asked.
        per_view: candidates in one view of best-worst.
    """
    if form == "pair":
        return QUESTIONS
    texts = _OTHER_TEXTS[form]
    return {key: Question(key=key, text=text, form=form, per_view=per_view) for key, text in texts.items()}


TITLES: Mapping[Form, str] = {
    "pair": "Which image is better?",
    "single": "Which images do you like?",
    "best-worst": "Which image is best, which is worst?",
}
"""What raters see above a new study that collects preferences."""

CONSENT = """\
You will be shown computer-made images and asked what you think of them.

We store your answers, how long each took, and when you gave it, under a random number. We store no name, no address and
nothing about your device. The answers are used for research and to train image models, and may be published in this
anonymous form.

Taking part is voluntary. You can stop at any time, and come back later with your personal link. Some images may be
unpleasant.
"""

INSTRUCTIONS = """\
Read the prompt, look at every image, and answer the question above them. There is no right answer: we want to know what
you think.
"""
"""The page adds how to answer: that depends on the question's form and choices."""


def instructions(*, checks: float, repeats: float) -> str:
    """The instructions that a new study begins with.

    Args:
        checks, repeats: shares of a rater's shows; what does not occur is not mentioned.
    """
    notes = []
    if repeats:
        notes.append("Some images come twice.")
    if checks:
        notes.append("A few questions check that nobody clicks blindly.")
    return f"{INSTRUCTIONS}\n{' '.join(notes)}\n" if notes else INSTRUCTIONS


_HEAD = """\
# A study of seedpo. You may edit texts at any time; restart the server afterwards. Change nothing else once there are
# votes: raters would have answered different questions.
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, which people can edit."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def settings_text(settings: StudySettings) -> str:
    """The settings as the text of a file, with a comment above each key."""
    blocks = [_HEAD]
    for key, value in settings.model_dump(mode="json").items():
        comment = wrap(StudySettings.model_fields[key].description or "", 110, break_long_words=False)
        body = yaml.dump({key: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
        blocks.append("".join(f"# {line}\n" for line in comment) + body)
    return "\n".join(blocks)


def read_settings(path: Path) -> StudySettings:
    """The settings in a file.

    Raises:
        ConfigError: the file cannot be read, has a key twice, an unknown key, or a wrong value; the message names
            line and key.
    """
    try:
        text = read_bytes(path, largest=4 * YAML_SIZE, text=True).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; name the folder of a study, or make one: seedpo study create"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8 text ({error})") from error
    try:
        values = parse_yaml(text)
    except ValueError as error:
        mark = getattr(error.__cause__, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{path}{where} is not YAML ({getattr(error.__cause__, 'problem', None) or error})"
        ) from error
    root = compose_yaml(text)
    if not isinstance(values, dict) or not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} holds no keys; fix it, or make a new study with seedpo study create")
    lines = dict(_lines(root, ()))
    try:
        settings = StudySettings.model_validate(values)
    except ValidationError as error:
        place, message = first_fault(error, StudySettings.model_fields)
        while place and place not in lines:
            place = place[:-1]
    else:
        place, message = next(_faults(settings), ((), ""))
    if message:
        where = f" line {lines[place]}" if place in lines else ""
        raise ConfigError(f"{path}{where}: {message}")
    return settings


def first_fault(error: ValidationError, known: Mapping[str, object]) -> tuple[Place, str]:
    """Place and message of the first fault that pydantic found.

    Args:
        error: of a model.
        known: the keys of that model.
    """
    first = error.errors()[0]
    place = tuple(first["loc"])
    key = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        return place, f"unknown key {key}" + (f"; known keys: {', '.join(known)}" if len(place) == 1 else "")
    if first["type"] == "missing":
        return place, f"{key} is missing"
    return place, f"{key} is {first['input']!r}: {first['msg'].lower()}"


def _lines(node: yaml.Node, at: Place) -> Iterator[tuple[Place, int]]:
    """The line of every key and item below a node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*at, key.value), key.start_mark.line + 1
            yield from _lines(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for row, item in enumerate(node.value):
            yield (*at, row), item.start_mark.line + 1
            yield from _lines(item, (*at, row))


def _faults(settings: StudySettings) -> Iterator[tuple[Place, str]]:
    """What no single key can tell: place and message."""
    if not settings.id.strip():
        yield ("id",), "id is empty; any unique text will do"
    seen: dict[str, None] = {}
    for row, question in enumerate(settings.questions):
        if not question.key or any(sign.isspace() for sign in question.key):
            yield ("questions", row, "key"), f"question key {question.key!r}: use letters, digits, - and _"
        if question.key in seen:
            yield ("questions", row, "key"), f"question {question.key!r} occurs twice; remove one"
        seen[question.key] = None
        yield from _question_faults(question, ("questions", row), settings.tournament)
    yield from _faults_of_plan(settings, seen)
    if settings.repeats + settings.checks > 0.5:
        yield ("repeats",), "repeats and checks together are more than 0.5; lower one"


def _faults_of_plan(settings: StudySettings, questions: Collection[str]) -> Iterator[tuple[Place, str]]:
    """What is wrong with the primary question and the contrasts."""
    for key in ("primary", "contrasts"):
        if getattr(settings, key) and settings.kind != "study":
            yield (key,), f"{key} is for comparisons of models; remove it, or make the study with kind: study"
    if settings.primary is not None and settings.primary not in questions:
        yield ("primary",), f"primary is {settings.primary!r}; name one of the questions {', '.join(questions)}"
    pairs: set[frozenset[str]] = set()
    for row, contrast in enumerate(settings.contrasts):
        pair = frozenset(contrast)
        if len(pair) < 2 or pair in pairs:
            fault = "occurs twice" if pair in pairs else "names one model twice"
            yield ("contrasts", row), f"contrast {' against '.join(contrast)} {fault}; remove it"
        pairs.add(pair)


def _question_faults(question: Question, at: Place, tournament: str) -> Iterator[tuple[Place, str]]:
    needed, more = _OFFERED[question.form]
    given = set(question.choices)
    if not needed <= given <= needed | more or len(given) < len(question.choices):
        rule = f"need {' and '.join(sorted(needed))}, may have {', '.join(sorted(more))}, each once"
        yield (*at, "choices"), f"choices of {question.key!r} (form {question.form}) {rule}"
    if question.form != "pair" and question.shows == "set":
        yield (*at, "form"), f"form of {question.key!r} is {question.form}, and sets are compared in pairs; remove form"
    if question.form != "pair" and tournament == "knockout":
        yield (
            (*at, "form"),
            f"form of {question.key!r} is {question.form}, and a knockout is played in pairs; set tournament: full",
        )
