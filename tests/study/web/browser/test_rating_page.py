"""The rater's page in a real browser: by keyboard, by mouse, on a phone, and when things go wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Browser, Page, Request, Route, expect

from benchmarks.study_servers import StudyServer
from tests.study.web.browser.site import BEST, LIKE, QUESTIONS, SECRET, Asked, Site, make_study, served, study_of

TOTAL = 6
LEFT, RIGHT, TIE, SKIP = (f"button[data-side={side}]" for side in ("left", "right", "tie", "skip"))
BOXES = """() => ['[data-side=left]', '[data-side=right]', '#question'].map(id => {
    const box = document.querySelector(id).getBoundingClientRect();
    return [box.x, box.y, box.width, box.height].map(Math.round);
})"""


LOADED = """() => {
    const images = [...document.querySelectorAll('#items img')];
    return images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0);
}"""

ENABLED = """() => [...document.querySelectorAll('#task button:not([hidden])')].every(
    button => !button.disabled || button.dataset.side === 'ranked')"""
"""Functions, not expressions: those Playwright would evaluate again and again by ``eval``, which the page forbids."""


class FailingImages:
    """A route of images that do not load, until ``failing`` is off."""

    failing = True

    def __call__(self, route: Route) -> None:
        if self.failing:
            route.abort()
        else:
            route.continue_()


def begin(page: Page, link: str) -> None:
    """Opens a link and goes past consent and instructions, to the first pair."""
    page.goto(link)
    page.locator("#consent-agree").click()
    page.locator("#start").click()
    shown(page)


def shown(page: Page) -> str:
    """Waits until a pair can be judged; its prompt."""
    expect(page.locator("#task")).to_be_visible()
    page.wait_for_function(LOADED)
    page.wait_for_function(ENABLED)
    return page.locator("#prompt").inner_text()


def answer(page: Page, act: Callable[[], object]) -> None:
    """Answers and waits for the next pair or the end."""
    before = shown(page)
    act()
    page.wait_for_function(
        """before => {
            const visible = id => { const e = document.querySelector(id); return e && e.checkVisibility(); };
            return visible('#done') || (visible('#task') && document.querySelector('#prompt').innerText !== before);
        }""",
        arg=before,
    )


def answer_all(page: Page, key: str = "ArrowLeft") -> None:
    """Answers whatever is left by one key."""
    while not page.locator("#done").is_visible():
        answer(page, lambda: page.keyboard.press(key))


def test_a_whole_study_by_keyboard(page: Page, site: Site) -> None:
    begin(page, site.link())
    for key in ("ArrowLeft", "2", "t", "b", "s", "ArrowRight"):
        answer(page, lambda key=key: page.keyboard.press(key))
    expect(page.locator("#done")).to_be_visible()
    counted = site.judgements()
    sides = [("left" if j.answer == ("second" if j.show.flipped else "first") else "right") for j in counted[:2]]
    assert sides == ["left", "right"]
    assert [j.answer for j in counted[2:5]] == ["tie", "bad", "skip"]
    assert len(counted) == TOTAL
    assert all(j.seconds is not None and 0.0 < j.seconds < 60.0 for j in counted)


def test_a_whole_study_by_mouse_and_a_correction(page: Page, site: Site) -> None:
    begin(page, site.link())
    first = page.locator("#prompt").inner_text()
    answer(page, page.locator(LEFT).click)
    page.locator("#back").click()
    expect(page.locator("#prompt")).to_have_text(first)
    shown(page)
    answer(page, page.locator(TIE).click)
    answer(page, page.locator(RIGHT).click)
    while not page.locator("#done").is_visible():
        answer(page, page.locator(SKIP).click)
    counted = {judgement.show.number: judgement.answer for judgement in site.judgements()}
    assert len(counted) == TOTAL
    assert counted[0] == "tie"
    assert counted[1] in ("first", "second")
    assert set(counted.values()) == {"tie", "skip", counted[1]}


def test_stop_and_come_back_by_the_personal_link(page: Page, browser: Browser, site: Site) -> None:
    link = site.link()
    begin(page, link)
    for _ in range(2):
        answer(page, lambda: page.keyboard.press("ArrowLeft"))
    prompt = page.locator("#prompt").inner_text()
    page.context.close()
    other = browser.new_context()
    again = other.new_page()
    again.goto(link)
    expect(again.locator("#consent-agree")).to_have_count(0)
    assert shown(again) == prompt
    assert re.search(r"\b[23]\b.*\b6\b", again.locator("#progress").inner_text())
    answer_all(again)
    other.close()
    assert len(site.judgements()) == TOTAL


@pytest.mark.parametrize(("width", "height", "scale"), [(360, 640, 1), (640, 400, 2)], ids=["phone", "zoom-200"])
def test_small_screens_scroll_in_one_direction_only(
    browser: Browser, site: Site, width: int, height: int, scale: int
) -> None:
    """A window of 1280 x 800 at 200 % zoom is one of 640 x 400 CSS pixels, two device pixels each."""
    context = browser.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale)
    page = context.new_page()
    begin(page, site.link())
    layouts: Counter[int] = Counter()
    while not page.locator("#done").is_visible():
        shown(page)
        layouts[page.locator(f"{LEFT} img").count()] += 1
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for button in [*page.locator("button[data-side]").all(), page.locator("#back")]:
            if not button.is_visible():
                continue
            button.scroll_into_view_if_needed()
            box = button.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["height"] >= 24
        answer(page, page.locator(TIE).click)
    assert set(layouts) == {1, 4}, "both layouts were looked at"
    context.close()


def test_an_image_that_fails_to_load_can_be_loaded_again(page: Page, site: Site) -> None:
    images = FailingImages()
    page.route("**/image/*", images)
    page.goto(site.link())
    page.locator("#consent-agree").click()
    page.locator("#start").click()
    expect(page.locator("#error")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(300)
    assert site.judgements() == [], "nobody can judge what is not seen"
    images.failing = False
    page.locator("#retry").click()
    shown(page)
    expect(page.locator("#error")).to_be_hidden()
    answer_all(page)
    assert len(site.judgements()) == TOTAL


def test_two_tabs_show_the_same_pair_and_count_it_once(page: Page, site: Site) -> None:
    link = site.link()
    begin(page, link)
    second = page.context.new_page()
    second.goto(link)
    second.locator("#start").click()  # nothing is answered yet: the instructions come here too
    assert shown(second) == shown(page)
    answer(page, lambda: page.keyboard.press("ArrowLeft"))
    expect(second.locator("#prompt")).to_have_text(shown(page))
    answer(second, lambda: second.keyboard.press("ArrowRight"))
    assert len(site.judgements()) == 2
    answer_all(second)
    assert len(site.judgements()) == TOTAL


def test_a_double_click_counts_once(page: Page, site: Site) -> None:
    begin(page, site.link())
    posts: list[str] = []

    def noted(request: Request) -> None:
        if request.url.endswith("/vote"):
            posts.append(request.post_data or "")

    page.on("request", noted)
    answer(page, page.locator(LEFT).dblclick)
    shown(page)
    assert len(site.judgements()) == 1
    assert len(posts) == 1


@pytest.mark.parametrize("key", [None, "s", "ArrowLeft"], ids=["mouse", "skip-key", "choice-key"])
def test_a_slow_double_click_does_not_vote_on_the_next_pair(page: Page, site: Site, key: str | None) -> None:
    """The next pair, loaded ahead, is there before the second half of it comes. The page's clock is held."""
    page.clock.install()
    begin(page, site.link())
    act = (lambda: page.keyboard.press(key)) if key else (lambda: page.mouse.click(*middle))
    box = page.locator(LEFT).bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.clock.pause_at(page.evaluate("Date.now()") + 60_000)
    before = page.locator("#prompt").inner_text()
    act()
    expect(page.locator("#prompt")).not_to_have_text(before)
    page.wait_for_function(LOADED)
    page.clock.run_for(200)
    act()
    expect(page.locator(LEFT)).to_be_disabled()
    page.clock.run_for(300)
    expect(page.locator(LEFT)).to_be_enabled()
    assert len(site.judgements()) == 1
    answer(page, act)
    assert len(site.judgements()) == 2


