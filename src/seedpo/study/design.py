"""A new study from folders of images: what ``seedpo study create`` does."""

from __future__ import annotations

import hashlib
import math
import random
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from seedpo.data.images.rgb import decoded, size_of_file
from seedpo.data.prompts.reading import read_prompts
from seedpo.errors import ConfigError, DataError
from seedpo.files import read_bytes
from seedpo.pages.wording import count
from seedpo.study.folder import Study, create_study
from seedpo.study.image_folders import PromptImages, evaluated_models, read_images
from seedpo.study.images import Source, encode
from seedpo.study.records import UNITS, Candidate, Form, Group
from seedpo.study.settings import CONSENT, QUESTIONS, TITLES, Kind, Question, StudySettings, instructions, questions_of
from seedpo.study.units import units_per_rater

SET = 4
"""Images of a model in a question about sets: a reference and three others."""

_CELLS = 8
"""A spoiled image has this many cells on each side."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The design of a new study.

    Attributes:
        kind: collect preferences, or compare models blindly.
        form: how questions are asked.
        per_view: candidates in one view of best-worst; `None`: four.
        questions: keys of :func:`seedpo.study.settings.questions_of`; empty: *preference* to collect, all to compare.
        prompts: file with the prompts and perhaps their categories; `None` if the folders of images know them.
        limit_prompts: use only the first so many; `None`: all.
        checks, repeats: shares of a rater's shows.
        settings: other keys of ``study.yaml``; `None` as a value stands for the default.
        seed: of everything that is drawn.
    """

    kind: Kind = "collect"
    form: Form = "pair"
    per_view: int | None = None
    questions: Sequence[str] = ()
    prompts: Path | None = None
    limit_prompts: int | None = None
    checks: float = 0.0
    repeats: float = 0.0
    settings: Mapping[str, object]
    seed: int = 0


@dataclass(frozen=True)
class Layout:
    """Groups whose images are named by paths, and these images.

    Attributes:
        groups: for :func:`seedpo.study.folder.create_study`.
        images: by the names that the groups use.
    """

    groups: tuple[Group, ...]
    images: Mapping[str, Source]


def new_study(folder: Path, places: Mapping[str, Path], design: Design, *, progress: bool = True) -> Study:
    """Makes a study from folders of images.

    Args:
        folder: of the study; must not exist, or be empty.
        places: folders of images by model. To collect, the images of a prompt in all folders are compared.
        design: of the study.
        progress: show a bar while images are copied.

    Raises:
        ConfigError: settings do not fit together, or the folder is not empty.
        DataError: images or prompts are missing, cannot be read, or cannot be compared.
    """
    questions = _questions(design)
    _require_aim(design, [question.key for question in questions])
    prompts = read_prompts(design.prompts) if design.prompts else None
    models = {name: read_images(place, prompts)[: design.limit_prompts] for name, place in places.items()}
    if design.kind == "study":
        layout = compare(models, questions, seed=design.seed)
    else:
        layout = collect(_merged(models), questions)
    _require_comparable(layout.groups, same_size=design.kind == "study")
    _require_views(layout.groups, design)
    values = {
        "id": secrets.token_hex(8),
        "title": "Comparing images" if design.kind == "study" else TITLES[design.form],
        "kind": design.kind,
        "questions": tuple(questions),
        "checks": design.checks,
        "repeats": design.repeats,
        "order": "blocks",
        "seed": design.seed,
        "consent": CONSENT,
        "instructions": instructions(checks=design.checks, repeats=design.repeats),
        **{key: value for key, value in design.settings.items() if value is not None},
    }
    settings = StudySettings.model_validate(values)
    if design.checks > 0:
        # As many checks as a rater who does everything would see.
        share = design.checks / (1.0 - design.checks - design.repeats)
        units = sum(asked_units(layout.groups, settings).values())
        layout = with_checks(layout, questions, math.ceil(units * share), seed=design.seed)
    return create_study(folder, settings, layout.groups, layout.images, progress=progress)


def asked_units(groups: Sequence[Group], settings: StudySettings) -> Mapping[str, int]:
    """How many pairs, images or views of each question a rater is asked who answers all; without attention checks."""
    questions = {question.key: question for question in settings.questions}
    asked = dict.fromkeys(questions, 0)
    for group in groups:
        if group.expected is None:
            asked[group.question] += units_per_rater(group, questions[group.question], settings)
    return asked


