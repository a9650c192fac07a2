"""Votes for other programs: labelled pairs and likes for training, tasks of Label Studio, a table for a spreadsheet.

Of the pairs, a choice becomes a preference and a tie a tie. Best and worst of k images become the 2 k - 3 pairs that
follow from them, each a row. A like or dislike is a row of its own. "Bad" and "skip" say nothing of an image and are
left out, as are attention checks, repetitions, excluded raters, and questions about sets of images. The first image is
the first candidate of its group, wherever it was on the screen.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedpo.data.text import csv_text
from seedpo.errors import ConfigError, DataError
from seedpo.files import write_aside
from seedpo.study.folder import Study
from seedpo.study.records import Judgement, Unit, pairs_of
from seedpo.study.settings import Question

LABELS = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}
"""Pick-a-Pic's labels of the answers that are exported."""

LIKES = {"like": True, "dislike": False}
"""What is exported of answers to single images."""

_BATCH = 64
"""Rows in memory at a time, and in a row group of a parquet file."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        rows: pairs or likes in it.
        left_out: number of answers that were left out, by reason.
    """

    path: Path
    rows: int
    left_out: Mapping[str, int]


def select(judgements: Iterable[Judgement], *, question: Question) -> tuple[list[Judgement], Mapping[str, int]]:
    """Chooses what is exported.

    Args:
        judgements: without those of excluded raters.
        question: that is exported.

    Returns:
        One judgement for each row, and the number of the answers that make none by reason.
    """
    selected, left_out = [], Counter[str]()
    for judgement in judgements:
        reason = _reason(judgement, question)
        if reason:
            left_out[reason] += 1
        else:
            selected += [judgement] if question.form == "single" else pairs_of(judgement)
    return selected, left_out


def _reason(judgement: Judgement, question: Question) -> str | None:
    if judgement.question != question.key:
        return "other questions"
    if judgement.expected is not None:
        return "attention checks"
    if judgement.show.repeat_of is not None:
        return "repetitions"
    return None if judgement.answer in (*LABELS, *LIKES, "ranked") else f'"{judgement.answer}"'


def export_votes(
    study: Study,
    judgements: Iterable[Judgement],
    out: Path,
    *,
    format: str,
    question: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Exported:
    """Writes the votes of a study.

    Args:
        study: of the votes.
        judgements: without those of excluded raters.
        out: file to write. Formats with images beside the file put them into the folder ``<name of out>-images``.
        format: ``parquet`` (with the images; pairs in the columns of Pick-a-Pic), ``jsonl`` or ``label-studio`` (JSON,
            pairs only).
        question: key of the question; `None`: the first one that shows one image of each candidate.
        overwrite: replace an existing file.
        progress: show a bar.

    Raises:
        ConfigError: an argument is wrong, or the file exists.
        DataError: there is nothing to export, an image cannot be read, or the file cannot be written.
    """
    if format not in PAIR_WRITERS:
        raise ConfigError(f"--format {format}: known are {', '.join(PAIR_WRITERS)}")
    if out.resolve().parent == study.folder.resolve() or (study.folder.resolve() / "images") in out.resolve().parents:
        raise ConfigError(f"--out {out} is in the study's own folder; name a file elsewhere")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ConfigError(f"--out {out} exists; choose another name, or add --overwrite")
    asked = _question(study, question)
    writers = LIKE_WRITERS if asked.form == "single" else PAIR_WRITERS
    if format not in writers:
        raise ConfigError(
            f"--format {format} holds pairs, and question {asked.key!r} asks for likes; choose {' or '.join(writers)}"
        )
    selected, left_out = select(judgements, question=asked)
    if not selected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none at all"
        raise DataError(f"study {study.folder} has no answer to {asked.key!r} to export; left out: {reasons}")
    rows = tqdm(selected, desc="export", unit="row", disable=None if progress else True)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with write_aside(out, unique=True) as aside:
            writers[format](study, rows, aside, out.with_name(f"{out.stem}-images"))
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); free some space or choose another place") from error
    return Exported(path=out, rows=len(selected), left_out=left_out)


