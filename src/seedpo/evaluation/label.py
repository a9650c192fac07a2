"""Preference pairs by a reward: pairs that people judged, labelled anew, or pairs made of the images of one prompt.

The reward's choice is the image with the higher score. The margin is the difference of both scores; a smaller one than
the least margin, and a margin of 0, is a tie.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from seedpo.core.stats.bootstrap import grouped_mean_ends
from seedpo.data.image_list import ListedImage
from seedpo.data.images.reading import read_file, read_image
from seedpo.data.images.rgb import size_of_file
from seedpo.data.pairs.pair_tables import ParquetTable, TablePair
from seedpo.data.pairs.sets import PairSet, StoredImage
from seedpo.data.tables.kept_scores import KeptScores
from seedpo.errors import DataError
from seedpo.evaluation.score import Scoring, score_images
from seedpo.files import read_bytes, write_aside

Rule = Literal["best-worst", "all"]
"""Which pairs are made of the images of a prompt: the best and the worst one, or every two."""

BINS, BIN_PAIRS = 4, 10
"""Groups of pairs of growing margin, in which agreement is counted, and the least pairs in each."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An image that is scored, a :class:`seedpo.data.image_list.Picture`.

    Attributes:
        name: where it lies.
        prompt: what it was made for.
        digest: SHA-256 of its file.
        extent: width and height in pixels, upright.
        stored: gives the image as it is stored.
    """

    name: str
    prompt: str
    digest: str
    extent: tuple[int, int]
    stored: Callable[[], StoredImage]

    def state(self) -> str:
        """The digest."""
        return self.digest

    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.extent

    def pixels(self) -> Image.Image:
        """The image, upright, in RGB.

        Raises:
            DataError: if it cannot be read; the message names it.
        """
        image = self.stored()
        try:
            return read_image(image.content, folder=image.folder)
        except DataError as error:
            raise DataError(f"{self.name} is {error}") from error


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A pair that people judged.

    Attributes:
        images: numbers of both candidates.
        probability: that the first is preferred; 0.5 for a tie.
        source: file and row.
    """

    images: tuple[int, int]
    probability: float
    source: str


@dataclass(kw_only=True)
class Candidates:
    """What a reward is to judge.

    Attributes:
        origin: what was read.
        images: each once, whatever the number of pairs that show it.
        judged: pairs that people judged; `None` if images come alone.
        faults: why pairs, or images that come alone, cannot be read.
    """

    origin: str
    images: list[Candidate] = field(default_factory=list)
    judged: list[Judged] | None = None
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Share:
    """How often a reward and people agree.

    Attributes:
        pairs: on which people decided.
        share: of them, on which the reward decides alike; equal scores count one half.
        interval: ends of its 95 % interval over prompts; `None` for one prompt.
        margins: least and greatest margin of the pairs.
    """

    pairs: int
    share: float
    interval: tuple[float, float] | None
    margins: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How often a reward and people agree, in all and by the reward's margin, and on how many pairs people are tied."""

    all: Share
    by_margin: Sequence[Share]
    tied: int


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How pairs are labelled.

    Attributes:
        reward: the reward's name.
        rule: which pairs are made of the images of a prompt; `None`: those that people judged.
        min_margin: pairs with a smaller margin are ties.
        keeps_ties: whether ties are written, with probability 0.5.
        bad_rows_limit: share of the pairs, or of images that come alone, that may be unreadable.
    """

    reward: str
    rule: Rule | None = None
    min_margin: float = 0.0
    keeps_ties: bool = False
    bad_rows_limit: float = 0.01


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Numbers of two candidates, the preferred one first, and the pair as it is written but for its images."""

    images: tuple[int, int]
    margin: float
    is_tie: bool
    source: str