def asked_lines(study: Study) -> list[str]:
    """What a study asks, and how many answers that takes, in words; a line for each question."""
    settings, lines = study.settings, []
    asked, raters = asked_units(study.groups, settings), settings.raters_per_pair
    for question in settings.questions:
        units = asked[question.key]
        lines.append(
            f"{question.key}: {units} {UNITS[question.form]} x {count(raters, 'rater')} = {units * raters} answers"
        )
    share = settings.checks + settings.repeats
    if share > 0.0:
        lines.append(f"attention checks and repetitions: {share:.0%} of what a rater sees, on top of these")
    return lines


def models_of(images: Sequence[str], evaluation: Path | None) -> dict[str, Path]:
    """Folders of images by model, from the command line.

    Args:
        images: ``FOLDER`` or ``NAME=FOLDER``; the default name is that of the folder.
        evaluation: folder of ``seedpo evaluate``, each of whose targets is a model.

    Raises:
        ConfigError: there are no folders, or a name occurs twice.
        DataError: ``evaluation`` is not such a folder.
    """
    models = dict(evaluated_models(evaluation)) if evaluation else {}
    for argument in images:
        name, equals, place = argument.partition("=")
        path = Path(place if equals else argument)
        name = name if equals else path.resolve().name
        if not name or name in models:
            raise ConfigError(f"--images {argument}: the name {name!r} is empty or occurs twice; write NAME=FOLDER")
        models[name] = path
    if not models:
        raise ConfigError("there are no images; give --images FOLDER (several times) or --evaluation FOLDER")
    return models


def contrast_of(text: str, models: Collection[str]) -> tuple[str, str]:
    """Two models from the command line, ``base:see``; their names may contain colons.

    Raises:
        ConfigError: it does not name two of the models.
    """
    for place in (place for place, sign in enumerate(text) if sign == ":"):
        if text[:place] in models and text[place + 1 :] in models:
            return text[:place], text[place + 1 :]
    raise ConfigError(f"--contrast {text}: write MODEL:MODEL with two of {', '.join(models)}")


def collect(prompts: Sequence[PromptImages], questions: Sequence[Question]) -> Layout:
    """One group with all images of a prompt, for each prompt and question.

    Args:
        prompts: with two or more images each; one is enough for single images.
        questions: that show one image of each candidate.

    Raises:
        DataError: a prompt has too few images, or a question shows sets.
    """
    for question in questions:
        if question.shows == "set":
            raise DataError(f"question {question.key!r} compares sets of images of models; it needs --kind study")
    groups = []
    for row, item in enumerate(prompts):
        if len(item.images) < 2 and any(question.form != "single" for question in questions):
            raise DataError(
                f"prompt {item.prompt!r} has one image ({item.images[0]}), and at least two are compared: draw more, "
                "for example with seedpo sample --images-per-prompt 2"
            )
        candidates = [Candidate(source=path.name, images=(str(path),)) for path in item.images]
        groups += [_group(row, item, question, candidates) for question in questions]
    return _layout(groups)


def compare(models: Mapping[str, Sequence[PromptImages]], questions: Sequence[Question], *, seed: int) -> Layout:
    """One group for each prompt, pair of models and question, as in Fig. 3 of SEE-DPO (arXiv 2411.04712).

    Questions of other forms than pairs get one group for each prompt, with an image of every model.

    Single images come from the first latent of a prompt. A set is a reference and three others of the same prompt and
    model. The latent of the reference is drawn from seed and prompt and is the same for all models.

    Args:
        models: images by model; all models have the same prompts, and equally many images of each.
        questions: of the study.
        seed: of references.

    Raises:
        DataError: there are fewer than two models, prompts or numbers of images differ between them, or a question
            about sets finds fewer than four images.
    """
    if len(models) < 2:
        raise DataError(f"a study compares at least two models; {', '.join(models) or 'none'} is given")
    _require_same_prompts(models)
    names = list(models)
    groups = []
    for row, item in enumerate(models[names[0]]):
        for question in questions:
            places = _places(item, question, random.Random(f"{seed}|reference|{row}|{item.prompt}"))
            candidates = [
                Candidate(source=name, images=tuple(str(models[name][row].images[place]) for place in places))
                for name in names
            ]
            if question.form == "pair":
                groups += [
                    _group(row, item, question, (candidates[first], candidates[second]), suffix=f"-{first}-{second}")
                    for first, second in combinations(range(len(names)), 2)
                ]
            else:
                groups.append(_group(row, item, question, candidates))
    return _layout(groups)


