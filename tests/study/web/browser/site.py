"""A small study and the servers that show it to a browser."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import uvicorn
from PIL import Image, ImageDraw

from seedpo.study.folder import Study, create_study
from seedpo.study.records import Candidate, Group, Judgement
from seedpo.study.settings import Question, StudySettings
from seedpo.study.votes.store import Store
from seedpo.study.web.app import build_app

SECRET = "unspeakable-model"
"""Part of every model's name: it must never reach the browser."""

ADMIN_TOKEN = "for-the-tests-of-the-browser-only"

QUESTIONS = (
    Question(key="preference", text="Which image do you prefer?"),
    Question(key="diversity", text="Which three differ more from the first?", shows="set"),
)

LIKE = Question(key="like", text="Do you like it?", form="single")
BEST = Question(key="best", text="Which is best, which worst?", form="best-worst", choices=("ranked", "bad", "skip"))


def picture(number: int, *, ratio: float = 1.0) -> bytes:
    """A PNG that differs from any other: a numbered colour, 256 pixels high."""
    color = ((number * 53) % 256, (number * 97) % 256, (number * 29) % 256)
    image = Image.new("RGB", (round(256 * ratio), 256), color)
    ImageDraw.Draw(image).text((96, 96), str(number), fill="white", font_size=64)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


@dataclass(frozen=True)
class Asked:
    """One group of a study.

    Attributes:
        question: what is asked of it.
        candidates: how many it has.
        ratio: width / height of its images.
    """

    question: Question
    candidates: int = 2
    ratio: float = 1.0


def make_study(folder: Path, *, pairs: int = 5, sets: int = 1, enrolment: Literal["links", "open"] = "links") -> Study:
    """Pairs of images and of sets, each with a prompt of its own."""
    images, four = map(Asked, QUESTIONS)
    return study_of(folder, [images] * pairs + [four] * sets, questions=QUESTIONS, enrolment=enrolment)


def study_of(folder: Path, asked: Sequence[Asked], **settings: Any) -> Study:
    """A study of any groups, each with a prompt of its own; sets have four images."""
    images: dict[str, bytes] = {}

    def candidate(source: str, count: int, ratio: float) -> Candidate:
        names = [f"image {len(images) + number}" for number in range(count)]
        images.update({name: picture(len(images) + number, ratio=ratio) for number, name in enumerate(names)})
        return Candidate(source=f"{SECRET}-{source}", images=tuple(names))

    groups = [
        Group(
            id=f"g{number}",
            question=row.question.key,
            prompt=f"prompt number {number} with <b>signs</b> & words",
            candidates=tuple(
                candidate("abcdef"[index], 4 if row.question.shows == "set" else 1, row.ratio)
                for index in range(row.candidates)
            ),
        )
        for number, row in enumerate(asked)
    ]
    values = {
        "id": "browser",
        "kind": "study",
        "questions": tuple({row.question.key: row.question for row in asked}.values()),
        "raters_per_pair": 8,
        "consent": "I take part\nof my own will.",
        "instructions": "Look at every\nimage.\n\nThen:\n- choose",
    }
    return create_study(folder, StudySettings(**values | settings), groups, images)


@dataclass
class Site:
    """A study that is served.

    Attributes:
        study: what is served.
        url: its address.
    """

    study: Study
    url: str

    def link(self) -> str:
        """A personal link of a new rater."""
        store = Store.open(self.study)
        _, token = store.add_rater("somebody", days=1.0)
        store.close()
        return f"{self.url}/r/{token}"

    def judgements(self) -> list[Judgement]:
        """All that is stored, in the order in which it was shown."""
        store = Store.open(self.study)
        try:
            return sorted(store.judgements(), key=lambda judgement: judgement.show.number)
        finally:
            store.close()


@contextmanager
def served(study: Study) -> Iterator[Site]:
    """The application in a thread of this process."""
    app = build_app(study.folder, admin_token=ADMIN_TOKEN)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at once"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Site(study=study, url=f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(10.0)
