"""The pages of a rater: landing, joining, consent, and the page on which pairs are judged."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import HTMLResponse, RedirectResponse

from seedpo.study.refusals import OLD_PAGE, Refusal
from seedpo.study.site import Site

FormToken = Annotated[str, Form(max_length=100)]


def rater_pages(site: Site) -> APIRouter:
    """Their routes."""
    router = APIRouter()

    @router.get("/")
    def landing() -> HTMLResponse:
        settings = site.study.settings
        return HTMLResponse(site.page("landing", is_open=settings.enrolment == "open"))

    @router.post("/join")
    def join() -> RedirectResponse:
        settings = site.study.settings
        site.slow_down(site.paces.strangers, "")
        if settings.enrolment != "open":
            raise Refusal(403, "This study is by invitation: please use your personal link.")
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
    def consent(token: str, form_token: FormToken) -> RedirectResponse:
        rater = site.rater(token)
        if not site.secret.is_form_token(token, form_token):
            raise Refusal(403, OLD_PAGE)
        site.store.consent(rater.id)
        return RedirectResponse(f"/r/{token}", 303)

    return router