def with_checks(layout: Layout, questions: Sequence[Question], number: int, *, seed: int) -> Layout:
    """Adds attention checks, in turn for each question.

    An image is shown beside a wrong one, in views of several with others of its group. A single wrong image comes
    alone. For *alignment* the wrong image is that of the prompt that shares the fewest words. For other questions it is
    the image itself in 8 x 8 coloured cells with noise. A set is shown beside copies of its reference.

    Args:
        layout: the study without checks.
        questions: of the study.
        number: of checks; fewer if there are fewer groups.
        seed: which groups and images.
    """
    draw = random.Random(f"{seed}|checks")
    remaining = {
        question.key: [group for group in layout.groups if group.question == question.key] for question in questions
    }
    for groups in remaining.values():
        draw.shuffle(groups)
    images, checks = dict(layout.images), []
    for row in range(number):
        question = questions[row % len(questions)]
        if not remaining[question.key]:
            continue
        group = remaining[question.key].pop()
        good = draw.choice(group.candidates)
        bad = _worse(group, good, question, layout, images)
        size = {"pair": 2, "single": 1}.get(question.form, min(question.per_view, len(group.candidates)))
        others = [candidate for candidate in group.candidates if candidate is not good]
        expected = draw.randrange(size)
        shown = [good, *draw.sample(others, size - 2)] if size > 1 else []
        shown.insert(1 - expected if question.form == "pair" else expected, bad)
        checks.append(replace(group, id=f"check-{row:04d}", candidates=tuple(shown), expected=expected))
    return Layout(groups=(*layout.groups, *checks), images=images)


def _worse(group: Group, good: Candidate, question: Question, layout: Layout, images: dict[str, Source]) -> Candidate:
    if question.shows == "set":
        return Candidate(source="check", images=(good.images[0],) * len(good.images))
    others = [other for other in layout.groups if other.prompt != group.prompt and other.question == group.question]
    if question.key == "alignment" and others:
        other = min(others, key=lambda item: (_shared_words(item.prompt, group.prompt), item.id))
        return Candidate(source="check", images=other.candidates[0].images)
    name = f"spoiled {good.images[0]}"
    images[name] = partial(_spoiled, images[good.images[0]])
    return Candidate(source="check", images=(name,))


def _spoiled(source: Source) -> Image.Image:
    """An image in 8 x 8 cells under strong noise, the same each time."""
    image = decoded(encode(source))
    cells = image.resize((_CELLS, _CELLS), Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)
    noise = np.random.default_rng(0).normal(0.0, 60.0, (image.size[1], image.size[0], 3))
    return Image.fromarray(np.clip(np.asarray(cells) + noise, 0, 255).astype(np.uint8))


def _shared_words(*prompts: str) -> int:
    first, second = (set(re.findall(r"\w+", prompt.lower())) for prompt in prompts)
    return len(first & second)


def _questions(design: Design) -> list[Question]:
    if design.per_view is not None and design.form != "best-worst":
        raise ConfigError(f"--per-view is for --form best-worst, and the form is {design.form}; leave it out")
    if design.form != "pair" and design.settings.get("tournament") == "knockout":
        raise ConfigError(f"--tournament knockout is played in pairs, and the form is {design.form}; leave it out")
    offered = questions_of(design.form, per_view=design.per_view or 4)
    keys = list(design.questions) or (list(offered) if design.kind == "study" else ["preference"])
    for row, key in enumerate(keys):
        if key not in offered:
            fix = "sets are compared in pairs" if key in QUESTIONS else "you can write your own into study.yaml"
            raise ConfigError(f"--questions {key}: --form {design.form} asks {', '.join(offered)}; {fix}")
        if key in keys[:row]:
            raise ConfigError(f"--questions has {key!r} twice")
    if design.checks + design.repeats > 0.5:
        raise ConfigError("--checks and --repeats together are more than 0.5; lower one")
    return [offered[key] for key in keys]


