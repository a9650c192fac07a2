"""A new study from folders of images: what ``seedpo study create`` does."""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from seedpo.errors import ConfigError, DataError
from seedpo.study import texts
from seedpo.study.checks import with_checks
from seedpo.study.folder import Study, create_study
from seedpo.study.image_folders import Prompt, PromptImages, evaluated_models, read_images, read_prompt_file
from seedpo.study.layouts import Laid, collect, compare
from seedpo.study.records import Group
from seedpo.study.settings import Kind, Question, StudySettings


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is asked of a new study.

    Attributes:
        kind: collect preferences, or compare models blindly.
        questions: keys of :data:`seedpo.study.texts.QUESTIONS`; none: *preference* to collect, all four to compare.
        prompts: file with the prompts and perhaps their categories; none: the folders of images know them.
        limit_prompts: take the first so many; none: all.
        checks, repeats: shares of a rater's shows.
        settings: further keys of ``study.yaml``.
        seed: of all that is drawn.
    """

    kind: Kind = "collect"
    questions: Sequence[str] = ()
    prompts: Path | None = None
    limit_prompts: int | None = None
    checks: float = 0.0
    repeats: float = 0.0
    settings: Mapping[str, object]
    seed: int = 0


def new_study(folder: Path, places: Mapping[str, Path], design: Design, *, progress: bool = True) -> Study:
    """Makes a study from folders of images.

    Args:
        folder: of the study; must not exist, or be empty.
        places: folders of images by the names of their models; to collect, the images of a prompt in all of them.
        design: what is asked.
        progress: whether a bar is shown while images are copied.

    Raises:
        ConfigError: if settings do not fit, or the folder is not empty.
        DataError: if images or prompts are missing, cannot be read, or cannot be compared.
    """
    questions = _questions(design)
    prompts = read_prompt_file(design.prompts) if design.prompts else None
    models = {name: _limited(read_images(place, prompts), design.limit_prompts) for name, place in places.items()}
    if design.kind == "study":
        laid = compare(models, questions, seed=design.seed)
    else:
        laid = collect(_together(models), questions)
    _require_comparable(laid.groups, same_size=design.kind == "study")
    if design.checks > 0:
        laid = _with_checks(laid, questions, design)
    settings = StudySettings.model_validate(
        {
            "id": secrets.token_hex(8),
            "title": texts.TITLES[design.kind],
            "kind": design.kind,
            "questions": tuple(questions),
            "checks": design.checks,
            "repeats": design.repeats,
            "order": "blocks",
            "seed": design.seed,
            "consent": texts.CONSENT,
            "instructions": texts.INSTRUCTIONS,
            **{key: value for key, value in design.settings.items() if value is not None},
        }
    )
    with tqdm(total=len(laid.images), desc="images", unit="image", disable=not progress) as bar:
        return create_study(folder, settings, laid.groups, laid.images, progress=lambda done, _: _show(bar, done))


def models_of(images: Sequence[str], evaluation: Path | None) -> dict[str, Path]:
    """Folders of images by model, from what a user wrote.

    Args:
        images: ``FOLDER`` or ``NAME=FOLDER``; without a name, that of the folder.
        evaluation: folder of ``seedpo evaluate``, each of whose targets is a model.

    Raises:
        ConfigError: if there is none, or a name is there twice.
        DataError: if ``evaluation`` is no such folder.
    """
    models = dict(evaluated_models(evaluation)) if evaluation else {}
    for written in images:
        name, equals, place = written.partition("=")
        path = Path(place if equals else written)
        name = name if equals else path.resolve().name
        if not name or name in models:
            raise ConfigError(f"--images {written}: the name {name!r} is empty or there twice; write NAME=FOLDER")
        models[name] = path
    if not models:
        raise ConfigError("there are no images; give --images FOLDER (several times) or --evaluation FOLDER")
    return models


def _show(bar: tqdm[object], done: int) -> None:
    bar.update(done - bar.n)


def _questions(design: Design) -> list[Question]:
    keys = list(design.questions) or (list(texts.QUESTIONS) if design.kind == "study" else ["preference"])
    for row, key in enumerate(keys):
        if key not in texts.QUESTIONS:
            known = ", ".join(texts.QUESTIONS)
            raise ConfigError(f"--questions has {key!r}; known are {known}; others can be written into study.yaml")
        if key in keys[:row]:
            raise ConfigError(f"--questions has {key!r} twice")
    if design.checks + design.repeats > 0.5:
        raise ConfigError("--checks and --repeats together are more than 0.5; lower one")
    return [texts.QUESTIONS[key] for key in keys]


def _limited(found: Sequence[PromptImages], limit: int | None) -> Sequence[PromptImages]:
    return found if limit is None else found[:limit]


def _together(models: Mapping[str, Sequence[PromptImages]]) -> list[PromptImages]:
    """The images of each prompt in all folders."""
    images: dict[str, list[Path]] = {}
    known: dict[str, Prompt] = {}
    for found in models.values():
        for item in found:
            images.setdefault(item.prompt, []).extend(item.images)
            known.setdefault(item.prompt, Prompt(item.prompt, item.category))
    return [PromptImages(prompt, tuple(files), known[prompt].category) for prompt, files in images.items()]


def _with_checks(laid: Laid, questions: Sequence[Question], design: Design) -> Laid:
    """As many checks as a rater who does every pair would see."""
    share = design.checks / (1.0 - design.checks - design.repeats)
    pairs = sum(len(group.candidates) * (len(group.candidates) - 1) // 2 for group in laid.groups)
    return with_checks(laid, questions, math.ceil(pairs * share), seed=design.seed)


def _require_comparable(groups: Sequence[Group], *, same_size: bool) -> None:
    """Two candidates must not have the same image; sizes must not tell models apart."""
    seen: dict[str, tuple[str, tuple[int, int]]] = {}
    for group in groups:
        by_content: dict[str, tuple[str, str]] = {}
        sizes: dict[tuple[int, int], str] = {}
        for candidate in group.candidates:
            for name in candidate.images:
                if name not in seen:
                    seen[name] = _content(Path(name))
                content, size = seen[name]
                before = by_content.setdefault(content, (name, candidate.source))
                if before[0] != name:
                    raise DataError(f"{before[0]} and {name} are the same image; nothing can be chosen between them")
                other = sizes.setdefault(size, name)
                if same_size and len(sizes) > 1:
                    first = next(iter(sizes.items()))
                    raise DataError(
                        f"{first[1]} has {first[0][0]} x {first[0][1]} px and {other} {size[0]} x {size[1]}: sizes "
                        "would tell the models apart; draw them alike"
                    )


def _content(path: Path) -> tuple[str, tuple[int, int]]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with Image.open(path) as image:
            return digest, image.size
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image of a known format; make it again or leave it out") from error
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); make it again or leave it out") from error