@dataclass(kw_only=True)
class Labelled:
    """What became of all pairs.

    Attributes:
        origin: what was read.
        reward: the judge.
        images: that were scored.
        prompts: different ones among them.
        pairs: that were judged.
        written: pairs in the table.
        ties: pairs too close to tell.
        keeps_ties: whether they are in the table.
        min_margin: below which a pair is a tie.
        alone: images that no other image of their prompt could be compared with.
        faults: why pairs or images could not be read.
        agreement: with people, if they judged pairs.
    """

    origin: str
    reward: str
    images: int
    prompts: int
    pairs: int
    written: int
    ties: int
    keeps_ties: bool
    min_margin: float
    alone: int
    faults: Sequence[str]
    agreement: Agreement | None

    def lines(self) -> list[str]:
        """A few lines for people."""
        below = f"margin below {self.min_margin:g}" if self.min_margin else "equal scores"
        ties = f"{self.ties} ties {'among them' if self.keeps_ties else 'left out'} ({below})"
        lines = [
            f"{self.origin}: {self.images} images of {self.prompts} prompts, scored with {self.reward}",
            f"  pairs: {self.pairs} judged, {self.written} written, {ties}",
        ]
        lines += [f"  images without a partner: {self.alone}"] if self.alone else []
        lines += [f"  that cannot be used: {len(self.faults)}; the first: {self.faults[0]}"] if self.faults else []
        return [*lines, *(_agreement_lines(self.agreement) if self.agreement else [])]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return asdict(self) | {"faults": list(self.faults)}


def _agreement_lines(agreement: Agreement) -> list[str]:
    tied = f" ({agreement.tied} more are ties of theirs)" if agreement.tied else ""
    lines = [f"  agrees with the labels there were: {_share_text(agreement.all)} of {agreement.all.pairs} pairs{tied}"]
    if agreement.by_margin:
        lines.append("    margin                pairs  agreement (95 % interval)")
    for part in agreement.by_margin:
        span = "{:.4g} to {:.4g}".format(*part.margins)
        lines.append(f"    {span:20} {part.pairs:6}  {_share_text(part)}")
    return lines


def _share_text(part: Share) -> str:
    between = "" if part.interval is None else " ({:.1f} to {:.1f})".format(*(100.0 * end for end in part.interval))
    return f"{100.0 * part.share:.1f} %{between}"


def judged_candidates(pairs: PairSet, *, progress: bool = False) -> Candidates:
    """The images of labelled pairs, each once for each prompt, and the pairs.

    Args:
        pairs: opened as :func:`seedpo.data.convert.conversion_config` says.
        progress: whether a bar is shown.
    """
    found = Candidates(origin=pairs.origin, judged=[])
    numbers: dict[tuple[str, str], int] = {}
    for index in tqdm(range(len(pairs)), desc="reading", unit="pair", disable=not progress):
        try:
            pair = pairs.stored(index)
            names = [f"{pair.place}: {image.name}" for image in pair.images]
            if names[0] == names[1]:  # a column of single images, in two rows
                names = [f"{name} ({which})" for name, which in zip(names, ("first", "second"), strict=True)]
            read = [
                _candidate(names[side], pair.prompt, image, partial(_stored, pairs, index, side))
                for side, image in enumerate(pair.images)
            ]
        except DataError as error:
            found.faults.append(str(error))
            continue
        first, second = (_number(candidate, numbers, found.images) for candidate in read)
        assert found.judged is not None
        found.judged.append(Judged(images=(first, second), probability=pair.probability, source=pair.place))
    return found


def _stored(pairs: PairSet, index: int, side: int) -> StoredImage:
    return pairs.stored(index).images[side]


def listed_candidates(images: Sequence[ListedImage], *, origin: str, progress: bool = False) -> Candidates:
    """Image files with prompts, each once for each prompt; see :func:`seedpo.evaluation.score.listed_images`."""
    found = Candidates(origin=origin)
    numbers: dict[tuple[str, str], int] = {}
    for image in tqdm(images, desc="reading", unit="image", disable=not progress):
        try:
            candidate = _candidate(image.name, image.prompt or "", _file(image.path), partial(_file, image.path))
        except DataError as error:
            found.faults.append(str(error))
        else:
            _number(candidate, numbers, found.images)
    return found


