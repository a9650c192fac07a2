"""What a screen reader is told of the rating page, and where the focus goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Page, expect

from tests.study.web.browser.site import Site, make_study, served
from tests.study.web.browser.test_rating_page import FailingImages, shown

SINGLE = "Which image do you prefer?"
SET = "Which three differ more from the first?"


@pytest.fixture
def two_questions(tmp_path: Path) -> Iterator[Site]:
    """A pair of images and a pair of sets."""
    with served(make_study(tmp_path / "study", pairs=1, sets=1)) as site:
        yield site


def task_of(question: str, number: int) -> str:
    """The accessibility tree of a task, as far as it matters."""
    images = ["reference", "other 1", "other 2", "other 3"] if question == SET else []
    lines = [f'- region "{question}":', f'  - heading "{question}" [level=2]']
    lines += [f"  - paragraph: Prompt prompt number {number} with <b>signs</b> & words"]
    for name in "AB":
        label = f"Choose {name}: reference and 3 others" if images else f"Choose {name}"
        lines += [f'  - figure "{name}":', f"    - 'button \"{label}\"':"]
        lines += [f'      - img "Image {name}, {image}"' for image in images] or [f'      - img "Image {name}"']
        lines += [f'    - button "Enlarge {name}"']
    lines += ['  - group "Answers":', *(f'    - button "{row}"' for row in ("Equally good", "Both bad", "Skip"))]
    return "\n".join(lines)


def test_a_screen_reader_hears_what_is_asked_answered_and_wrong(page: Page, two_questions: Site) -> None:
    images = FailingImages()
    page.goto(two_questions.link())
    page.get_by_role("button", name="I agree and take part").press("Enter")
    heading = page.get_by_role("heading", name="How it works")
    expect(heading).to_be_focused()
    page.route("**/image/*", images)
    page.reload()
    expect(heading).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("An image of A and B did not load.")
    expect(page.get_by_role("button", name="Choose A")).to_be_disabled()
    images.failing = False
    page.get_by_role("button", name="Try again now").press("Enter")
    prompt = shown(page)
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator("#question"), "its button has gone").to_be_focused()

    questions = [SINGLE, SET] if "number 0" in prompt else [SET, SINGLE]
    numbers = [0, 1] if questions[0] == SINGLE else [1, 0]
    expect(page.get_by_role("main")).to_match_aria_snapshot(task_of(questions[0], numbers[0]))
    expect(page.locator("#fresh")).to_be_hidden()
    page.get_by_role("button", name="Choose A").press("Enter")
    said = f"Saved. 1 of 2 done. New question: {questions[1]} Prompt: prompt number {numbers[1]} with"
    expect(page.get_by_role("status")).to_contain_text(said)
    shown(page)
    expect(page.get_by_role("main")).to_match_aria_snapshot(task_of(questions[1], numbers[1]))
    expect(page.get_by_text("New question", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Choose A"), "it goes on where it was").to_be_focused()

    page.get_by_role("button", name="Back").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("You can change this answer.")
    shown(page)
    expect(page.get_by_role("button", name="Choose A")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#fresh"), "a question that was answered is not new").to_be_hidden()
    page.get_by_role("button", name="Go on where you were").press("Enter")
    expect(page.locator("#question")).to_have_text(questions[1])
    expect(page.locator("#question")).to_be_focused()
    shown(page)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("heading", name="Thank you!")).to_be_focused()


def test_letter_keys_can_be_switched_off(page: Page, site: Site) -> None:
    """Otherwise whoever dictates votes with any word (WCAG 2.1, 2.1.4)."""
    page.goto(site.link())
    page.locator("#consent-agree").click()
    page.get_by_role("checkbox", name="letter and number keys").uncheck()
    page.reload()
    expect(page.get_by_role("checkbox", name="letter and number keys")).not_to_be_checked()
    page.locator("#start").click()
    shown(page)
    for key in "sbt12e?":
        page.keyboard.press(key)
    expect(page.locator("#task")).to_be_visible()
    expect(page.locator("#large")).to_be_hidden()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("status")).to_contain_text("Saved.")
    assert [judgement.answer in ("first", "second") for judgement in site.judgements()] == [True]


def test_nothing_moves_by_itself_for_those_who_ask_for_that(page: Page, site: Site) -> None:
    page.goto(site.link())
    page.locator("#consent-agree").click()
    page.locator("#start").click()
    shown(page)
    moving = """() => [...document.querySelectorAll('*')].filter(element => {
        const { transitionDuration, animationName } = getComputedStyle(element);
        return transitionDuration !== '0s' || animationName !== 'none';
    }).length"""
    assert page.evaluate(moving) > 0
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == 0
