"""What the study's owner does on the admin page, with scripts and without."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Browser, Dialog, Page, expect

from seedpo.study.votes.store import Store
from tests.study.web.browser.site import ADMIN_TOKEN, Site, make_study, served


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Site]:
    with served(make_study(tmp_path / "study", pairs=2)) as site:
        yield site


def open_page(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/admin")
    page.get_by_label("Admin token").fill(ADMIN_TOKEN)
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", name="Raters")).to_be_visible()


def states(site: Site) -> list[tuple[bool, bool]]:
    """Whether each rater is revoked, and excluded."""
    with Store.open(site.study, write=False) as store:
        return [(rater.revoked, rater.excluded) for rater in store.raters()]


def test_an_owner_revokes_excludes_and_deletes(page: Page, study: Site) -> None:
    study.link()
    study.link()
    open_page(page, study)
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name=re.compile("^Revoke"))).first
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", refuse)
    row.get_by_role("button", name="Revoke").click()
    assert "cannot be undone" in asked[0]
    assert states(study) == [(False, False)] * 2
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("button", name=re.compile("^Revoke"))).to_have_count(1)
    assert sorted(states(study)) == [(False, False), (True, False)]
    page.get_by_role("button", name=re.compile("^Exclude")).first.click()
    expect(page.get_by_role("button", name=re.compile("^Include"))).to_have_count(1)
    page.get_by_role("button", name=re.compile("^Include")).click()
    expect(page.get_by_role("button", name=re.compile("^Include"))).to_have_count(0)
    page.get_by_role("link", name=re.compile("^Delete")).first.click()
    page.get_by_role("link", name="Keep").click()
    assert len(states(study)) == 2
    page.get_by_role("link", name=re.compile("^Delete")).first.click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status").first).to_contain_text("is deleted")
    assert len(states(study)) == 1


def test_the_admin_page_needs_no_scripts(browser: Browser, study: Site) -> None:
    study.link()
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        open_page(page, study)
        page.get_by_role("button", name=re.compile("^Exclude")).click()
        page.get_by_role("button", name=re.compile("^Revoke")).click()
        assert states(study) == [(True, True)]
        page.get_by_role("link", name=re.compile("^Delete")).click()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_text("Nobody yet.")).to_be_visible()
        assert states(study) == []
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Admin token")).to_be_visible()
    finally:
        context.close()
