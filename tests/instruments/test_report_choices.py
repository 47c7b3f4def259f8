"""Copy buttons and menus of a report in a real browser, from disk; by mouse, by keyboard, without a clipboard."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from tests.instruments.example_result import example_result
from tremorscope.foundations.results import Result, Table
from tremorscope.instruments.report import report

pytestmark = pytest.mark.browser

DRAWN = "document.querySelectorAll('figure.drawn').length === document.querySelectorAll('figure.figure').length"
TEXTS = {
    "as Python": "import tremorscope\nedited = network  # '<b>' & \"quotes\"\n",
    "as command": "tremorscope steer apply x --prompt 'it'\"'\"'s'",
    "bake command": "tremorscope steer bake x folder",
}
WITHOUT_CLIPBOARD = "Object.defineProperty(Navigator.prototype, 'clipboard', { get: () => undefined });"


def choosing():
    """A figure of two views, one trace shown in each; a third trace stays."""
    traces = [
        {"type": "scatter", "x": [0, 1], "y": [k, k + 1], "name": f"view {k}", "visible": k != 1} for k in (0, 1, 2)
    ]
    buttons = [
        {"label": f"the {name}", "method": "restyle", "args": [{"visible": [k == 0, k == 1]}, [0, 1]]}
        for k, name in enumerate(("first", "second"))
    ]
    layout = {"updatemenus": [{"type": "dropdown", "buttons": buttons, "active": 0}]}
    return {"name": "views", "title": "Views", "caption": "Of `two`, one at a time.", "data": traces, "layout": layout}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    table = Table(
        name="use",
        title="Going on",
        caption="With `code` & more.",
        columns={"direction": ["a", "b"], **{name: [text, None] for name, text in TEXTS.items()}},
        code=tuple(TEXTS),
    )
    result = replace(example_result(), tables=[table], figures=[choosing()])
    folder = tmp_path_factory.mktemp("report")
    result.save(folder)
    assert Result.load(folder).table("use").code == tuple(TEXTS)
    return report(Result.load(folder), path=folder / "report.html")


@pytest.fixture
def opened(page, path):
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    return page


def button(page, name):
    found = page.locator(f"#table-use button:has-text('Copy {name}')")
    assert found.count() == 1  # the second row has nothing to copy
    return found


def test_each_button_copies_its_text_and_says_so(opened):
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for name, text in TEXTS.items():
        one = button(opened, name)
        assert one.get_attribute("aria-label") == f"Copy {name}, a"
        one.focus()
        opened.keyboard.press("Enter")
        opened.wait_for_function("document.activeElement.textContent === 'Copied'")
        assert opened.locator("#announcement").inner_text() == "Copied to the clipboard."
        assert opened.evaluate("navigator.clipboard.readText()") == text
        opened.wait_for_function(f"document.activeElement.textContent === 'Copy {name}'")
    opened.locator("#table-use summary").first.press("Enter")
    assert opened.locator("#table-use pre").first.inner_text().strip() == TEXTS["as Python"].strip()
    assert opened.locator(".caption code").inner_text() == "code"
    assert opened.locator("figcaption code").inner_text() == "two"


def test_without_a_clipboard_a_field_is_selected_and_copied(page, path):
    page.add_init_script(WITHOUT_CLIPBOARD)
    page.add_init_script(
        "document.addEventListener('copy', () => { const at = document.activeElement;"
        " window.copied = at.value.slice(at.selectionStart, at.selectionEnd); });"
    )
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    for name, text in TEXTS.items():
        one = button(page, name)
        one.click()
        assert page.evaluate("window.copied") == text
        assert page.evaluate("document.activeElement.textContent") == "Copied"
        assert page.locator("textarea").count() == 0


def test_where_nothing_may_copy_the_text_is_selected(page, path):
    page.add_init_script(WITHOUT_CLIPBOARD + "document.execCommand = () => false;")
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    button(page, "bake command").click()
    assert page.evaluate("getSelection().toString()") == TEXTS["bake command"]
    assert page.locator("#table-use button:has-text('Press Ctrl+C')").count() == 1
    assert page.locator("#table-use details[open]").count() == 1


def test_a_menu_is_one_of_the_page_and_changes_the_drawing(opened):
    shown = "[...document.querySelectorAll('#figure-views .legendtext')].map((e) => e.textContent).join()"
    menu = opened.locator("#figure-views select")
    assert menu.get_attribute("aria-label") == "Shown in Views"
    assert opened.locator(".updatemenu-container").count() == 0
    assert opened.evaluate(shown) == "view 0,view 2"
    menu.focus()
    opened.keyboard.press("ArrowDown")
    opened.wait_for_function(f"{shown} === 'view 1,view 2'")
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_function(f"{shown} === 'view 1,view 2'")
    with opened.expect_download() as download:
        opened.click("#figure-views [data-action=csv]")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [(row["shown"], row["trace"]) for row in rows[::2]] == [
        ("the first", "view 0"),
        ("the first", "view 2"),
        ("the second", "view 1"),
        ("the second", "view 2"),
    ]


def test_in_a_narrow_window_legends_leave_room(page, path):
    page.set_viewport_size({"width": 400, "height": 900})
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    legend = page.locator("#figure-views .legend").bounding_box()
    plot = page.locator("#figure-views .nsewdrag").bounding_box()
    menu = page.locator("#figure-views select").bounding_box()
    assert menu["y"] + menu["height"] <= legend["y"]
    assert legend["y"] + legend["height"] <= plot["y"] + 1
    assert plot["height"] > 150
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
