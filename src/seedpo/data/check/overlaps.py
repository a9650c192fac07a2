"""What is in a set twice but for small changes, and what training, validation and evaluation share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, combinations

from seedpo.data.images.near_duplicates import (
    MOST_COMPARED,
    Impression,
    Match,
    distance,
    impression,
    near_duplicates,
    normalised,
)
from seedpo.data.pairs.sets import OpenedPair

TRAINING, VALIDATION, EVALUATION = PARTS = ("training", "validation", "evaluation")

SIDES = ("chosen", "rejected")


def labels_of(pair: OpenedPair) -> tuple[str, ...]:
    """What the images of a pair are called, or the one of a like."""
    if len(pair.images) > 1:
        return SIDES
    return ("liked" if pair.probability > 0.5 else "not liked",)


MOST_PAIRS = MOST_COMPARED // 4
"""Pairs of each set whose images are compared with one another at most; of more, some that are evenly spread."""


@dataclass(frozen=True, kw_only=True)
class ImagePlace:
    """Where an image lies.

    Attributes:
        part: training or validation.
        source: number of the set that it was read from.
        pair: number of its pair in that set.
        side: 0 for the chosen image or the one of a like, 1 for the rejected one.
        label: what it is called.
        place: file and row of the pair.
        prompt: of the pair.
    """

    part: str
    source: int
    pair: int
    side: int
    label: str
    place: str
    prompt: str

    def __str__(self) -> str:
        return f"{self.place} {self.label}"


@dataclass(frozen=True, kw_only=True)
class AlikeImages:
    """Two images that are alike.

    Attributes:
        first, second: where they lie.
        distance: bits in which their hashes differ.
    """

    first: ImagePlace
    second: ImagePlace
    distance: int

    def __str__(self) -> str:
        return f"{self.second} ~ {self.first} (distance {self.distance})"


@dataclass(frozen=True, kw_only=True)
class SharedPrompt:
    """A prompt that two parts have, but for case, blanks and punctuation.

    Attributes:
        prompt: as the second part writes it.
        first, second: where each part has it first.
    """

    prompt: str
    first: str
    second: str


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What two parts share.

    Attributes:
        parts: their names.
        prompts: those that both have.
        images: of the second part, those that are like images of the first.
    """

    parts: tuple[str, str]
    prompts: list[SharedPrompt] = field(default_factory=list)
    images: list[AlikeImages] = field(default_factory=list)

    @property
    def is_leak(self) -> bool:
        """Whether something that is trained on is measured on."""
        return self.parts[0] == TRAINING and bool(self.prompts or self.images)


class Prompts:
    """The prompts of each part, told apart by :func:`.normalised`."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, tuple[str, str]]] = {}

    def add(self, part: str, prompt: str, place: str) -> None:
        """Notes a prompt; where it was there before, only that it is there."""
        self._parts.setdefault(part, {}).setdefault(normalised(prompt), (prompt, place))

    def shared(self, first: str, second: str) -> list[SharedPrompt]:
        """The prompts of the second part that the first has too."""
        places = self._parts.get(first, {})
        return [
            SharedPrompt(prompt=prompt, first=places[text][1], second=place)
            for text, (prompt, place) in self._parts.get(second, {}).items()
            if text and text in places
        ]

    def __len__(self) -> int:
        """Prompts that differ, of all parts together."""
        return len(set().union(*self._parts.values()))

    def count(self, part: str) -> int:
        """Prompts of a part that differ."""
        return len(self._parts.get(part, {}))


@dataclass(frozen=True, kw_only=True)
class AlikePairs:
    """Two pairs of one prompt with images that are alike.

    Attributes:
        first: where the chosen image of the earlier pair lies.
        second: where the image of the later pair lies that is like it.
        is_turned: whether they are labelled differently.
    """

    first: ImagePlace
    second: ImagePlace
    is_turned: bool

    def __str__(self) -> str:
        return f"{self.second.place} {'!~' if self.is_turned else '~'} {self.first.place}"


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Images that are alike, by what that means.

    Attributes:
        across: in two parts.
        other_prompts: in one part, with different prompts.
        within_pairs: the two images of one pair.
        pairs: pairs of one prompt and one part that are alike.
    """

    across: list[AlikeImages] = field(default_factory=list)
    other_prompts: list[AlikeImages] = field(default_factory=list)
    within_pairs: list[AlikeImages] = field(default_factory=list)
    pairs: list[AlikePairs] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """What is remembered of a pair. Its label: 0 for a tie, 1 for a preference or a like, -1 for an image not liked."""

    places: tuple[ImagePlace, ...]
    impressions: tuple[Impression, ...]
    label: int


