"""The pages of the study's owner: progress, links, votes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Literal, TypeVar

from pydantic import Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from seedpo.study.errors import NO_ADMIN, NO_RATER, Refusal
from seedpo.study.export import votes_csv
from seedpo.study.records import Judgement, rater_labels
from seedpo.study.status import aim_words, question_status, rater_row, rater_status
from seedpo.study.web.bodies import Posted, read_form, read_query
from seedpo.study.web.sessions import SESSION_SECONDS
from seedpo.study.web.site import Site, wants_page

COOKIE = "seedpo_admin"
WRONG_TOKEN = "This is not the token that the server printed when it started."

RATERS = 200
"""Raters on one page."""

_PRINTABLE = r"^[^\x00-\x1f\x7f]*$"


class Paged(Posted):
    """Which raters are listed."""

    page: int = Field(default=1, ge=1, le=10**6)


class Login(Posted):
    """The form of the log-in page."""

    token: str = Field(max_length=200)


class Owned(Posted):
    """A form of the admin page."""

    form_token: str = Field(default="", max_length=100)


class Asked(Posted):
    """The rater about whom something is asked."""

    rater: str = Field(max_length=200, pattern=_PRINTABLE)


class NewLinks(Owned):
    """How many links are made, and the note beside them."""

    number: int = Field(default=1, ge=1, le=500)
    label: str = Field(default="", max_length=200, pattern=_PRINTABLE)


class Chosen(Owned):
    """The rater to whom something is done."""

    rater: str = Field(max_length=200, pattern=_PRINTABLE)


class Deleted(Chosen):
    """The rater whose data are deleted; the form that says so comes after a question."""

    sure: Literal["yes"]


Form = TypeVar("Form", bound=Owned)


def admin_pages(site: Site) -> list[Route]:
    """Routes of the owner. Forms carry a form token; requests with the right bearer token need none."""
    return [*_login_routes(site), *_action_routes(site)]


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _session(request: Request) -> str:
    return request.cookies.get(COOKIE, "")


def _is_admin(site: Site, request: Request) -> bool:
    return site.is_admin_token(_bearer(request)) or site.sessions.holds(_session(request))


async def _require_admin(site: Site, request: Request) -> None:
    """Refuses whoever is not the owner, and takes a wrong token or session from the pace of guesses."""
    if not _is_admin(site, request):
        if _bearer(request) or _session(request):
            await site.slow_down_guess(request)
        raise Refusal(401, NO_ADMIN)


async def _owned_form(site: Site, request: Request, expected: type[Form]) -> Form:
    """A form that the owner sent from the admin page, or from a script that knows the token."""
    await _require_admin(site, request)
    form = await read_form(request, expected)
    if not site.is_admin_token(_bearer(request)):
        site.require_form_token(_session(request), form.form_token)
    return form


def _form_token(site: Site, request: Request) -> str:
    return site.secret.form_token(_session(request))


async def _overview(
    site: Site, request: Request, *, links: Sequence[str] = (), page: int = 1, note: str = ""
) -> Response:
    """The admin page."""

    def draw() -> str:
        figures = site.store.figures()
        status = rater_status(site.store, figures)
        pages = max(1, math.ceil(len(status) / RATERS))
        here = min(page, pages)
        return site.page(
            "admin",
            settings=site.settings,
            form_token=_form_token(site, request),
            raters=[rater_row(line) for line in status[(here - 1) * RATERS : here * RATERS]],
            page=here,
            pages=pages,
            questions=question_status(site.store.study, figures),
            aim=aim_words(site.store, figures),
            links=links,
            note=note,
        )

    return HTMLResponse(await site.read(draw))


def _question(site: Site, form_token: str, name: str) -> str:
    """The page that asks whether a rater's data shall be deleted."""
    rater = next((rater for rater in site.store.raters() if rater.id == name), None)
    if rater is None:
        raise Refusal(404, NO_RATER)
    figures = site.store.figures().raters.get(name)
    return site.page("forget", form_token=form_token, rater=rater, answered=figures.answered if figures else 0)


def _without_cookie(answer: Response) -> Response:
    answer.delete_cookie(COOKIE, path="/admin", httponly=True, samesite="strict")
    return answer


