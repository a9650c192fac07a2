"""The web application of a study."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from seedpo.errors import SeedpoError
from seedpo.servers.guard import SEALED, Guard
from seedpo.study import errors
from seedpo.study.errors import Refusal
from seedpo.study.folder import Study, open_study
from seedpo.study.votes.store import Store
from seedpo.study.web.admin_pages import admin_pages
from seedpo.study.web.gallery import Gallery
from seedpo.study.web.rater_pages import rater_pages, rater_tasks
from seedpo.study.web.security import Limits, read_secret
from seedpo.study.web.sessions import Sessions
from seedpo.study.web.site import Paces, Site, templates, wants_page
from seedpo.study.web.threads import Outage, Threads
from seedpo.study.web.visitors import Visitors

STATIC = {
    "admin.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "saving.js": "text/javascript",
    "study.css": "text/css",
    "study.js": "text/javascript",
    "view.js": "text/javascript",
}

REFUSALS: Mapping[type[Exception], Refusal] = {
    errors.UnknownRater: Refusal(404, errors.NO_RATER),
    errors.NotShown: Refusal(409, errors.NOT_YOURS),
    errors.NotOffered: Refusal(422, errors.NO_CHOICE),
    errors.LinkEnded: Refusal(410, errors.ENDED_LINK),
    errors.NoConsent: Refusal(403, errors.NO_CONSENT),
    SeedpoError: Refusal(503, errors.NOT_STORED, wait=3.0),
    Exception: Refusal(500, errors.BROKEN),
}
"""How each error is answered. What a rater must not read goes to the server's log."""


def build_app(
    study_folder: Path,
    *,
    url: str | None = None,
    admin_token: str | None = None,
    hosts: Sequence[str] = (),
    limits: Limits | None = None,
    verify: bool = True,
) -> Starlette:
    """The application that serves one study.

    Args:
        study_folder: made by `seedpo study create`; groups that are appended later appear.
        url: of the database; `None`: the study's own.
        admin_token: opens the admin page; `None`: derived from the key in the study's folder.
        hosts: names under which the server is reached, besides localhost and addresses.
        limits: on the pace and size of requests.
        verify: compare all images with their ids; see :func:`seedpo.study.folder.open_study`.

    Raises:
        SeedpoError: the study or its database cannot be used.
    """
    limits = limits or Limits()
    static = {name: resources.files("seedpo.study.web").joinpath("static", name).read_bytes() for name in STATIC}
    version = hashlib.sha256(b"".join(static.values())).hexdigest()
    study = open_study(study_folder, verify=verify)
    site = _site(study, url, admin_token, limits, version=version)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        site.close()

    async def static_file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in static:
            raise Refusal(404, errors.NO_PAGE)
        return Response(static[name], media_type=STATIC[name], headers={"cache-control": "public, max-age=86400"})

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    own = [Route("/static/{name}", static_file), Route("/healthz", health)]
    app = Starlette(
        routes=[*rater_pages(site), *rater_tasks(site), *admin_pages(site), *own],
        middleware=[Middleware(Guard, hosts=tuple(hosts), body=limits.body)],
        lifespan=lifespan,
    )
    app.state.site = site
    _answer_errors(app, site)
    return app


def _site(study: Study, url: str | None, admin_token: str | None, limits: Limits, *, version: str) -> Site:
    secret = read_secret(study.folder)
    store = Store.open(study, url)
    reads, files = Threads("reads", number=8, queue=256), Threads("files", number=4, queue=1024)
    token = admin_token or secret.admin_token()
    return Site(
        store=store,
        settings=study.settings,
        secret=secret,
        admin_token=token,
        sessions=Sessions(folder=study.folder, secret=secret, admin_token=token),
        paces=Paces(limits),
        pages=templates(),
        version=version[:12],
        reads=reads,
        writes=Threads("writes", number=4, queue=64),
        files=files,
        gallery=Gallery(files),
        visitors=Visitors(store, reads),
        outage=Outage(),
    )


def _answer_errors(app: Starlette, site: Site) -> None:
    """Answers every error with one sentence, as a page or as JSON."""

    def answer(request: Request, refusal: Refusal) -> Response:
        headers = SEALED | refusal.headers  # an error of the program itself does not pass the guard
        if wants_page(request):
            template = site.pages.get_template("message.html.j2")
            page = template.render(title="", version=site.version, sentence=refusal.sentence)
            return HTMLResponse(page, refusal.status, headers=headers)
        return JSONResponse({"error": refusal.sentence}, refusal.status, headers=headers)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return answer(request, error)

    async def no_route(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentence = errors.NO_PAGE if error.status_code == 404 else errors.UNREADABLE
        return answer(request, Refusal(error.status_code, sentence))

    def handler(refusal: Refusal) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def handle(request: Request, error: Exception) -> Response:
            if refusal.status == 503:
                site.outage.failed(error)
            return answer(request, refusal)

        return handle

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(HTTPException, no_route)
    for kind, refusal in REFUSALS.items():
        app.add_exception_handler(kind, handler(refusal))