class Images:
    """Impressions of the images of each part."""

    def __init__(self) -> None:
        self._pairs: list[_Pair] = []

    def __len__(self) -> int:
        return sum(len(pair.places) for pair in self._pairs)

    def add(self, pair: OpenedPair, *, part: str, source: int, number: int) -> None:
        """Notes the images of a pair."""
        places = (
            ImagePlace(
                part=part, source=source, pair=number, side=side, label=label, place=pair.place, prompt=pair.prompt
            )
            for side, label in enumerate(labels_of(pair))
        )
        self._pairs.append(
            _Pair(
                places=tuple(places),
                impressions=tuple(map(impression, pair.images)),
                label=(pair.probability > 0.5) - (pair.probability < 0.5),
            )
        )

    def alike(self) -> Alike:
        """All images that are alike, by what that means."""
        # Those of the training first, so that an image of the validation is matched with them before its own kind.
        pairs = sorted(self._pairs, key=lambda pair: pair.places[0].part != TRAINING)
        places = [place for pair in pairs for place in pair.places]
        matches = near_duplicates([entry for pair in pairs for entry in pair.impressions])
        found = [
            AlikeImages(first=places[match.earlier], second=places[match.later], distance=match.distance)
            for match in matches
        ]
        return Alike(
            across=_nearest(entry for entry in found if entry.first.part != entry.second.part),
            other_prompts=[entry for entry in found if _has_another_prompt(entry)],
            within_pairs=[
                AlikeImages(first=pair.places[0], second=pair.places[1], distance=bits)
                for pair in pairs
                if len(pair.places) > 1 and (bits := distance(*pair.impressions)) is not None
            ],
            pairs=_alike_pairs(pairs, _groups(len(places), matches)),
        )


def _alike_pairs(pairs: Sequence[_Pair], likeness: Sequence[int]) -> list[AlikePairs]:
    """Pairs of one prompt whose images are alike, each with the first such pair."""
    seen: dict[tuple[str, str, frozenset[int]], int] = {}
    found: list[AlikePairs] = []
    ends = list(accumulate((len(pair.places) for pair in pairs), initial=0))
    for number, pair in enumerate(pairs):
        place, groups = pair.places[0], likeness[ends[number] : ends[number + 1]]
        first = seen.setdefault((place.part, normalised(place.prompt), frozenset(groups)), number)
        if first == number or len(set(groups)) < len(groups):
            continue
        earlier = pairs[first]
        side = int(likeness[ends[first]] != groups[0])
        is_turned = pair.label != earlier.label or (pair.label != 0 and side == 1)
        found.append(AlikePairs(first=earlier.places[0], second=pair.places[side], is_turned=is_turned))
    return found


def _has_another_prompt(entry: AlikeImages) -> bool:
    first, second = entry.first, entry.second
    return first.part == second.part and normalised(first.prompt) != normalised(second.prompt)


def _groups(count: int, matches: Iterable[Match]) -> list[int]:
    """A number for each image, the same for those that a chain of matches joins."""
    parents = list(range(count))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for match in matches:
        parents[root(match.later)] = root(match.earlier)
    return [root(number) for number in range(count)]


def overlaps(prompts: Prompts, across: Sequence[AlikeImages]) -> list[Overlap]:
    """What each two of the parts share, the training's first; those that share nothing are left out.

    Args:
        prompts: of all parts.
        across: images of one part that are like images of another.
    """
    found = [
        Overlap(
            parts=parts,
            prompts=prompts.shared(*parts),
            images=[entry for entry in across if (entry.first.part, entry.second.part) == parts],
        )
        for parts in combinations(PARTS, 2)
    ]
    return [overlap for overlap in found if overlap.prompts or overlap.images]


def _nearest(images: Iterable[AlikeImages]) -> list[AlikeImages]:
    """For each second image the one that is most like it."""
    nearest: dict[ImagePlace, AlikeImages] = {}
    for entry in images:
        if entry.distance < nearest.setdefault(entry.second, entry).distance:
            nearest[entry.second] = entry
    return list(nearest.values())
