"""The web application of a study."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from seedpo.errors import SeedpoError
from seedpo.study import errors
from seedpo.study.admin_pages import admin_pages
from seedpo.study.errors import Refusal
from seedpo.study.folder import open_study
from seedpo.study.rater_pages import rater_pages, rater_tasks
from seedpo.study.security import Guard, Limits, read_secret
from seedpo.study.site import Paces, Site, templates
from seedpo.study.store import Store

STATIC = {
    "admin.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "saving.js": "text/javascript",
    "study.css": "text/css",
    "study.js": "text/javascript",
}

REFUSALS: Mapping[type[Exception], Refusal] = {
    RequestValidationError: Refusal(422, errors.UNREADABLE),
    errors.NotShown: Refusal(409, errors.NOT_YOURS),
    errors.NotOffered: Refusal(422, errors.NO_CHOICE),
    errors.LinkEnded: Refusal(410, errors.ENDED_LINK),
    errors.NoConsent: Refusal(403, errors.NO_CONSENT),
    SeedpoError: Refusal(503, errors.NOT_STORED, wait=3.0),
    Exception: Refusal(500, errors.BROKEN),
}
"""How each error is answered. What a rater must not read goes to the server's log."""

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
        study_folder: made by `seedpo study create`; groups that are appended later appear.
        url: of the database; `None`: the study's own.
        admin_token: opens the admin page; `None`: derived from the key in the study's folder.
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
        paces=Paces(limits),
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
            raise Refusal(404, errors.NO_PAGE)
        return Response(static[name], media_type=STATIC[name], headers={"cache-control": "public, max-age=86400"})

    @app.get("/healthz")
    def health() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    _answer_errors(app, site)
    return app


def _answer_errors(app: FastAPI, site: Site) -> None:
    """Answers every error with one sentence, as a page or as JSON."""

    def answer(request: Request, refusal: Refusal) -> Response:
        headers = {} if refusal.wait is None else {"retry-after": str(math.ceil(refusal.wait))}
        if "text/html" in request.headers.get("accept", ""):
            template = site.pages.get_template("message.html.j2")
            page = template.render(title="", version=site.version, sentence=refusal.sentence)
            return HTMLResponse(page, refusal.status, headers=headers)
        return JSONResponse({"error": refusal.sentence}, refusal.status, headers=headers)

    @app.exception_handler(Refusal)
    def refused(request: Request, error: Refusal) -> Response:
        return answer(request, error)

    @app.exception_handler(HTTPException)
    def no_route(request: Request, error: HTTPException) -> Response:
        sentence = errors.NO_PAGE if error.status_code == 404 else errors.UNREADABLE
        return answer(request, Refusal(error.status_code, sentence))

    def handler(refusal: Refusal) -> Callable[[Request, Exception], Response]:
        def handle(request: Request, error: Exception) -> Response:
            if refusal.status == 503:
                _log.error("error: %s", error)
            return answer(request, refusal)

        return handle

    for kind, refusal in REFUSALS.items():
        app.add_exception_handler(kind, handler(refusal))
