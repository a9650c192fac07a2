"""Single images, and the best and the worst of several: by keyboard, by mouse and by touch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.study.web.browser.site import BEST, LIKE, QUESTIONS, Asked, Site, served, study_of

BEST_OF_SIX = BEST.model_copy(update={"key": "six", "per_view": 6})

ALL_THERE = """() => {
    const images = [...document.querySelectorAll('#items img')];
    return images.length > 0 && images.every(image => image.classList.contains('there'));
}"""


@pytest.fixture
def singles(tmp_path: Path) -> Iterator[Site]:
    with served(study_of(tmp_path / "study", [Asked(LIKE, 1)] * 4)) as site:
        yield site


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Site]:
    with served(study_of(tmp_path / "study", [Asked(BEST, 4)] * 3)) as site:
        yield site


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    yield context.new_page()
    context.close()


def begin(page: Page, link: str) -> None:
    """Opens a link and goes past consent and instructions."""
    page.goto(link)
    page.locator("#consent-agree").click()
    page.locator("#start").click()


def shown(page: Page, number: int) -> None:
    """Waits until the task after so many answers can be judged."""
    expect(page.locator("#progress")).to_contain_text(f"{number} of")
    page.wait_for_function(ALL_THERE)
    expect(page.locator("button[data-side=like]:enabled, .mark:enabled").first).to_be_visible()


def mark(page: Page, name: str, kind: str) -> Locator:
    """The button that marks an image."""
    return page.get_by_role("figure", name=name).get_by_role("button", name=kind)


def given(site: Site) -> list[tuple[str, int, int] | str]:
    """The stored answers; of best and worst the places on the screen."""
    rows = site.judgements()
    return [
        (row.answer, row.show.order.index(row.best), row.show.order.index(row.worst))
        if row.best is not None and row.worst is not None
        else row.answer
        for row in rows
    ]


def test_single_images_by_keyboard(page: Page, singles: Site) -> None:
    begin(page, singles.link())
    for number, key in enumerate(("ArrowRight", "d", "2", "s")):
        shown(page, number)
        page.keyboard.press("ArrowDown")  # an answer of another form
        page.keyboard.press(key)
    expect(page.locator("#done")).to_be_visible()
    assert given(singles) == ["like", "dislike", "like", "skip"]


def test_single_images_by_mouse_and_a_look_at_full_size(page: Page, singles: Site) -> None:
    begin(page, singles.link())
    shown(page, 0)
    page.get_by_role("button", name="Enlarge the image").click()
    expect(page.locator("#large")).to_be_visible()
    expect(page.locator("[data-swap]")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator("#large")).to_be_hidden()
    page.get_by_role("button", name="Dislike").click()
    shown(page, 1)
    prompt = page.locator("#prompt").inner_text()
    page.get_by_role("button", name="Like", exact=True).click()
    shown(page, 2)
    page.locator("#back").click()
    expect(page.locator("#prompt")).to_have_text(prompt)
    shown(page, 2)
    expect(page.get_by_role("button", name="Like", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Dislike").click()
    expect(page.locator("#prompt")).not_to_have_text(prompt)
    assert given(singles) == ["dislike", "dislike"]


def swipe(page: Page, by: float) -> None:
    """A finger on the image, moved sidewards."""
    box = page.locator("#items .choice").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    client = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": x, "y": y}]),
        *(("touchMove", [{"x": x + by * part / 5, "y": y}]) for part in range(1, 6)),
        ("touchEnd", []),
    ):
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    client.detach()


def test_single_images_by_swiping(phone: Page, singles: Site) -> None:
    begin(phone, singles.link())
    for number, by in enumerate((120.0, -120.0)):
        shown(phone, number)
        swipe(phone, by)
    shown(phone, 2)
    swipe(phone, 40.0)
    phone.wait_for_timeout(400)  # else the tap is taken for the second half of a double tap
    expect(phone.locator("#large"), "a short swipe is neither an answer nor a tap").to_be_hidden()
    moved = phone.locator("#items .choice").evaluate("e => new DOMMatrix(getComputedStyle(e).transform).e")
    assert moved == 0.0
    phone.locator("#items .choice").tap()
    expect(phone.locator("#large")).to_be_visible()
    assert given(singles) == ["like", "dislike"]


def test_best_and_worst_by_keyboard(page: Page, several: Site) -> None:
    begin(page, several.link())
    shown(page, 0)
    confirm = page.get_by_role("button", name="Confirm")
    expect(confirm).to_be_disabled()
    page.keyboard.press("c")
    page.keyboard.press("2")
    expect(page.get_by_role("status")).to_contain_text("B is the best. Mark the worst.")
    page.keyboard.press("Enter")
    page.keyboard.press("4")
    expect(confirm).to_be_enabled()
    page.keyboard.press("1")
    expect(page.get_by_role("status")).to_contain_text("Take a mark away first.")
    page.keyboard.press("2")
    expect(confirm).to_be_disabled()
    page.keyboard.press("1")
    page.keyboard.press("9")
    assert given(several) == []
    page.keyboard.press("c")
    shown(page, 1)
    expect(page.locator(".mark[aria-pressed=true]"), "marks belong to one task").to_have_count(0)
    expect(confirm).to_be_disabled()
    for key in ("3", "1", "Enter"):
        page.keyboard.press(key)
    shown(page, 2)
    page.keyboard.press("x")
    expect(page.locator("#done")).to_be_visible()
    assert given(several) == [("ranked", 0, 3), ("ranked", 2, 0), "bad"]


def test_best_and_worst_without_letters_and_numbers(page: Page, several: Site) -> None:
    """Tab, arrow keys, Enter and the space bar do it all."""
    page.goto(several.link())
    page.locator("#consent-agree").click()
    page.get_by_role("checkbox", name="letter and number keys").uncheck()
    page.locator("#start").click()
    shown(page, 0)
    for key in ("1", "2", "c", "s", "x"):
        page.keyboard.press(key)
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(mark(page, "A", "Best")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(mark(page, "D", "Best")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    expect(mark(page, "C", "Worst")).to_be_focused()
    page.keyboard.press("Space")
    expect(mark(page, "C", "Worst")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Confirm").focus()
    page.keyboard.press("Space")
    shown(page, 1)
    expect(page.locator("#question"), "not on a button that is closed").to_be_focused()
    assert given(several) == [("ranked", 3, 2)]


def test_best_and_worst_by_mouse_with_a_change_of_mind(page: Page, several: Site) -> None:
    begin(page, several.link())
    shown(page, 0)
    first = page.locator("#prompt").inner_text()
    mark(page, "A", "Best").click()
    mark(page, "A", "Worst").click()
    expect(mark(page, "A", "Best"), "one image cannot be both").to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("button", name="Confirm")).to_be_disabled()
    mark(page, "C", "Best").click()
    mark(page, "B", "Best").click()
    expect(page.locator(".mark[aria-pressed=true]")).to_have_count(2)
    page.get_by_role("button", name="Confirm").click()
    shown(page, 1)
    page.locator("#back").click()
    expect(page.locator("#prompt")).to_have_text(first)
    shown(page, 1)
    expect(mark(page, "B", "Best"), "what was answered is marked").to_have_attribute("aria-pressed", "true")
    mark(page, "D", "Worst").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator("#prompt")).not_to_have_text(first)
    shown(page, 1)
    page.get_by_role("button", name="All bad").click()
    shown(page, 2)
    assert given(several) == [("ranked", 1, 3), "bad"]


def test_best_and_worst_by_touch(phone: Page, several: Site) -> None:
    begin(phone, several.link())
    shown(phone, 0)
    mark(phone, "D", "Best").tap()
    mark(phone, "A", "Worst").tap()
    phone.get_by_role("button", name="Enlarge B").tap()
    expect(phone.locator("#large")).to_be_visible()
    phone.get_by_role("button", name="Show C").tap()
    expect(phone.locator("#large [data-name]")).to_have_text("C")
    phone.get_by_role("button", name="Close").tap()
    phone.get_by_role("button", name="Confirm").tap()
    shown(phone, 1)
    assert given(several) == [("ranked", 3, 0)]


def test_a_screen_reader_hears_what_can_be_marked(page: Page, tmp_path: Path) -> None:
    with served(study_of(tmp_path / "study", [Asked(BEST, 3)])) as site:
        begin(page, site.link())
        shown(page, 0)
        mark(page, "B", "Worst").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("B is the worst. Mark the best.")
        figures = [
            f"""
  - figure "{name}":
    - button "Enlarge {name}":
      - img "Image {name}"
    - button "Best {name}"
    - button "Worst {name}"{" [pressed]" if name == "B" else ""}"""
            for name in "ABC"
        ]
        expect(page.get_by_role("main")).to_match_aria_snapshot(
            f"""
