"""What a rater's browser is told of a show: two sides without names."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from seedpo.study.assignment import Proposal
from seedpo.study.folder import Study
from seedpo.study.records import Show
from seedpo.study.secret import Secret


def task_of(study: Study, show: Show, *, secret: Secret, address: str) -> dict[str, Any]:
    """A show as JSON.

    Args:
        study: that it belongs to.
        show: what is shown.
        secret: that names images.
        address: of the rater's page, without a slash at the end.

    Returns:
        ``show``, ``question`` (text), ``prompt``, ``layout``, ``left`` and ``right`` (addresses of images), ``choices``
        and ``ratio`` (width / height of the first image, by which the page reserves the space).
    """
    group = study.group(show.group)
    question = study.question(group.question)
    first, second = group.candidates[show.first].images, group.candidates[show.second].images
    left, right = (second, first) if show.flipped else (first, second)
    return {
        "show": show.token,
        "question": question.text,
        "prompt": group.prompt,
        "layout": question.shows,
        "left": [image_address(image, show.rater, secret=secret, address=address) for image in left],
        "right": [image_address(image, show.rater, secret=secret, address=address) for image in right],
        "choices": list(question.choices),
        "ratio": _ratio(study.image(first[0])),
    }


def images_ahead(study: Study, proposals: Iterable[Proposal], rater: str, *, secret: Secret, address: str) -> list[str]:
    """Addresses of the images that a rater's browser is likely to need next, in the order of their ids.

    That order says nothing of sides or candidates.
    """
    images = {
        image
        for proposal in proposals
        for index in (proposal.first, proposal.second)
        for image in study.group(proposal.group).candidates[index].images
    }
    return [image_address(image, rater, secret=secret, address=address) for image in sorted(images)]


def image_address(image: str, rater: str, *, secret: Secret, address: str) -> str:
    """Where a rater's browser finds an image; the same image has the same address, so that it is loaded once."""
    return f"{address}/image/{secret.image_key(rater, image)}"


@lru_cache(maxsize=100_000)
def _ratio(path: Path) -> float:
    # The content of an image's file is fixed by its name, so that what was read once stays true.
    try:
        with Image.open(path) as image:
            return round(image.width / image.height, 4)
    except OSError:
        return 1.0