def _file(path: Path) -> StoredImage:
    try:
        content = {"bytes": read_bytes(path), "path": path.name}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return StoredImage(content=content, name=str(path), folder=None)


def _candidate(name: str, prompt: str, image: StoredImage, stored: Callable[[], StoredImage]) -> Candidate:
    try:
        file = read_file(image.content, folder=image.folder)
        size = size_of_file(file)
    except DataError as error:
        raise DataError(f"{name} is {error}") from error
    return Candidate(name=name, prompt=prompt, digest=hashlib.sha256(file).hexdigest(), extent=size, stored=stored)


def _number(candidate: Candidate, numbers: dict[tuple[str, str], int], images: list[Candidate]) -> int:
    """The number of a candidate, which is added if its image was not there for its prompt."""
    number = numbers.setdefault((candidate.prompt, candidate.digest), len(images))
    if number == len(images):
        images.append(candidate)
    return number


def label(found: Candidates, labelling: Labelling, scoring: Scoring, out: Path, kept: KeptScores) -> Labelled:
    """Scores candidates, and writes the reward's pairs as a table that holds the images.

    Args:
        found: what is judged.
        labelling: how pairs are made and labelled.
        scoring: how the reward scores.
        out: the parquet file.
        kept: scores of an unfinished call; see :func:`seedpo.evaluation.score.kept_scores`.

    Raises:
        ConfigError: if there is no such reward.
        DataError: if too many pairs or images cannot be read, a score is not finite, or no pair is left.
    """
    if found.images:
        table = score_images(found.images, [labelling.reward], scoring, skip_unreadable=True, kept=kept)
        values = dict(zip((image.name for image in table.images), table.scores[labelling.reward].tolist(), strict=True))
        skipped = table.skipped
    else:
        values, skipped = {}, {}
    scores = np.array([values.get(image.name, np.nan) for image in found.images], dtype=np.float64)
    judged = [pair for pair in found.judged or () if not np.isnan(scores[list(pair.images)]).any()]
    faults = [*found.faults, *skipped.values()]
    _check_faults(found, len(judged), faults, labelling)
    rule = labelling.rule or ("best-worst" if found.judged is None else None)
    made, alone = ([(*pair.images, pair.source) for pair in judged], 0) if rule is None else _made(found, scores, rule)
    pairs = [_decided(first, second, source, scores, labelling.min_margin) for first, second, source in made]
    written = [pair for pair in pairs if labelling.keeps_ties or not pair.is_tie]
    if not written:
        raise DataError(
            f"{found.origin}: none of {len(pairs)} pairs is left: "
            + ("all are ties; lower --min-margin, or give --ties keep" if pairs else "no prompt has two images")
        )
    with write_aside(out) as aside:
        _write(found.images, written, aside, progress=scoring.progress)
    return Labelled(
        origin=found.origin,
        reward=labelling.reward,
        images=len(values),
        prompts=len({image.prompt for image in found.images if image.name in values}),
        pairs=len(pairs),
        written=len(written),
        ties=sum(pair.is_tie for pair in pairs),
        keeps_ties=labelling.keeps_ties,
        min_margin=labelling.min_margin,
        alone=alone,
        faults=faults,
        agreement=_agreement(found.images, judged, scores) if judged else None,
    )


def _check_faults(found: Candidates, usable: int, faults: Sequence[str], labelling: Labelling) -> None:
    """Refuses a source of which too much cannot be read.

    Raises:
        DataError: naming the first fault.
    """
    if found.judged is None:
        unit, total, lost = "images", len(found.images) + len(found.faults), len(faults)
    else:
        unit, total = "pairs", len(found.judged) + len(found.faults)
        lost = total - usable
    if lost > labelling.bad_rows_limit * total:
        raise DataError(
            f"{found.origin}: {lost} of {total} {unit} cannot be used, and pairs.bad_rows_limit = "
            f"{labelling.bad_rows_limit:g} allows fewer; nothing is written; the first: {faults[0]}"
        )