- region "{BEST.text}":
  - heading "{BEST.text}" [level=2]
  - paragraph: Prompt prompt number 0 with <b>signs</b> & words{"".join(figures)}
  - group "Answers":
    - button "Confirm" [disabled]
    - button "All bad"
    - button "Skip"
"""
        )


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 568), (640, 400)])
def test_all_fits_and_nothing_moves_when_images_arrive(
    browser: Browser, tmp_path: Path, width: int, height: int
) -> None:
    """Four and six in one view, and single images: no sideward scrolling, no small target."""
    asked = [Asked(BEST, 4), Asked(BEST_OF_SIX, 6, ratio=0.7), Asked(BEST, 3, ratio=2.0), Asked(LIKE, 1, ratio=0.6)]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    boxes = """() => [...document.querySelectorAll('#task button')].filter(e => e.checkVisibility()).map(e => {
        const { x, y, width, height } = e.getBoundingClientRect();
        return [x, y + scrollY, width, height].map(Math.round);
    })"""
    held: list[Route] = []
    page.route("**/image/*", lambda route: held.append(route))
    with served(study_of(tmp_path / "study", asked)) as site:
        begin(page, site.link())
        counts = set()
        for number in range(len(asked)):
            expect(page.locator("#progress")).to_contain_text(f"{number} of {len(asked)}")
            before = page.evaluate(boxes)
            assert page.locator(".mark:enabled, button[data-side=like]:enabled").count() == 0, "it is not seen yet"
            while not page.evaluate(ALL_THERE):
                while held:
                    held.pop().continue_()
                page.wait_for_timeout(20)
            assert page.evaluate(boxes) == before
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            for x, _, wide, high in before:
                assert 0 <= x <= x + wide <= width
                assert min(wide, high) >= 36
            counts.add(page.locator("#items img").count())
            page.locator("button[data-side=skip]").click()
        assert counts == {1, 3, 4, 6}
    context.close()


def test_instructions_explain_the_form_and_its_choices_alone(page: Page, tmp_path: Path) -> None:
    words = {
        "single": ({"Like", "swipe"}, {"Skip", "Confirm", "Equally", "bad", "A and B"}),
        "best-worst": ({"Confirm", "Worst", "Skip"}, {"Dislike", "Equally", "bad"}),
        "pair": ({"A and B", "Equally good"}, {"Skip", "bad", "Confirm", "Dislike"}),
    }
    keys = {"single": ("ArrowRight",), "best-worst": ("1", "3", "c"), "pair": ("3",)}
    questions = {
        question.text: question
        for question in (
            LIKE.model_copy(update={"choices": ("like", "dislike")}),
            BEST.model_copy(update={"choices": ("ranked", "skip")}),
            QUESTIONS[0].model_copy(update={"choices": ("left", "right", "tie")}),
        )
    }
    number = {"single": 1, "pair": 2, "best-worst": 3}
    asked = [Asked(question, number[question.form]) for question in questions.values()]
    with served(study_of(tmp_path / "study", asked)) as site:
        page.goto(site.link())
        page.locator("#consent-agree").click()
        for count in range(len(asked)):
            expect(page.locator("#instructions")).to_be_visible()
            text = page.locator("#instructions").inner_text()
            page.locator("#start").click()
            question = questions[page.locator("#question").inner_text()]
            explained, not_explained = words[question.form]
            assert [word for word in explained if word not in text] == []
            assert [word for word in not_explained if word in text] == []
            offered = page.locator("#task button[data-side]:not([hidden])").all()
            assert {button.get_attribute("data-side") for button in offered} == set(question.choices)
            page.wait_for_function(ALL_THERE)
            closed = page.locator("#items button:disabled, .answers button:disabled:not([hidden], [data-side=ranked])")
            expect(closed).to_have_count(0)
            for key in keys[question.form]:
                page.keyboard.press(key)
            if count < len(asked) - 1:
                expect(page.locator("#progress")).to_contain_text(f"{count + 1} of 3")
                page.locator("#help").click()
        expect(page.locator("#done")).to_be_visible()
        assert set(given(site)) == {"like", ("ranked", 0, 2), "tie"}
