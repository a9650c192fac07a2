"""The web application of a study."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from seedpo.errors import SeedpoError
from seedpo.study.admin_pages import admin_pages
from seedpo.study.folder import open_study
from seedpo.study.rater_pages import rater_pages
from seedpo.study.rater_tasks import rater_tasks
from seedpo.study.refusals import (
    BROKEN,
    ENDED_LINK,
    NO_CHOICE,
    NO_CONSENT,
    NO_PAGE,
    NOT_STORED,
    NOT_YOURS,
    UNREADABLE,
    Refusal,
)
from seedpo.study.secret import read_secret
from seedpo.study.security import Guard, Limits
from seedpo.study.site import Site, paces, templates
from seedpo.study.store import Store
from seedpo.study.store_errors import LinkEnded, NoConsent, NotOffered, NotShown

STATIC = {
    "admin.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "study.css": "text/css",
    "study.js": "text/javascript",
}

_log = logging.getLogger(__name__)


def build_app(
    study_folder: Path,
    *,
    url: str | None = None,
    admin_token: str | None = None,
    hosts: Sequence[str] = (),
    limits: Limits | None = None,
) -> FastAPI:
    """The application that serves one study.

    Args:
        study_folder: as `seedpo study create` makes it; groups that are appended later are seen.
        url: of the database; none: what the study says.
        admin_token: opens the admin page; none: one that follows from the key in the study's folder.
        hosts: names under which the server is reached, besides localhost and addresses.
        limits: on the pace and size of requests.

    Raises:
        SeedpoError: the study or its database cannot be used.
    """
    limits = limits or Limits()
    study = open_study(study_folder)
    secret = read_secret(study_folder)
    store = Store.open(study, url)
    static = {name: files("seedpo.study").joinpath("static", name).read_bytes() for name in STATIC}
    site = Site(
        store=store,
        secret=secret,
        admin_token=admin_token or secret.admin_token(),
        paces=paces(limits),
        pages=templates(),
        version=hashlib.sha256(b"".join(static.values())).hexdigest()[:12],
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.site = site
    app.add_middleware(Guard, hosts=tuple(hosts), body=limits.body)
    for router in (rater_pages(site), rater_tasks(site), admin_pages(site)):
        app.include_router(router)

    @app.get("/static/{name}")
    def static_file(name: str) -> Response:
        if name not in static:
            raise Refusal(404, NO_PAGE)
        return Response(static[name], media_type=STATIC[name], headers={"cache-control": "public, max-age=86400"})

    @app.get("/healthz")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    _answer_errors(app, site)
    return app


def _answer_errors(app: FastAPI, site: Site) -> None:
    """Every error becomes one sentence; what a rater must not read goes to the server's log."""

    def answer(request: Request, refusal: Refusal) -> Response:
        headers = {} if refusal.wait is None else {"retry-after": str(math.ceil(refusal.wait))}
        if "text/html" in request.headers.get("accept", ""):
            page = site.pages.get_template("message.html.j2").render(
                title="", version=site.version, sentence=refusal.sentence
            )
            return HTMLResponse(page, refusal.status, headers=headers)
        return JSONResponse({"error": refusal.sentence}, refusal.status, headers=headers)

    @app.exception_handler(Refusal)
    def refused(request: Request, error: Refusal) -> Response:
        return answer(request, error)

    @app.exception_handler(HTTPException)
    def no_route(request: Request, error: HTTPException) -> Response:
        return answer(request, Refusal(error.status_code, NO_PAGE if error.status_code == 404 else UNREADABLE))

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: RequestValidationError) -> Response:
        return answer(request, Refusal(422, UNREADABLE))

    @app.exception_handler(NotShown)
    def not_shown(request: Request, error: NotShown) -> Response:
        return answer(request, Refusal(409, NOT_YOURS))

    @app.exception_handler(NotOffered)
    def not_offered(request: Request, error: NotOffered) -> Response:
        return answer(request, Refusal(422, NO_CHOICE))

    @app.exception_handler(LinkEnded)
    def link_ended(request: Request, error: LinkEnded) -> Response:
        return answer(request, Refusal(410, ENDED_LINK))

    @app.exception_handler(NoConsent)
    def no_consent(request: Request, error: NoConsent) -> Response:
        return answer(request, Refusal(403, NO_CONSENT))

    @app.exception_handler(SeedpoError)
    def not_stored(request: Request, error: SeedpoError) -> Response:
        _log.error("error: %s", error)
        return answer(request, Refusal(503, NOT_STORED, wait=3.0))

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        return answer(request, Refusal(500, BROKEN))
