"""Studies for the tests of the web application, and a rater and an owner without a browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from seedpo.study.folder import Study, create_study
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question, StudySettings
from seedpo.study.web.app import build_app
from seedpo.study.web.security import Limits

MODELS = ("zebra-xl-v3", "okapi-turbo")
CATEGORY = "kategorie-geheim"
FAST = Limits(requests=1e6, requests_burst=1e6, images=1e6, images_burst=1e6, strangers=1e6, strangers_burst=1e6)
ADDRESS = "http://127.0.0.1:8000"
ADMIN = "a-token-of-the-admin-page"

QUESTIONS = (
    Question(key="frage-eins", text="Which do you prefer?"),
    Question(key="frage-zwei", text="Which set varies more?", shows="set", choices=("left", "right", "skip")),
)


def png(shade: int, size: tuple[int, int] = (12, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (shade % 256, shade // 256, 77)).save(file, format="PNG")
    return file.getvalue()


def make_study(folder: Path, *, prompts: tuple[str, ...] = ("a fox", "a hen", "a cat"), **settings: Any) -> Study:
    """Of each prompt one pair of images and one of sets."""
    images: dict[str, bytes] = {}
    groups: list[Group] = []

    def candidate(model: str, number: int, count: int) -> Candidate:
        names = tuple(f"{model}-{number}-{count}-{index}" for index in range(count))
        images.update({name: png(len(images) + index) for index, name in enumerate(names)})
        return Candidate(source=model, images=names)

    for number, prompt in enumerate(prompts):
        for question, count in (("frage-eins", 1), ("frage-zwei", 4)):
            pair = tuple(candidate(model, number, count) for model in MODELS)
            name = f"gruppe-{question}-{number}"
            groups.append(Group(id=name, question=question, prompt=prompt, candidates=pair, category=CATEGORY))
    values = {"id": "web-tests", "questions": QUESTIONS, "raters_per_pair": 3, "title": "Foxes & hens"} | settings
    return create_study(folder, StudySettings(**values), groups, images)


def make_app(folder: Path, **options: Any) -> Starlette:
    return build_app(folder, **{"admin_token": ADMIN, "limits": FAST} | options)


@contextmanager
def browsing(app: Starlette, **options: Any) -> Iterator[TestClient]:
    with TestClient(app, base_url=ADDRESS, follow_redirects=False, **options) as client:
        yield client


def new_link(app: Starlette, **options: Any) -> str:
    """Path of a new rater's page."""
    return f"/r/{app.state.site.store.add_rater(**options)[1]}"


def vote(client: TestClient, link: str, state: dict[str, Any], side: str, *, key: str, **more: Any) -> Any:
    """Posts an answer to the task of a state; gives the response."""
    csrf = client.get(f"{link}/task").json()["csrf"]
    body = {"show": state["task"]["show"], "side": side, "key": key, "seconds": 1.5} | more
    return client.post(f"{link}/vote", json=body, headers={"X-CSRF-Token": csrf})
