"""A small study and the servers that show it to a browser."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uvicorn
from PIL import Image, ImageDraw

from seedpo.study.app import build_app
from seedpo.study.folder import Study, create_study
from seedpo.study.records import Candidate, Group, Judgement
from seedpo.study.settings import Question, StudySettings
from seedpo.study.store import Store

SECRET = "unspeakable-model"
"""Part of every model's name: it must never reach the browser."""

ADMIN_TOKEN = "for-the-tests-of-the-browser-only"

QUESTIONS = (
    Question(key="preference", text="Which image do you prefer?"),
    Question(key="diversity", text="Which three differ more from the first?", shows="set"),
)


def picture(number: int) -> bytes:
    """A PNG that differs from any other: a numbered colour."""
    image = Image.new("RGB", (256, 256), ((number * 53) % 256, (number * 97) % 256, (number * 29) % 256))
    ImageDraw.Draw(image).text((96, 96), str(number), fill="white", font_size=64)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def make_study(folder: Path, *, pairs: int = 5, sets: int = 1, enrolment: Literal["links", "open"] = "links") -> Study:
    """Pairs of images and of sets, each with a prompt of its own."""
    images: dict[str, bytes] = {}

    def candidate(source: str, count: int) -> Candidate:
        names = [f"image {len(images) + number}" for number in range(count)]
        images.update({name: picture(len(images) + number) for number, name in enumerate(names)})
        return Candidate(source=f"{SECRET}-{source}", images=tuple(names))

    kinds = [("preference", 1)] * pairs + [("diversity", 4)] * sets
    groups = [
        Group(
            id=f"g{number}",
            question=question,
            prompt=f"prompt number {number} with <b>signs</b> & words",
            candidates=(candidate("a", count), candidate("b", count)),
        )
        for number, (question, count) in enumerate(kinds)
    ]
    settings = StudySettings(
        id="browser",
        kind="study",
        questions=QUESTIONS,
        raters_per_pair=8,
        enrolment=enrolment,
        consent="I take part\nof my own will.",
        instructions="Look at every\nimage.\n\nThen:\n- choose",
    )
    return create_study(folder, settings, groups, images)


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
        """All that is stored."""
        store = Store.open(self.study)
        try:
            return store.judgements()
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
