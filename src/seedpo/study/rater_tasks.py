"""What the page of a rater asks for: the pair to judge, its images, the one before; and where it leaves answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from seedpo.study.records import Show, Side
from seedpo.study.refusals import NO_CONSENT, NO_IMAGE, OLD_PAGE, Refusal
from seedpo.study.site import Site
from seedpo.study.store_records import Rater
from seedpo.study.tasks import images_ahead, task_of


class Vote(BaseModel):
    """An answer as the page sends it.

    Attributes:
        show: token of what was shown.
        side: the answer.
        key: made by the page for each answer, so that the same answer counts once however often it arrives.
        seconds: between the display of both images and the answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    show: str = Field(min_length=1, max_length=100)
    side: Side
    key: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")
    seconds: float | None = Field(default=None, ge=0.0, le=86_400.0)


def rater_tasks(site: Site) -> APIRouter:
    """Their routes."""
    router = APIRouter(prefix="/r/{token}")

    @router.get("/task")
    def task(token: str) -> JSONResponse:
        rater = _agreed(site, token)
        return JSONResponse(_state(site, rater, token) | {"csrf": site.secret.form_token(token)})

    @router.post("/vote")
    def vote(token: str, answer: Vote, x_csrf_token: Annotated[str, Header(max_length=100)] = "") -> JSONResponse:
        rater = _agreed(site, token)
        if not site.secret.is_form_token(token, x_csrf_token):
            raise Refusal(403, OLD_PAGE)
        site.store.vote(rater.id, answer.show, answer.side, key=answer.key, seconds=answer.seconds)
        return JSONResponse({"saved": True} | _state(site, rater, token))

    @router.get("/previous")
    def previous(token: str, before: Annotated[str | None, Query(max_length=100)] = None) -> JSONResponse:
        rater = _agreed(site, token)
        show = site.store.previous(rater.id, before)
        return JSONResponse({"task": _task(site, show, token)})

    @router.get("/ahead")
    def ahead(token: str) -> JSONResponse:
        rater = _agreed(site, token)
        study, likely = site.study, site.store.upcoming(rater.id)
        return JSONResponse(
            {"preload": images_ahead(study, likely, rater.id, secret=site.secret, address=f"/r/{token}")}
        )

    @router.get("/image/{key}")
    def image(token: str, key: str) -> Response:
        rater = site.rater(token, pace=site.paces.images)
        name = site.secret.image_of(rater.id, key)
        if name is None or site.needs_consent(rater):
            raise Refusal(404, NO_IMAGE)
        try:
            content = site.study.image(name).read_bytes()
        except (OSError, LookupError, ValueError):
            raise Refusal(404, NO_IMAGE) from None
        return Response(content, media_type="image/png", headers={"cache-control": "private, max-age=86400, immutable"})

    return router


def _agreed(site: Site, token: str) -> Rater:
    rater = site.rater(token)
    if site.needs_consent(rater):
        raise Refusal(403, NO_CONSENT)
    return rater


def _task(site: Site, show: Show | None, token: str) -> dict[str, Any] | None:
    return None if show is None else task_of(site.study, show, secret=site.secret, address=f"/r/{token}")


def _state(site: Site, rater: Rater, token: str) -> dict[str, Any]:
    """The pair to judge and how far the rater is."""
    task = _task(site, site.store.next(rater.id), token)
    progress = site.store.progress(rater.id)
    return {"task": task, "progress": {"done": progress.done, "total": progress.total}}
