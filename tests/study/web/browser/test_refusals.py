"""What the rating page does with an answer that the server does not take."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Page, Route, expect

from tests.study.web.browser.site import Site
from tests.study.web.browser.test_rating_page import answer, begin, shown

BUSY = "The server cannot store answers at the moment."
ENDED = "This link has ended."


class Answers:
    """A route of votes that gets other answers than the server's, one after the other, then the server's.

    Attributes:
        bodies: of all votes.
    """

    def __init__(self, *answers: dict[str, object]) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, object]] = []

    def __call__(self, route: Route) -> None:
        self.bodies.append(json.loads(route.request.post_data or ""))
        if not self.answers:
            route.continue_()
        elif self.answers[0] == {}:
            route.abort()
        else:
            route.fulfill(**self.answers.pop(0))  # type: ignore[arg-type]


def refusal(status: int, sentence: str, **headers: str) -> dict[str, object]:
    """An answer as the server gives it."""
    return {
        "status": status,
        "json": {"error": sentence},
        "headers": {name.replace("_", "-"): headers[name] for name in headers},
    }


def test_a_busy_server_is_asked_again_when_it_says(page: Page, site: Site) -> None:
    page.clock.install()
    begin(page, site.link())
    votes = Answers(refusal(503, BUSY, retry_after="7"), refusal(429, BUSY, retry_after="3"))
    page.route("**/vote", votes)
    before = shown(page)
    page.clock.pause_at(page.evaluate("Date.now()") + 60_000)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#error")).to_contain_text(BUSY)
    expect(page.locator("#retry")).to_be_visible()
    page.clock.run_for(6_500)
    assert len(votes.bodies) == 1
    page.clock.run_for(4_100)  # a page adds up to half of it, so that not all come at once
    page.wait_for_timeout(300)
    assert len(votes.bodies) == 2
    page.clock.run_for(4_600)
    expect(page.locator("#prompt")).not_to_have_text(before)
    expect(page.locator("#error")).to_be_hidden()
    assert [body["key"] for body in votes.bodies] == [votes.bodies[0]["key"]] * 3, "it is one answer"
    assert len(site.judgements()) == 1


def test_a_busy_server_is_asked_at_once_on_demand(page: Page, site: Site) -> None:
    begin(page, site.link())
    page.route("**/vote", Answers(refusal(503, BUSY, retry_after="60")))
    before = shown(page)
    page.keyboard.press("ArrowLeft")
    page.locator("#retry").click()
    expect(page.locator("#prompt")).not_to_have_text(before)
    assert len(site.judgements()) == 1


def test_an_answer_outlives_reloads_without_a_connection(page: Page, site: Site) -> None:
    begin(page, site.link())
    votes = Answers({})
    page.route("**/vote", votes)
    before = shown(page)
    page.keyboard.press("ArrowRight")
    expect(page.locator("#error")).to_contain_text("It is kept here and sent again by itself.")
    for _ in range(2):
        page.reload()
        expect(page.locator("#error")).to_contain_text("It is kept here and sent again by itself.")
        expect(page.locator("#prompt")).to_have_text(before)
    assert site.judgements() == []
    votes.answers.clear()
    page.locator("#retry").click()
    expect(page.locator("#prompt")).not_to_have_text(before)
    expect(page.get_by_role("status")).to_contain_text("An answer that was not saved last time is saved now.")
    assert len({body["key"] for body in votes.bodies}) == 1
    assert [judgement.show.side(judgement.answer) for judgement in site.judgements()] == ["right"]
    answer(page, lambda: page.keyboard.press("ArrowLeft"))
    assert len(site.judgements()) == 2


@pytest.mark.parametrize("status", [200, 404])
def test_what_somebody_else_answers_in_the_servers_place_does_not_count(page: Page, site: Site, status: int) -> None:
    """The log-in page of a hotel's network, or a proxy without its server."""
    begin(page, site.link())
    page.route(
        "**/vote", Answers({"status": status, "body": "<h1>Welcome to our hotel</h1>", "content_type": "text/html"})
    )
    before = shown(page)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#prompt")).not_to_have_text(before)
    assert len(site.judgements()) == 1


@pytest.mark.parametrize("status", [410, 404])
def test_a_link_that_has_ended_ends_the_page(page: Page, site: Site, status: int) -> None:
    link = site.link()
    begin(page, link)
    page.route("**/vote", Answers(refusal(status, ENDED)))
    page.locator("button[data-side=left]").click()
    expect(page.get_by_role("alert")).to_contain_text(ENDED)
    expect(page.locator("#retry")).to_be_hidden()
    expect(page.get_by_role("status")).to_contain_text("Your last answer was not saved.")
    page.wait_for_timeout(500)
    assert page.locator("button[data-side]:enabled").count() == 0
    assert page.evaluate("localStorage.length") == 0, "it is not sent again"
    assert site.judgements() == []


def test_an_answer_that_is_refused_does_not_stop_the_study(page: Page, site: Site) -> None:
    begin(page, site.link())
    page.route("**/vote", Answers(refusal(409, "This was not shown to you.")))
    before = shown(page)
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("alert")).to_contain_text("This was not shown to you.")
    expect(page.get_by_role("status")).to_contain_text("Your last answer was not saved.")
    assert shown(page) == before
    answer(page, lambda: page.keyboard.press("ArrowLeft"))
    assert len(site.judgements()) == 1
