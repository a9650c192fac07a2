"""Single images, and the best and the worst of several: by keyboard, by mouse and by touch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Browser, Locator, Page, expect

from tests.study.browser.stand_in import StandIn, standing_in, task

ALL_THERE = "() => [...document.querySelectorAll('#items img')].every(image => image.classList.contains('there'))"


@pytest.fixture
def singles() -> Iterator[StandIn]:
    with standing_in([task(number, "single", 1) for number in range(4)]) as stand_in:
        yield stand_in


@pytest.fixture
def several() -> Iterator[StandIn]:
    with standing_in([task(1, "best-worst", 4), task(2, "best-worst", 6), task(3, "pair", 2)]) as stand_in:
        yield stand_in


def begin(page: Page, stand_in: StandIn) -> None:
    """Opens the page and goes past the instructions."""
    page.goto(stand_in.link)
    page.locator("#start").click()


def shown(page: Page, number: int) -> None:
    """Waits until a task can be judged."""
    expect(page.locator("#prompt")).to_have_text(f"prompt number {number}")
    page.wait_for_function(ALL_THERE)
    expect(page.locator("button[data-side=skip]")).to_be_enabled()


def mark(page: Page, name: str, kind: str) -> Locator:
    """The button that marks an image."""
    return page.get_by_role("figure", name=name).get_by_role("button", name=kind)


def given(stand_in: StandIn) -> list[Any]:
    """The answers in the order of the tasks."""
    answers = [stand_in.answers[task["show"]] for task in stand_in.tasks if task["show"] in stand_in.answers]
    return [(row["side"], row["best"], row["worst"]) if row["side"] == "ranked" else row["side"] for row in answers]


def test_single_images_by_keyboard(page: Page, singles: StandIn) -> None:
    begin(page, singles)
    for number, key in enumerate(("ArrowRight", "d", "2", "s")):
        shown(page, number)
        expect(page.locator("button[data-side=like]")).to_be_enabled()
        page.keyboard.press("ArrowDown")  # an answer of another form
        page.keyboard.press(key)
    expect(page.locator("#done")).to_be_visible()
    assert given(singles) == ["like", "dislike", "like", "skip"]
    assert all(set(answer) == {"show", "side", "seconds", "key"} for answer in singles.answers.values())


def test_single_images_by_mouse_and_a_look_at_full_size(page: Page, singles: StandIn) -> None:
    begin(page, singles)
    shown(page, 0)
    page.get_by_role("button", name="Enlarge the image").click()
    expect(page.locator("#large")).to_be_visible()
    expect(page.locator("[data-swap]")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(page.locator("#large")).to_be_hidden()
    page.get_by_role("button", name="Dislike").click()
    shown(page, 1)
    page.get_by_role("button", name="Like", exact=True).click()
    shown(page, 2)
    page.locator("#back").click()
    shown(page, 1)
    expect(page.get_by_role("button", name="Like", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Dislike").click()
    shown(page, 2)
    assert given(singles) == ["dislike", "dislike"]


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    yield context.new_page()
    context.close()


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


def test_single_images_by_swiping(phone: Page, singles: StandIn) -> None:
    begin(phone, singles)
    for number, by in enumerate((120.0, -120.0)):
        shown(phone, number)
        expect(phone.locator("button[data-side=like]")).to_be_enabled()
        swipe(phone, by)
    shown(phone, 2)
    expect(phone.locator("button[data-side=like]")).to_be_enabled()
    swipe(phone, 40.0)
    phone.wait_for_timeout(400)  # else the tap is taken for the second half of a double tap
    expect(phone.locator("#large"), "a short swipe is neither an answer nor a tap").to_be_hidden()
    moved = phone.locator("#items .choice").evaluate("e => new DOMMatrix(getComputedStyle(e).transform).e")
    assert moved == 0.0
    phone.locator("#items .choice").tap()
    expect(phone.locator("#large")).to_be_visible()
    assert given(singles) == ["like", "dislike"]


def test_best_and_worst_by_keyboard(page: Page, several: StandIn) -> None:
    begin(page, several)
    shown(page, 1)
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
    shown(page, 2)
    expect(page.locator(".mark[aria-pressed=true]"), "marks belong to one task").to_have_count(0)
    expect(confirm).to_be_disabled()
    for key in ("6", "1", "Enter"):
        page.keyboard.press(key)
    shown(page, 3)
    assert given(several) == [("ranked", 0, 3), ("ranked", 5, 0)]


def test_best_and_worst_without_letters_and_numbers(page: Page, several: StandIn) -> None:
    """Tab, arrow keys, Enter and the space bar do it all."""
    page.goto(several.link)
    page.get_by_role("checkbox", name="letter and number keys").uncheck()
    page.locator("#start").click()
    shown(page, 1)
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
    shown(page, 2)
    expect(page.locator("#question"), "not on a button that is closed").to_be_focused()
    assert given(several) == [("ranked", 3, 2)]


def test_best_and_worst_by_mouse_with_a_change_of_mind(page: Page, several: StandIn) -> None:
    begin(page, several)
    shown(page, 1)
    mark(page, "A", "Best").click()
    mark(page, "A", "Worst").click()
    expect(mark(page, "A", "Best"), "one image cannot be both").to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("button", name="Confirm")).to_be_disabled()
    mark(page, "C", "Best").click()
    mark(page, "B", "Best").click()
    expect(page.locator(".mark[aria-pressed=true]")).to_have_count(2)
    page.get_by_role("button", name="Confirm").click()
    shown(page, 2)
    page.locator("#back").click()
    shown(page, 1)
    expect(mark(page, "B", "Best"), "what was answered is marked").to_have_attribute("aria-pressed", "true")
    mark(page, "D", "Worst").click()
    page.get_by_role("button", name="Confirm").click()
    shown(page, 2)
    page.get_by_role("button", name="All bad").click()
    shown(page, 3)
    expect(page.get_by_role("button", name="Both bad")).to_be_visible()
    page.get_by_role("button", name="Choose B").click()
    expect(page.locator("#done")).to_be_visible()
    assert given(several) == [("ranked", 1, 3), "bad", "right"]


def test_best_and_worst_by_touch(phone: Page, several: StandIn) -> None:
    begin(phone, several)
    shown(phone, 1)
    mark(phone, "D", "Best").tap()
    mark(phone, "A", "Worst").tap()
    phone.get_by_role("button", name="Enlarge B").tap()
    expect(phone.locator("#large")).to_be_visible()
    phone.get_by_role("button", name="Show C").tap()
    expect(phone.locator("#large [data-name]")).to_have_text("C")
    phone.get_by_role("button", name="Close").tap()
    phone.get_by_role("button", name="Confirm").tap()
    shown(phone, 2)
    assert given(several) == [("ranked", 3, 0)]


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (320, 568), (640, 400)])
def test_all_fits_and_nothing_moves_when_images_arrive(browser: Browser, width: int, height: int) -> None:
    """Four and six in one view, single images, and sets: no sideward scrolling, no small target."""
    tasks = [
        task(1, "best-worst", 4, in_set=4),
        task(2, "best-worst", 6, ratio=0.7),
        task(3, "best-worst", 3, ratio=2.0),
        task(4, "single", 1, ratio=0.6),
    ]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    boxes = """() => [...document.querySelectorAll('#task button')].filter(e => e.checkVisibility()).map(e => {
        const { x, y, width, height } = e.getBoundingClientRect();
        return [x, y + scrollY, width, height].map(Math.round);
    })"""
    held: list[Any] = []
    page.route("**/image/*", lambda route: held.append(route))
    with standing_in(tasks) as stand_in:
        begin(page, stand_in)
        for number in range(1, 5):
            expect(page.locator("#prompt")).to_have_text(f"prompt number {number}")
            before = page.evaluate(boxes)
            assert page.locator(".mark:enabled, button[data-side=like]:enabled").count() == 0, "it is not seen yet"
            while not page.evaluate(ALL_THERE):
                while held:
                    held.pop().continue_()
                page.wait_for_timeout(20)
            assert page.evaluate(boxes) == before
            for x, _, wide, high in before:
                assert 0 <= x <= x + wide <= width
                assert min(wide, high) >= 40 - 4 * (width == 320), "a target of touch"
            expect(page.locator("button[data-side=skip]")).to_be_enabled()
            page.locator("button[data-side=skip]").click()
    context.close()


def test_instructions_explain_the_form_and_its_choices_alone(page: Page) -> None:
    tasks = [
        task(1, "single", 1, choices=["like", "dislike"]),
        task(2, "best-worst", 3, choices=["ranked", "skip"]),
        task(3, "pair", 2, choices=["left", "right", "tie"]),
    ]
    words = {
        "single": ({"Like", "swipe"}, {"Skip", "Confirm", "Equally", "bad", "A and B"}),
        "best-worst": ({"Confirm", "Worst", "Skip"}, {"Dislike", "Equally", "bad"}),
        "pair": ({"A and B", "Equally good"}, {"Skip", "bad", "Confirm", "Dislike"}),
    }
    with standing_in(tasks) as stand_in:
        page.goto(stand_in.link)
        for row, keys in zip(tasks, (("ArrowRight",), ("1", "3", "c"), ("3",)), strict=True):
            text = page.locator("#instructions").inner_text()
            explained, not_explained = words[row["form"]]
            assert [word for word in explained if word not in text] == []
            assert [word for word in not_explained if word in text] == []
            offered = page.locator("#task button[data-side]:not([hidden])")
            assert sorted(one.get_attribute("data-side") or "" for one in offered.all()) == sorted(row["choices"])
            page.locator("#start").click()
            page.wait_for_function(ALL_THERE)
            for key in keys:
                page.wait_for_timeout(450)  # the page takes no answer right after another
                page.keyboard.press(key)
            if row is not tasks[-1]:
                expect(page.locator("#prompt")).not_to_have_text(row["prompt"])
                page.locator("#help").click()
        expect(page.locator("#done")).to_be_visible()