def _forget(site: Site, name: str) -> str:
    """Deletes a rater's data; says what was deleted."""
    forgotten = site.store.forget(name)
    note = f"{forgotten.rater} is deleted, with {forgotten.answers} answers to {forgotten.shows} tasks."
    return note if site.store.wipe() else f"{note} The database was busy: run VACUUM in it to overwrite the bytes."


async def _csv(
    site: Site, widest: int, pages: Iterator[list[Judgement]], page: Sequence[Judgement]
) -> AsyncIterator[str]:
    """A table of all answers, page by page, so that a large study needs no more memory than a small one."""
    yield votes_csv(page, widest=widest)
    while page := await site.read(next, pages, ()):
        yield await site.reads.run(partial(votes_csv, page, widest=widest, head=False))


def _login_routes(site: Site) -> list[Route]:
    def closed(refusal: Refusal, sentence: str = "") -> Response:
        page = site.page("login", error=sentence)
        return _without_cookie(HTMLResponse(page, refusal.status, headers=refusal.headers))

    async def page(request: Request) -> Response:
        try:
            await _require_admin(site, request)
        except Refusal as refusal:  # whoever is slowed down may still log in
            return closed(refusal, refusal.sentence if refusal.wait else "")
        return await _overview(site, request, page=read_query(request, Paged).page)

    async def login(request: Request) -> Response:
        token = (await read_form(request, Login)).token
        if not site.is_admin_token(token):
            try:
                await site.slow_down_guess(request)
            except Refusal as refusal:
                return closed(refusal, refusal.sentence)
            return closed(Refusal(401, NO_ADMIN), WRONG_TOKEN)
        answer = RedirectResponse("/admin", 303)
        answer.set_cookie(
            COOKIE,
            await site.files.run(site.sessions.begin),
            max_age=SESSION_SECONDS,
            path="/admin",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    async def logout(request: Request) -> Response:
        await _owned_form(site, request, Owned)
        await site.files.run(site.sessions.end, _session(request))
        return _without_cookie(RedirectResponse("/admin", 303))

    return [
        Route("/admin", page),
        Route("/admin/login", login, methods=["POST"]),
        Route("/admin/logout", logout, methods=["POST"]),
    ]


def _action_routes(site: Site) -> list[Route]:
    async def links(request: Request) -> Response:
        form = await _owned_form(site, request, NewLinks)
        labels = rater_labels(form.label, form.number)
        raters = await site.write(partial(site.store.add_raters, labels, days=site.settings.link_days))
        new_links = [f"{str(request.base_url).rstrip('/')}/r/{token}" for _, token in raters]
        if wants_page(request):
            return await _overview(site, request, links=new_links)
        return JSONResponse({"links": new_links})

    def rater_action(act: Callable[[str], object]) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            rater = (await _owned_form(site, request, Chosen)).rater
            await site.write(act, rater)
            site.visitors.forget(rater)
            return RedirectResponse("/admin", 303)

        return handle

    async def question(request: Request) -> Response:
        await _require_admin(site, request)
        rater = read_query(request, Asked).rater
        return HTMLResponse(await site.read(_question, site, _form_token(site, request), rater))

    async def forget(request: Request) -> Response:
        rater = (await _owned_form(site, request, Deleted)).rater
        note = await site.write(_forget, site, rater)
        site.visitors.forget(rater)
        if wants_page(request):
            return await _overview(site, request, note=note)
        return JSONResponse({"deleted": note})

    async def votes(request: Request) -> Response:
        await _require_admin(site, request)
        widest = await site.read(site.store.widest_view)
        pages = site.store.pages()
        page = await site.read(next, pages, ())
        headers = {"content-disposition": 'attachment; filename="votes.csv"'}
        return StreamingResponse(_csv(site, widest, pages, page), media_type="text/csv", headers=headers)

    return [
        Route("/admin/links", links, methods=["POST"]),
        Route("/admin/revoke", rater_action(site.store.revoke), methods=["POST"]),
        Route("/admin/exclude", rater_action(site.store.exclude), methods=["POST"]),
        Route("/admin/include", rater_action(partial(site.store.exclude, excluded=False)), methods=["POST"]),
        Route("/admin/forget", question),
        Route("/admin/forget", forget, methods=["POST"]),
        Route("/admin/votes.csv", votes),
    ]