def _require_views(groups: Sequence[Group], design: Design) -> None:
    """Best and worst need three candidates, and no view holds more than there are."""
    if design.form != "best-worst":
        return
    fewest = min(groups, key=lambda group: len(group.candidates))
    if len(fewest.candidates) < 3:
        raise DataError(
            f"prompt {fewest.prompt!r} has {len(fewest.candidates)} images, and best and worst are chosen of at least "
            "three: draw more, or use --form pair"
        )
    most = max(len(group.candidates) for group in groups)
    if design.per_view is not None and design.per_view > most:
        raise ConfigError(f"--per-view {design.per_view}: no prompt has more than {most} images; give at most {most}")


def _require_aim(design: Design, questions: Sequence[str]) -> None:
    """Checks what the study is made to answer in the words of the command line."""
    primary = design.settings.get("primary")
    if design.kind != "study" and (primary is not None or design.settings.get("contrasts")):
        raise ConfigError("--primary and --contrast are for comparisons of models; add --kind study, or leave them out")
    if primary is not None and primary not in questions:
        raise ConfigError(f"--primary {primary}: this study asks {', '.join(questions)}; choose one of them")


def _merged(models: Mapping[str, Sequence[PromptImages]]) -> list[PromptImages]:
    """The images of each prompt from all folders."""
    merged: dict[str, PromptImages] = {}
    for items in models.values():
        for item in items:
            before = merged.get(item.prompt)
            merged[item.prompt] = replace(before, images=before.images + item.images) if before else item
    return list(merged.values())


def _group(
    row: int, item: PromptImages, question: Question, candidates: Sequence[Candidate], *, suffix: str = ""
) -> Group:
    return Group(
        id=f"{row:05d}-{question.key}{suffix}",
        question=question.key,
        prompt=item.prompt,
        candidates=tuple(candidates),
        category=item.category,
    )


def _layout(groups: Sequence[Group]) -> Layout:
    names = dict.fromkeys(name for group in groups for member in group.candidates for name in member.images)
    return Layout(groups=tuple(groups), images={name: Path(name) for name in names})


def _places(item: PromptImages, question: Question, draw: random.Random) -> Sequence[int]:
    if question.shows == "image":
        return [0]
    if len(item.images) < SET:
        raise DataError(
            f"question {question.key!r} needs {SET} images of each prompt and model (a reference and three others); "
            f"prompt {item.prompt!r} has {len(item.images)}: draw more, or leave the question out of --questions"
        )
    return draw.sample(range(len(item.images)), SET)


def _require_same_prompts(models: Mapping[str, Sequence[PromptImages]]) -> None:
    (first, items), *others = models.items()
    expected = {item.prompt: len(item.images) for item in items}
    for name, other_items in others:
        counts = {item.prompt: len(item.images) for item in other_items}
        for prompt in (*expected, *counts):
            if prompt not in counts or prompt not in expected:
                lacking, having = (name, first) if prompt not in counts else (first, name)
                raise DataError(f"model {lacking} has no image for the prompt {prompt!r}, which {having} has; draw it")
            if counts[prompt] != expected[prompt]:
                raise DataError(
                    f"prompt {prompt!r}: {first} has {expected[prompt]} images and {name} {counts[prompt]}; "
                    "draw as many of each"
                )
        if list(counts) != list(expected):
            raise DataError(f"{first} and {name} have their prompts in different orders; sort them alike")


def _require_comparable(groups: Sequence[Group], *, same_size: bool) -> None:
    """Two candidates must not have the same image, and sizes must not reveal the model."""
    contents: dict[str, tuple[str, tuple[int, int]]] = {}
    for group in groups:
        by_content: dict[str, str] = {}
        sizes: dict[tuple[int, int], str] = {}
        for candidate in group.candidates:
            for name in candidate.images:
                if name not in contents:
                    contents[name] = _content(Path(name))
                content, size = contents[name]
                twin = by_content.setdefault(content, name)
                if twin != name:
                    raise DataError(f"{twin} and {name} are the same image; nothing can be chosen between them")
                sizes.setdefault(size, name)
                if same_size and len(sizes) > 1:
                    (size, name), (other_size, other) = sizes.items()
                    raise DataError(
                        f"{name} has {size[0]} x {size[1]} px and {other} {other_size[0]} x {other_size[1]}: sizes "
                        "would reveal the model; draw all images at one size"
                    )


def _content(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        content = read_bytes(path)
        return hashlib.sha256(content).hexdigest(), size_of_file(content)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it again or leave it out") from error
    except DataError as error:
        raise DataError(f"{path} is {error}; make it again or leave it out") from error
