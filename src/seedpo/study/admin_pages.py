"""The pages of the study's owner: progress, links, votes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from seedpo.study.errors import NO_ADMIN, OLD_PAGE, Refusal
from seedpo.study.export import votes_csv
from seedpo.study.records import rater_labels
from seedpo.study.security import SESSION_SECONDS
from seedpo.study.site import Site
from seedpo.study.status import question_status, rater_row, rater_status

COOKIE = "seedpo_admin"
WRONG_TOKEN = "This is not the token that the server printed when it started."

Field = Annotated[str, Form(max_length=200)]


def admin_pages(site: Site) -> APIRouter:
    """Routes of the owner. Forms carry a form token; requests with a bearer token need none."""
    router = APIRouter(prefix="/admin")
    _add_login(router, site)
    _add_actions(router, site)
    return router


def _is_admin(site: Site, request: Request) -> bool:
    return site.is_admin(bearer=request.headers.get("authorization", ""), cookie=request.cookies.get(COOKIE, ""))


def _require_admin(site: Site, request: Request, form_token: str | None = None) -> None:
    if not _is_admin(site, request):
        site.slow_down(site.paces.logins)
        raise Refusal(401, NO_ADMIN)
    bearer, cookie = request.headers.get("authorization", ""), request.cookies.get(COOKIE, "")
    if form_token is not None and not bearer and not site.secret.is_form_token(cookie, form_token):
        raise Refusal(403, OLD_PAGE)


def _overview(site: Site, request: Request, links: list[str]) -> HTMLResponse:
    raters = rater_status(site.store.raters(), site.store.judgements(excluded=True))
    values = {
        "settings": site.study.settings,
        "form_token": site.secret.form_token(request.cookies.get(COOKIE, "")),
        "raters": [rater_row(rater) for rater in raters],
        "questions": question_status(site.study, site.store.judgements()),
        "links": links,
    }
    return HTMLResponse(site.page("admin", **values))


def _add_login(router: APIRouter, site: Site) -> None:
    @router.get("")
    def page(request: Request) -> HTMLResponse:
        if not _is_admin(site, request):
            return HTMLResponse(site.page("login", error=""), 401)
        return _overview(site, request, [])

    @router.post("/login")
    def login(request: Request, token: Field) -> Response:
        site.slow_down(site.paces.logins)
        if not site.is_admin(bearer=f"Bearer {token}", cookie=""):
            return HTMLResponse(site.page("login", error=WRONG_TOKEN), 401)
        answer = RedirectResponse("/admin", 303)
        answer.set_cookie(
            COOKIE,
            site.secret.session(site.admin_token),
            max_age=SESSION_SECONDS,
            path="/admin",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @router.post("/logout")
    def logout(request: Request, form_token: Field = "") -> Response:
        _require_admin(site, request, form_token)
        answer = RedirectResponse("/admin", 303)
        answer.delete_cookie(COOKIE, path="/admin", httponly=True, samesite="strict")
        return answer


def _add_actions(router: APIRouter, site: Site) -> None:
    @router.post("/links")
    def links(
        request: Request,
        number: Annotated[int, Form(ge=1, le=500)] = 1,
        label: Field = "",
        form_token: Field = "",
    ) -> Response:
        _require_admin(site, request, form_token)
        base = str(request.base_url).rstrip("/")
        days = site.study.settings.link_days
        new_links = [f"{base}/r/{token}" for _, token in site.store.add_raters(rater_labels(label, number), days=days)]
        if "text/html" in request.headers.get("accept", ""):
            return _overview(site, request, new_links)
        return JSONResponse({"links": new_links})

    @router.post("/revoke")
    def revoke(request: Request, rater: Field, form_token: Field = "") -> Response:
        _require_admin(site, request, form_token)
        site.store.revoke(rater)
        return RedirectResponse("/admin", 303)

    @router.get("/votes.csv")
    def votes(request: Request) -> Response:
        _require_admin(site, request)
        headers = {"content-disposition": 'attachment; filename="votes.csv"'}
        return Response(votes_csv(site.store.judgements()), media_type="text/csv", headers=headers)
