"""From a table's rows to labelled pairs: what is left out, which image is preferred, and how both become one size."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL.Image import Image
from tqdm import tqdm

from seedpo.data.buckets import Size, bucket_sizes, nearest_bucket, stored_size
from seedpo.data.fingerprints import image_names, rows_fingerprint
from seedpo.data.images import fit, read_file, read_image
from seedpo.data.layouts import find_layout, preferences, wrong_marks
from seedpo.data.settings import PairsConfig
from seedpo.data.tables import ArrowRows, Table
from seedpo.errors import DataError
from seedpo.protocols import Fingerprint, LabelledPair

VERSION = 1
"""Of how files become pixels; part of the content hashes, so that a change makes caches void."""

_CROPS = 0x5EED
"""Seed of the windows of random crops, beside the number of the row."""


@dataclass(frozen=True, kw_only=True)
class StoredPair:
    """A pair as it is stored.

    Attributes:
        values: the row's columns.
        names: columns of the prompt and of the two images.
        probability: that the first image is preferred; 0.5 for a tie.
        place: file and row, for messages.
        folder: where paths begin and within which they must lie; `None`: there can be no paths.
        key: number that seeds the window of a random crop.
        bucket: height and width that both images are brought to; ``None``: the square of the resolution.
    """

    values: Mapping[str, Any]
    names: tuple[str, str, str]
    probability: float
    place: str
    folder: Path | None
    key: int
    bucket: Size | None = None

    @property
    def prompt(self) -> str:
        """What both images were made for.

        Raises:
            DataError: if it is not text.
        """
        return checked_prompt(self.values[self.names[0]], self.names[0], self.place)


def checked_prompt(prompt: object, name: str, place: str) -> str:
    """The prompt of a row.

    Raises:
        DataError: if it is not text.
    """
    if not isinstance(prompt, str):
        kind = "missing" if prompt is None else f"not text but {type(prompt).__name__}"
        raise DataError(f"{place}: {name} is {kind}; fix or remove the row")
    return prompt


@dataclass(frozen=True, kw_only=True)
class OpenedPair:
    """A pair as it is stored, decoded, in the order of preference.

    Attributes:
        prompt: what both images were made for.
        chosen: the preferred image.
        rejected: the other image.
        probability: that the first is preferred; 0.5 for a tie.
        place: file and row.
        key: number that seeds the window of a random crop.
        bucket: height and width that both images are brought to; ``None``: the square of the resolution.
    """

    prompt: str
    chosen: Image
    rejected: Image
    probability: float
    place: str
    key: int
    bucket: Size | None = None


def open_pair(pair: StoredPair) -> OpenedPair:
    """Decodes a pair.

    Raises:
        DataError: if the prompt is not text or an image cannot be read.
    """
    prompt, images = pair.prompt, []
    for name in pair.names[1:]:
        try:
            images.append(read_image(pair.values[name], folder=pair.folder))
        except DataError as error:
            raise DataError(f"{pair.place}: {name} is {error}; remove the row") from error
    chosen, rejected = images if pair.probability >= 0.5 else reversed(images)
    return OpenedPair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        probability=max(pair.probability, 1.0 - pair.probability),
        place=pair.place,
        key=pair.key,
        bucket=pair.bucket,
    )


def content_hash(pair: StoredPair, config: PairsConfig) -> str:
    """SHA-256 of all that the labelled pair depends on, in hexadecimal digits; nothing is decoded.

    Raises:
        DataError: if the prompt is not text or a file cannot be read.
    """
    window = _window(pair, config)
    size = config.resolution if pair.bucket is None else pair.bucket
    hasher = hashlib.sha256(f"{VERSION} {pair.probability!r} {size} {window}".encode())
    for part in (pair.prompt.encode(), *(_file(pair, name) for name in pair.names[1:])):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.hexdigest()


def _file(pair: StoredPair, name: str) -> bytes:
    try:
        return read_file(pair.values[name], folder=pair.folder)
    except DataError as error:
        raise DataError(f"{pair.place}: {name} is {error}; remove the row") from error


def fitted(
    pair: OpenedPair, config: PairsConfig, *, size: tuple[int, int] | None = None
) -> tuple[tuple[Image, Image], tuple[int, int]]:
    """The images of a pair in the size that is trained on, and the rows and columns cut away of the first.

    Args:
        pair: the images as they are stored.
        config: resolution and crop.
        size: width and height that images must have where none is configured; `None`: each other's.

    Raises:
        DataError: if no resolution is configured and the sizes differ.
    """
    if config.resolution is None:
        check_size(pair, size)
        return (pair.chosen, pair.rejected), (0, 0)
    window = _window(pair, config)
    wanted = pair.bucket or (config.resolution, config.resolution)
    (first, cut), (second, _) = (fit(image, wanted, window) for image in (pair.chosen, pair.rejected))
    return (first, second), cut


def labelled(pair: OpenedPair, config: PairsConfig, *, size: tuple[int, int] | None = None) -> LabelledPair:
    """A decoded pair in the size that is trained on, as tensors; see :func:`fitted`."""
    from seedpo.data.pixels import to_tensor  # imports torch, which a look at the data does not need

    (chosen, rejected), cut = fitted(pair, config, size=size)
    return LabelledPair(
        prompt=pair.prompt,
        chosen=to_tensor(chosen),
        rejected=to_tensor(rejected),
        chosen_probability=pair.probability,
        original_size=(pair.chosen.height, pair.chosen.width),
        crop=cut,
    )


def check_size(pair: OpenedPair, size: tuple[int, int] | None) -> None:
    """Checks that both images of a pair have one size, that of the set.

    Raises:
        DataError: naming the sizes.
    """
    wanted = ((pair.rejected, pair.chosen.size, "other"), (pair.chosen, size, "first pair"))
    for image, expected, whose in wanted:
        if expected is not None and image.size != expected:
            raise DataError(
                f"{pair.place}: an image has {_size(image.size)} pixels and the {whose} {_size(expected)}; "
                "bring all to one size, for example with --set pairs.resolution=512"
            )


def image_folder(config: PairsConfig, folder: Path | None) -> Path | None:
    """Where paths of images begin: as configured, else where the data lie."""
    return folder if config.image_folder is None else Path(config.image_folder)


def _taken(values: Sequence[Any], rows: Sequence[int]) -> list[Any]:
    return [values[row] for row in rows]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _window(pair: StoredPair | OpenedPair, config: PairsConfig) -> tuple[float, float]:
    """Where the square that is kept of both images lies, down and across, 0 to 1."""
    if config.crop == "center" or config.resolution is None:
        return 0.5, 0.5
    down, across = np.random.default_rng([_CROPS, pair.key]).random(2)
    return float(down), float(across)


class PairSet:
    """The labelled pairs of a table; images are read on demand.

    Args:
        table: where they are stored.
        config: which are left out and how they become one size.

    Raises:
        DataError: if a column is missing, a label is wrong, or no pair is left.
    """

    sequential = False

    @classmethod
    def of_table(cls, table: pa.Table, *, origin: str, config: PairsConfig | None = None) -> PairSet:
        """The pairs of a table in memory, which is called ``origin`` in messages."""
        return cls(ArrowRows(table, origin=origin), config)

    def __init__(self, table: Table, config: PairsConfig | None = None) -> None:
        self.table = table
        self.config = config or PairsConfig()
        self.origin = table.origin
        self.layout = find_layout(table.columns, origin=table.origin)
        marks = [table.values(name) for name in self.layout.all_marks]
        self._probabilities = preferences(self.layout, marks, count=len(table))
        wrong = self._wrong()
        if wrong:
            others = f"; {len(wrong) - 1} more rows are wrong" if len(wrong) > 1 else ""
            seen = [values[wrong[0]] for values in marks]
            raise DataError(f"{table.place(wrong[0])}: {wrong_marks(self.layout, seen)}{others}")
        self.unlabelled = int(np.isnan(self._probabilities).sum())
        """Pairs that nobody judged; they are left out."""
        tied = self._probabilities == 0.5
        self.tied = int(tied.sum())
        """Pairs in which neither image is preferred."""
        is_used = ~np.isnan(self._probabilities) & (~tied if self.config.ties == "drop" else True)
        self.rows: NDArray[np.int64] = np.flatnonzero(is_used)
        """Row of the table of each pair."""
        if not len(self.rows):
            raise DataError(
                f"{table.origin} holds no pair with a preference: {self.tied} ties in {len(table)} rows"
                + (f", {self.unlabelled} without a label" if self.unlabelled else "")
                + ("; set pairs.ties=half to train on ties" if self.tied else "")
            )
        self._size: tuple[int, int] | None = None
        self._buckets: list[Size] | None = None
        if self.config.buckets:
            self._buckets = self._bucketed()

    def _wrong(self) -> list[int]:
        """Rows whose marks are wrong. A row that cannot be read has none: it stays, as a pair that cannot be read."""
        wrong = []
        for row in np.flatnonzero(np.isinf(self._probabilities)).tolist():
            try:
                self.table.row(row, [])
            except DataError:
                self._probabilities[row] = 1.0
            else:
                wrong.append(row)
        return wrong

    @property
    def summary(self) -> str:
        """How many pairs there are and what is left out, for the log."""
        notes = [f"{len(self)} pairs", f"{self.ties} ties left out"]
        notes += [f"{self.unlabelled} without a label left out"] if self.unlabelled else []
        notes += [f"{self.tied} ties among them"] if self.tied > self.ties else []
        notes += [f"in {len(set(self._buckets))} buckets"] if self._buckets else []
        return ", ".join(notes)

    @property
    def ties(self) -> int:
        """Ties that are left out."""
        return self.tied if self.config.ties == "drop" else 0

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> Fingerprint:
        """Number of the pairs, and digests of their prompts, labels and images; see :mod:`.fingerprints`.

        Images that lie within the table's own files are told by the sizes of those files.
        """
        prompts, *images = self.layout.content
        rows = self.rows.tolist()
        texts, labels = _taken(self.table.values(prompts), rows), self._probabilities[self.rows].tolist()
        if not all(self.table.is_light(name) for name in images):
            sizes = self.table.file_sizes()
            facts = rows_fingerprint({"prompts": texts, "labels": labels})
            return facts | ({"files": len(sizes), "bytes": sum(sizes)} if sizes else {})
        folders = [image_folder(self.config, self.table.folder(row)) for row in rows]
        first, second = (image_names(_taken(self.table.values(name), rows), folders) for name in images)
        # The label is that of the image whose name comes first, so that a swap changes labels and no images.
        columns = {
            "prompts": texts,
            "labels": [p if a <= b else 1.0 - p for a, b, p in zip(first, second, labels, strict=True)],
            "images": [sorted(names) for names in zip(first, second, strict=True)],
        }
        return rows_fingerprint(columns)

    def one_pass(self) -> Iterable[int]:
        """Numbers of all pairs."""
        return range(len(self))

    def __getitem__(self, index: int) -> LabelledPair:
        """One pair.

        Raises:
            DataError: if it cannot be read; the message names file, row and column.
        """
        pair = self.open(index)
        return labelled(pair, self.config, size=self.size() if self.config.resolution is None else None)

    def content(self, index: int) -> str:
        """SHA-256 of all that a pair depends on, in hexadecimal digits, without decoding its images."""
        return content_hash(self.stored(index), self.config)

    def prompt(self, index: int) -> str:
        """What both images of a pair were made for, without reading them.

        Raises:
            DataError: if it is not text.
        """
        row = int(self.rows[index])
        name = self.layout.content[0]
        return checked_prompt(self.table.row(row, [name])[name], name, self.table.place(row))

    def images(self, index: int) -> list[tuple[str, str]]:
        """Place and SHA-256 of both image files of a pair.

        Raises:
            DataError: if one cannot be read.
        """
        pair = self.stored(index)
        names = pair.names[1:]
        return [(f"{pair.place}: {name}", hashlib.sha256(_file(pair, name)).hexdigest()) for name in names]

    def open(self, index: int) -> OpenedPair:
        """One pair decoded, in the size that it is stored in."""
        return open_pair(self.stored(index))

    def stored(self, index: int) -> StoredPair:
        """One pair as it is stored."""
        row = int(self.rows[index])
        return StoredPair(
            values=self.table.row(row, self.layout.content),
            names=self.layout.content,
            probability=float(self._probabilities[row]),
            place=self.table.place(row),
            folder=image_folder(self.config, self.table.folder(row)),
            key=row,
            bucket=None if self._buckets is None else self._buckets[index],
        )

    def buckets(self) -> Sequence[Size] | None:
        """Height and width of the images of each pair with ``pairs.buckets``; ``None``: one size for all."""
        return self._buckets

    def image_sizes(self, index: int) -> list[Size]:
        """Height and width of both images of a pair as they are stored; nothing of one that cannot be read."""
        try:
            pair = self.stored(index)
            return [stored_size(read_file(pair.values[name], folder=pair.folder)) for name in pair.names[1:]]
        except Exception:  # Pillow's decoders raise almost anything; whoever reads the pair says what is wrong
            return []

    def _bucketed(self) -> list[Size]:
        """The bucket of each pair; of one that cannot be read the most frequent one, in which another takes its place.

        Raises:
            DataError: if no pair can be read.
        """
        resolution = self.config.resolution
        assert resolution is not None
        choices = bucket_sizes(resolution)
        rows = tqdm(range(len(self)), desc="sizes of images", unit="pair", leave=False, disable=len(self) < 2000)
        read = [self.image_sizes(row) for row in rows]
        nearest = [nearest_bucket(sizes, choices) if sizes else None for sizes in read]
        counts = Counter(size for size in nearest if size is not None)
        if not counts:
            raise DataError(f"{self.origin}: no pair can be read; `seedpo data check` says why")
        usual = counts.most_common(1)[0][0]
        return [size or usual for size in nearest]

    def size(self) -> tuple[int, int] | None:
        """Width and height of the first pair that can be read: what all must have where no resolution is configured."""
        for index in range(len(self)) if self._size is None else ():
            try:
                pair = self.open(index)
            except DataError:
                continue
            if pair.chosen.size == pair.rejected.size:
                self._size = pair.chosen.size
                break
        return self._size