def test_nothing_tells_the_models(page: Page, tmp_path: Path) -> None:
    """Pages, scripts, JSON, addresses, headers and images: everything that the browser gets, in every form."""
    received: list[bytes] = []
    page.on("response", lambda response: received.append(f"{response.url} {response.headers}".encode()))
    page.on("requestfinished", lambda request: received.append(request.response().body()))
    asked = [Asked(QUESTIONS[0]), Asked(QUESTIONS[1]), Asked(LIKE, 1), Asked(BEST, 4)]
    with served(study_of(tmp_path / "study", asked)) as site:
        begin(page, site.link())
        assert "<b>signs</b>" in page.locator("#prompt").inner_text(), "prompts are text, not HTML"
        answer_all(page, key="s")
        assert len(site.judgements()) == len(asked)
    assert sum(b"\x89PNG" in content for content in received) >= 2 + 8 + 1 + 4
    for secret in (SECRET.encode(), b"last-modified", b".png"):
        assert not any(secret in content for content in received), secret
    for image in {image for group in site.study.groups for c in group.candidates for image in c.images}:
        assert not any(image.encode() in content for content in received), "the id of an image names its file"


def test_nothing_moves_when_images_arrive(page: Page, site: Site) -> None:
    held: list[Route] = []
    holding = True

    def maybe(route: Route) -> None:
        if holding:
            held.append(route)
        else:
            route.continue_()

    page.route("**/image/*", maybe)
    page.goto(site.link())
    page.locator("#consent-agree").click()
    page.locator("#start").click()
    expect(page.locator("#task")).to_be_visible()
    before = page.evaluate(BOXES)
    assert held, "the images were held back"
    assert page.locator(LEFT).is_disabled(), "nobody can judge what is not seen"
    holding = False
    for route in held:
        route.continue_()
    shown(page)
    assert page.evaluate(BOXES) == before


def test_offline_and_online_again(page: Page, site: Site) -> None:
    begin(page, site.link())
    before = shown(page)
    page.context.set_offline(True)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#error")).to_be_visible()
    assert site.judgements() == []
    page.context.set_offline(False)
    expect(page.locator("#prompt")).not_to_have_text(before)
    expect(page.locator("#error")).to_be_hidden()
    assert len(site.judgements()) == 1
    answer_all(page)
    assert len(site.judgements()) == TOTAL


def test_the_server_is_killed_and_started_again(page: Page, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study")
    server = StudyServer(study.folder, tmp_path / "server.log")
    site = Site(study=study, url=server.url)
    link = site.link()
    server.start()
    try:
        begin(page, link)
        answer(page, lambda: page.keyboard.press("ArrowLeft"))
        before = shown(page)
        server.kill()
        assert len(site.judgements()) == 1, "what was acknowledged is there"
        page.keyboard.press("ArrowRight")
        expect(page.locator("#error")).to_be_visible()
        server.start()
        expect(page.locator("#prompt")).not_to_have_text(before)
        expect(page.locator("#error")).to_be_hidden()
        assert len(site.judgements()) == 2
        answer_all(page)
        assert len(site.judgements()) == TOTAL
    finally:
        server.stop()