def _question(study: Study, key: str | None) -> Question:
    if key is None:
        first = next((question for question in study.settings.questions if question.shows == "image"), None)
        if first is None:
            raise ConfigError(f"study {study.folder} asks only about sets of images; it has no pairs to export")
        return first
    question = study.question(key)
    if question.shows != "image":
        raise ConfigError(f"question {key!r} shows sets of images; only answers on single images can be exported")
    return question


def _write_parquet(rows: Iterable[Mapping[str, Any]], aside: Path) -> None:
    """Rows in batches; the values of the first one say what the columns hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    remaining = iter(rows)
    batch = list(islice(remaining, _BATCH))
    kinds = {str: pa.string(), bytes: pa.binary(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([(name, kinds[type(value)]) for name, value in batch[0].items()])
    with pq.ParquetWriter(aside, schema) as writer:
        while batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch = list(islice(remaining, _BATCH))


def _write_pickapic(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    _write_parquet((_pickapic_row(study, judgement) for judgement in rows), aside)


def _write_likes_parquet(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    _write_parquet(
        (_like_row(judgement, study.image(judgement.candidates[0].images[0]).read_bytes()) for judgement in rows), aside
    )


def _write_likes_jsonl(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    _write_lines(
        (_like_row(judgement, _copied(study, judgement.candidates[0].images[0], images)) for judgement in rows), aside
    )


def _like_row(judgement: Judgement, image: str | bytes) -> dict[str, Any]:
    candidate = judgement.candidates[0]
    return {
        "prompt": judgement.prompt,
        "image": image,
        "image_uid": candidate.images[0],  # several raters' likes of one image are averaged by it
        "liked": LIKES[judgement.answer],
        "model": candidate.source,
        "rater": judgement.show.rater,
        "question": judgement.question,
        "category": judgement.category,
        "at": judgement.at,
    }


def _pickapic_row(study: Study, judgement: Judgement) -> dict[str, Any]:
    first, second = judgement.first.images[0], judgement.second.images[0]
    label_0, label_1 = LABELS[judgement.answer]
    return {
        "caption": judgement.prompt,
        "jpg_0": study.image(first).read_bytes(),
        "jpg_1": study.image(second).read_bytes(),
        "label_0": label_0,
        "label_1": label_1,
        "has_label": True,
        "image_0_uid": first,
        "image_1_uid": second,
        "model_0": judgement.first.source,
        "model_1": judgement.second.source,
        "user_id": judgement.show.rater,
        "question": judgement.question,
        "category": judgement.category,
        "created_at": judgement.at,
    }


def _write_jsonl(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    _write_lines((_jsonl_row(study, judgement, images) for judgement in rows), aside)


def _write_lines(rows: Iterable[Mapping[str, Any]], aside: Path) -> None:
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _jsonl_row(study: Study, judgement: Judgement, images: Path) -> dict[str, Any]:
    pair = (judgement.first, judgement.second)
    chosen, rejected = pair if judgement.answer != "second" else pair[::-1]
    return {
        "prompt": judgement.prompt,
        "chosen": _copied(study, chosen.images[0], images),
        "rejected": _copied(study, rejected.images[0], images),
        "chosen_probability": 0.5 if judgement.answer == "tie" else 1.0,
        "chosen_model": chosen.source,
        "rejected_model": rejected.source,
        "rater": judgement.show.rater,
        "question": judgement.question,
        "category": judgement.category,
        "at": judgement.at,
    }


def _write_label_studio(study: Study, rows: Iterable[Judgement], aside: Path, images: Path) -> None:
    """One task per pair, one annotation per answer.

    For a project with ``<Image name="first" value="$first"/>``, ``<Image name="second" value="$second"/>`` and
    ``<Choices name="preference" toName="first">`` with the choices first, second and tie. Its local storage has to
    serve the folder of the file.
    """
    tasks: dict[Unit, dict[str, Any]] = {}
    for judgement in rows:
        if judgement.show.unit not in tasks:
            tasks[judgement.show.unit] = {"data": _label_studio_data(study, judgement, images), "annotations": []}
        choice = {"from_name": "preference", "to_name": "first", "type": "choices"}
        annotation = {
            "result": [{**choice, "value": {"choices": [judgement.answer]}}],
            "was_cancelled": False,
            "ground_truth": False,
            "created_at": judgement.at,
            "lead_time": judgement.seconds,
        }
        tasks[judgement.show.unit]["annotations"].append(annotation)
    aside.write_text(json.dumps(list(tasks.values()), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _label_studio_data(study: Study, judgement: Judgement, images: Path) -> dict[str, str]:
    pair = {"first": judgement.first, "second": judgement.second}
    return {
        "prompt": judgement.prompt,
        "question": judgement.question,
        "category": judgement.category,
        **{
            side: f"/data/local-files/?d={_copied(study, candidate.images[0], images)}"
            for side, candidate in pair.items()
        },
        **{f"{side}_model": candidate.source for side, candidate in pair.items()},
        "group": judgement.show.group,
    }


def _copied(study: Study, name: str, images: Path) -> str:
    """Copies an image to the folder beside the export; gives its path relative to the file."""
    images.mkdir(exist_ok=True)
    place = images / f"{name}.png"
    if not place.exists():
        with write_aside(place, unique=True, durable=False) as aside:
            shutil.copyfile(study.image(name), aside)
    return f"{images.name}/{place.name}"


Writer = Callable[[Study, Iterable[Judgement], Path, Path], None]

PAIR_WRITERS: Mapping[str, Writer] = {
    "parquet": _write_pickapic,
    "jsonl": _write_jsonl,
    "label-studio": _write_label_studio,
}
"""Formats of pairs by name. A writer gets the study, the judgements, the file and the folder for images."""

LIKE_WRITERS: Mapping[str, Writer] = {"parquet": _write_likes_parquet, "jsonl": _write_likes_jsonl}
"""Formats of likes by name."""


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
"""Names of the candidates of a unit in their order in the group."""


def votes_csv(judgements: Iterable[Judgement], *, widest: int = 2, head: bool = True) -> str:
    """Counted answers as CSV, checks and repetitions included.

    ``first``, ``second`` and so on are the sources of the candidates, as many as were shown at most, and at least two.
    ``order`` names them as they were on the screen. ``answer`` is one of these words, or what was pressed; ``best`` and
    ``worst`` are two of them if the answer is "ranked".

    Args:
        judgements: all answers, or a part of them.
        widest: candidates in one view at most, of all parts.
        head: begin with the names of the columns.
    """
    names = _ORDINALS[: max(widest, 2)]
    images = [f"{name}_images" for name in names]
    answered = ("order", "answer", "best", "worst", "expected", "repeated", "seconds")
    columns = ("at", "rater", "number", "question", "category", "prompt", "group", *names, *images, *answered)
    rows = (_csv_row(judgement, len(names)) for judgement in judgements)
    return csv_text([*([columns] if head else []), *rows], line_end="\r\n")


def _csv_row(judgement: Judgement, width: int) -> tuple[str, ...]:
    show = judgement.show
    called: dict[int | None, str] = dict(zip(show.members, _ORDINALS, strict=False))
    blank = [""] * (width - len(judgement.candidates))
    return (
        *(judgement.at, show.rater, str(show.number), judgement.question, judgement.category, judgement.prompt),
        show.group,
        *(candidate.source for candidate in judgement.candidates),
        *blank,
        *(" ".join(candidate.images) for candidate in judgement.candidates),
        *blank,
        *(" ".join(called[index] for index in show.order), judgement.answer),
        *(called.get(judgement.best, ""), called.get(judgement.worst, ""), judgement.expected or ""),
        "yes" if show.repeat_of else "",
        "" if judgement.seconds is None else f"{judgement.seconds:.3f}",
    )