def _made(found: Candidates, scores: NDArray[np.float64], rule: Rule) -> tuple[list[tuple[int, int, str]], int]:
    """Pairs of the images of each prompt, and how many images have no partner."""
    groups: dict[str, list[int]] = {}
    for number, image in enumerate(found.images):
        if not np.isnan(scores[number]):
            groups.setdefault(image.prompt, []).append(number)
    chosen = [pair for group in groups.values() if len(group) > 1 for pair in _of_group(group, scores, rule)]
    pairs = [(first, second, f"{found.images[first].name} and {found.images[second].name}") for first, second in chosen]
    return pairs, sum(len(group) == 1 for group in groups.values())


def _of_group(group: Sequence[int], scores: NDArray[np.float64], rule: Rule) -> Iterator[tuple[int, int]]:
    if rule == "all":
        yield from combinations(group, 2)
        return
    best = max(group, key=lambda number: scores[number])
    worst = min((number for number in group if number != best), key=lambda number: scores[number])
    yield best, worst


def _decided(first: int, second: int, source: str, scores: NDArray[np.float64], least: float) -> _Pair:
    margin = float(scores[first] - scores[second])
    images = (first, second) if margin >= 0.0 else (second, first)
    return _Pair(images=images, margin=abs(margin), is_tie=margin == 0.0 or abs(margin) < least, source=source)


def _write(images: Sequence[Candidate], pairs: Sequence[_Pair], path: Path, *, progress: bool) -> None:
    table = ParquetTable(path, margins=True)
    for pair in tqdm(pairs, desc="writing", unit="pair", disable=not progress):
        chosen, rejected = (images[number] for number in pair.images)
        table.add(
            TablePair(
                prompt=chosen.prompt,
                chosen=chosen.stored(),
                rejected=rejected.stored(),
                probability=0.5 if pair.is_tie else 1.0,
                source=pair.source,
                margin=pair.margin,
            )
        )
    table.finish()


def _agreement(images: Sequence[Candidate], judged: Sequence[Judged], scores: NDArray[np.float64]) -> Agreement | None:
    """Agreement on the pairs that people decided; `None` if they decided none.

    People of whom more than half prefer an image decided for it. The reward decides by its scores, however close.
    """
    decided = [pair for pair in judged if pair.probability != 0.5]
    if not decided:
        return None
    rows = np.array([pair.images for pair in decided])
    gaps = scores[rows[:, 0]] - scores[rows[:, 1]]
    side = np.sign([pair.probability - 0.5 for pair in decided])
    alike = 0.5 + 0.5 * side * np.sign(gaps)
    prompts = np.array([images[pair.images[0]].prompt for pair in decided], dtype=object)
    order = np.argsort(np.abs(gaps), kind="stable")
    bins = min(BINS, len(decided) // BIN_PAIRS)
    parts = np.array_split(order, bins) if bins > 1 else []
    return Agreement(
        all=_share(alike, gaps, prompts, order),
        by_margin=[_share(alike, gaps, prompts, part) for part in parts],
        tied=len(judged) - len(decided),
    )


def _share(
    alike: NDArray[np.float64], gaps: NDArray[np.float64], prompts: NDArray[np.object_], rows: NDArray[np.intp]
) -> Share:
    """Agreement on some pairs, sorted by margin."""
    groups = prompts[rows].astype(str)
    return Share(
        pairs=len(rows),
        share=float(alike[rows].mean()),
        interval=grouped_mean_ends(alike[rows], groups) if len(set(groups.tolist())) > 1 else None,
        margins=(float(abs(gaps[rows[0]])), float(abs(gaps[rows[-1]]))),
    )
