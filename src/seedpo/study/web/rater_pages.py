"""The pages of a rater (landing, joining, consent, judging) and what the judging page asks the server for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from seedpo.study.errors import INVITATION, NO_CONSENT, Refusal
from seedpo.study.records import Show, Side
from seedpo.study.votes.book import Turn
from seedpo.study.web.bodies import Posted, read_form, read_json, read_query
from seedpo.study.web.site import Site

SHOW = r"^[A-Za-z0-9_-]{1,100}$"
"""What tokens of shows look like."""


class Vote(Posted):
    """An answer as the page sends it.

    Attributes:
        show: token of what was shown.
        side: the answer.
        key: the page makes one for each answer, so that an answer counts once however often it arrives.
        seconds: between the display of the images and the answer.
        best, worst: places on the screen from 0, of an answer ``ranked``.
    """

    show: str = Field(pattern=SHOW)
    side: Side
    key: str = Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")
    seconds: float | None = Field(default=None, ge=0.0, le=86_400.0)
    best: int | None = Field(default=None, ge=0, le=99)
    worst: int | None = Field(default=None, ge=0, le=99)


class Consent(Posted):
    """The form below the consent text."""

    form_token: str = Field(max_length=100)


class Before(Posted):
    """The show before which another one is wanted; `None`: before all that is open."""

    before: str | None = Field(default=None, pattern=SHOW)


def rater_pages(site: Site) -> list[Route]:
    """Routes of the pages."""

    async def landing(_: Request) -> Response:
        return HTMLResponse(site.page("landing", is_open=site.settings.enrolment == "open"))

    async def join(_: Request) -> Response:
        site.slow_down(site.paces.strangers)
        if site.settings.enrolment != "open":
            raise Refusal(403, INVITATION)
        _id, token = await site.write(partial(site.store.add_rater, days=site.settings.link_days))
        return RedirectResponse(f"/r/{token}", 303)

    async def page(request: Request) -> Response:
        token = request.path_params["token"]
        rater = await site.rater(token)
        shared = {"address": f"/r/{token}", "instructions": site.settings.instructions.strip()}
        if site.needs_consent(rater):
            form_token = site.secret.form_token(token)
            return HTMLResponse(site.page("consent", consent=site.settings.consent, form_token=form_token, **shared))
        return HTMLResponse(site.page("task", kind=site.settings.kind, **shared))

    async def consent(request: Request) -> Response:
        token = request.path_params["token"]
        rater = await site.rater(token)
        site.require_form_token(token, (await read_form(request, Consent)).form_token)
        await site.stored(site.store.consent_soon(rater.id))
        site.visitors.forget(rater.id)
        return RedirectResponse(f"/r/{token}", 303)

    return [
        Route("/", landing),
        Route("/join", join, methods=["POST"]),
        Route("/r/{token}", page),
        Route("/r/{token}/consent", consent, methods=["POST"]),
    ]


def rater_tasks(site: Site) -> list[Route]:
    """Routes that the judging page calls: tasks, votes, images."""

    async def task(request: Request) -> Response:
        token = request.path_params["token"]
        rater_id = await site.rater_id(token)
        turn = await site.stored(site.store.turn_soon(rater_id))
        state = await _state(site, rater_id, turn, f"/r/{token}")
        return JSONResponse(state | {"csrf": site.secret.form_token(token)})

    async def vote(request: Request) -> Response:
        token = request.path_params["token"]
        rater_id = await site.rater_id(token)
        site.require_form_token(token, request.headers.get("x-csrf-token", ""))
        answer = dict(await read_json(request, Vote))
        show, side = answer.pop("show"), answer.pop("side")
        turn = await site.stored(site.store.vote_soon(rater_id, show, side, **answer))
        return JSONResponse({"saved": True} | await _state(site, rater_id, turn, f"/r/{token}"))

    async def previous(request: Request) -> Response:
        token = request.path_params["token"]
        rater = await site.rater(token)
        if site.needs_consent(rater):
            raise Refusal(403, NO_CONSENT)
        show = await site.read(site.store.previous, rater.id, read_query(request, Before).before)
        return JSONResponse({"task": show and await task_of(site, show, address=f"/r/{token}")})

    async def image(request: Request) -> Response:
        content = await site.image(request.path_params["token"], request.path_params["name"])
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return Response(content, media_type="image/png", headers=headers)

    return [
        Route("/r/{token}/task", task),
        Route("/r/{token}/vote", vote, methods=["POST"]),
        Route("/r/{token}/previous", previous),
        Route("/r/{token}/image/{name}", image),
    ]


async def task_of(site: Site, show: Show, *, address: str) -> dict[str, Any]:
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
    study = await site.study_with(group=show.group)
    group = study.group(show.group)
    question = study.question(group.question)
    items = [group.candidates[index].images for index in show.order]
    return {
        "show": show.token,
        "form": question.form,
        "question": question.text,
        "prompt": group.prompt,
        "layout": question.shows,
        "items": [_addresses(site, show.rater, images, address) for images in items],
        "choices": list(question.choices),
        "ratio": await site.gallery.ratio(study.image(group.candidates[show.members[0]].images[0])),
    }


def _addresses(site: Site, rater_id: str, images: Iterable[str], address: str) -> list[str]:
    """Addresses of images. The same image has the same one for a rater, so that a browser loads it once."""
    return [f"{address}/image/{site.secret.image_name(rater_id, image)}" for image in images]


async def _state(site: Site, rater_id: str, turn: Turn, address: str) -> dict[str, Any]:
    """What to judge, the rater's progress, and the images that probably come next."""
    images: set[str] = set()
    for proposal in turn.upcoming:
        group = (await site.study_with(group=proposal.group)).group(proposal.group)
        images.update(image for index in proposal.order for image in group.candidates[index].images)
    return {
        "task": turn.show and await task_of(site, turn.show, address=address),
        "progress": {"done": turn.progress.done, "total": turn.progress.total},
        # The order of the next images must not tell their sides.
        "preload": sorted(_addresses(site, rater_id, images, address)),
    }
