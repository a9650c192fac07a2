"""The pages of a rater (landing, joining, consent, judging) and what the judging page asks the server for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Header, Query
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from seedpo.data.images.rgb import size_of_file
from seedpo.errors import DataError
from seedpo.study.errors import INVITATION, NO_CONSENT, OLD_PAGE, Refusal
from seedpo.study.records import Rater, Show, Side
from seedpo.study.site import Site


class Vote(BaseModel):
    """An answer as the page sends it.

    Attributes:
        show: token of what was shown.
        side: the answer.
        key: the page makes one for each answer, so that an answer counts once however often it arrives.
        seconds: between the display of the images and the answer.
        best, worst: places on the screen from 0, of an answer ``ranked``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    show: str = Field(min_length=1, max_length=100)
    side: Side
    key: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")
    seconds: float | None = Field(default=None, ge=0.0, le=86_400.0)
    best: int | None = Field(default=None, ge=0, le=99)
    worst: int | None = Field(default=None, ge=0, le=99)


def rater_pages(site: Site) -> APIRouter:
    """Routes of the pages."""
    router = APIRouter()

    @router.get("/")
    def landing() -> HTMLResponse:
        return HTMLResponse(site.page("landing", is_open=site.study.settings.enrolment == "open"))

    @router.post("/join")
    def join() -> RedirectResponse:
        settings = site.study.settings
        site.slow_down(site.paces.strangers)
        if settings.enrolment != "open":
            raise Refusal(403, INVITATION)
        _, token = site.store.add_rater(days=settings.link_days)
        return RedirectResponse(f"/r/{token}", 303)

    @router.get("/r/{token}")
    def page(token: str) -> HTMLResponse:
        rater = site.rater(token)
        settings = site.study.settings
        shared = {"address": f"/r/{token}", "instructions": settings.instructions.strip()}
        if site.needs_consent(rater):
            form_token = site.secret.form_token(token)
            return HTMLResponse(site.page("consent", consent=settings.consent, form_token=form_token, **shared))
        return HTMLResponse(site.page("task", kind=settings.kind, **shared))

    @router.post("/r/{token}/consent")
    def consent(token: str, form_token: Annotated[str, Form(max_length=100)]) -> RedirectResponse:
        rater = site.rater(token)
        _require_form_token(site, token, form_token)
        site.store.consent(rater.id)
        return RedirectResponse(f"/r/{token}", 303)

    return router


def rater_tasks(site: Site) -> APIRouter:
    """Routes that the judging page calls: tasks, votes, images."""
    router = APIRouter(prefix="/r/{token}")

    @router.get("/task")
    def task(token: str) -> JSONResponse:
        rater = _agreed(site, token)
        return JSONResponse(_state(site, rater, token) | {"csrf": site.secret.form_token(token)})

    @router.post("/vote")
    def vote(token: str, answer: Vote, x_csrf_token: Annotated[str, Header(max_length=100)] = "") -> JSONResponse:
        rater = _agreed(site, token)
        _require_form_token(site, token, x_csrf_token)
        site.store.vote(
            rater.id,
            answer.show,
            answer.side,
            key=answer.key,
            seconds=answer.seconds,
            best=answer.best,
            worst=answer.worst,
        )
        return JSONResponse({"saved": True} | _state(site, rater, token))

    @router.get("/previous")
    def previous(token: str, before: Annotated[str | None, Query(max_length=100)] = None) -> JSONResponse:
        rater = _agreed(site, token)
        show = site.store.previous(rater.id, before)
        return JSONResponse({"task": show and task_of(site, show, address=f"/r/{token}")})

    @router.get("/image/{name}")
    def image(token: str, name: str) -> Response:
        rater = site.rater(token, pace=site.paces.images)
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return Response(site.image(rater, name), media_type="image/png", headers=headers)

    return router


def task_of(site: Site, show: Show, *, address: str) -> dict[str, Any]:
    """What a rater's browser gets of a show: its images, without names.

    Args:
        site: of the study.
        show: what is shown.
        address: of the rater's page, without a slash at the end.

    Returns:
        ``show``, ``form``, ``question`` (text), ``prompt``, ``layout``, ``items`` (addresses of the images of each
        candidate, in their order on the screen), ``choices`` and ``ratio`` (width / height of an image, for which the
        page reserves space).
    """
    study = site.study
    group = study.group(show.group)
    question = study.question(group.question)
    items = [group.candidates[index].images for index in show.order]
    return {
        "show": show.token,
        "form": question.form,
        "question": question.text,
        "prompt": group.prompt,
        "layout": question.shows,
        "items": [[_image_address(site, show.rater, image, address) for image in images] for images in items],
        "choices": list(question.choices),
        "ratio": _ratio(study.image(group.candidates[show.members[0]].images[0])),
    }


def _image_address(site: Site, rater_id: str, image: str, address: str) -> str:
    """The same image has the same address, so that a browser loads it once."""
    return f"{address}/image/{site.secret.image_name(rater_id, image)}"


@lru_cache(maxsize=100_000)
def _ratio(path: Path) -> float:
    # An image's file never changes: its name is a digest of its content.
    try:
        width, height = size_of_file(path.read_bytes())
        return round(width / height, 4)
    except (OSError, DataError):
        return 1.0


def _agreed(site: Site, token: str) -> Rater:
    rater = site.rater(token)
    if site.needs_consent(rater):
        raise Refusal(403, NO_CONSENT)
    return rater


def _require_form_token(site: Site, holder: str, token: str) -> None:
    if not site.secret.is_form_token(holder, token):
        raise Refusal(403, OLD_PAGE)


def _state(site: Site, rater: Rater, token: str) -> dict[str, Any]:
    """What to judge, the rater's progress, and the images that probably come next."""
    show = site.store.next(rater.id)
    progress = site.store.progress(rater.id)
    images = site.preloads[rater.id] = site.images_ahead(rater.id)
    address = f"/r/{token}"
    return {
        "task": show and task_of(site, show, address=address),
        "progress": {"done": progress.done, "total": progress.total},
        "preload": [_image_address(site, rater.id, image, address) for image in images],
    }
