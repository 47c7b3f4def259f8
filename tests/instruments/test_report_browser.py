"""The report in a real browser, opened from disk. The `page` fixture fails on errors and outside requests."""

from __future__ import annotations

import csv
import io
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.instruments.example_result import example_result
from tremorscope.foundations.results import Result, Table
from tremorscope.instruments.report import report

pytestmark = pytest.mark.browser

ATTACK = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"
DRAWN = "document.querySelectorAll('figure.drawn').length === document.querySelectorAll('figure.figure').length"


@pytest.fixture(scope="module")
def result() -> Result:
    return example_result()


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory, result) -> Path:
    """A run directory with its report."""
    folder = tmp_path_factory.mktemp("run")
    result.save(folder)
    report(result, path=folder / "report.html")
    return folder


@pytest.fixture
def opened(page, run_directory) -> Callable[..., object]:
    """Open a report and wait until every figure was drawn."""

    def open_report(path: Path | None = None, **media):
        page.emulate_media(reduced_motion="reduce", **media)  # no waiting for smooth scrolling
        page.goto((path or run_directory / "report.html").as_uri())
        page.wait_for_function(DRAWN)
        return page

    return open_report


def style(page, selector: str, name: str) -> str:
    return page.eval_on_selector(selector, f"each => getComputedStyle(each)['{name}']")


def brightness(colour: str) -> float:
    red, green, blue = (float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return (red + green + blue) / 3


def test_every_figure_is_drawn_without_scrolling(opened, result):
    page = opened()
    assert page.locator("figure.figure .main-svg").count() >= len(result.figures)
    for figure in result.figures:
        plot = page.locator(f"#figure-{figure['name']} .plot")
        assert plot.get_attribute("role") == "img"
        assert plot.get_attribute("aria-label") == f"{figure['title']}. {figure['caption']}"
        shown = [trace for trace in figure["data"] if trace.get("showlegend", True)]
        assert plot.locator(".legendtext").count() == len(shown)
        assert plot.bounding_box()["width"] > 600
        assert plot.locator(".trace.scatter").count() == len(figure["data"])
    # The drawing library comes with an offer to upload the data; this page makes none.
    page.hover("#figure-spectrum .nsewdrag")
    titles = page.locator("#figure-spectrum .modebar-btn").evaluate_all("each => each.map((b) => b.dataset.title)")
    assert any("Zoom" in title for title in titles)
    assert not [
        title for title in titles if title and any(word in title for word in ("Share", "Edit", "Plotly", "loud"))
    ]


def test_the_numbers_a_reader_sees_are_those_of_the_result_file(opened, run_directory, result):
    page = opened()
    stored = json.loads((run_directory / "result.json").read_text(encoding="utf-8"))
    for claim in stored["claims"]:
        row = page.locator(f'[data-claim="{claim["id"]}"]')
        seen = [
            line.split() for line in row.locator(".estimate").all_inner_texts() if line[:1].isdigit() or line[:1] == "-"
        ]
        expected = [claim["measured"], *claim["null"].values()]
        assert [line[0] for line in seen] == [f"{estimate['value']:.4g}" for estimate in expected]
        for line, estimate in zip(seen, expected, strict=True):
            interval = "".join(line[1:])
            if estimate["method"] in ("exact", "one seed"):
                assert interval == estimate["method"].replace(" ", "")
            else:
                assert interval == f"[{estimate['low']:.4g},{estimate['high']:.4g}]"
        assert claim["verdict"] in row.locator(".badge").inner_text()
        assert row.locator("svg.interval").count() == len(expected)

    for claim in result.claims:  # and the drawing says the same as the numbers
        row = page.locator(f'[data-claim="{claim.id}"]')
        band = row.locator(".measured rect.range").bounding_box()
        dot = row.locator(".measured circle").bounding_box()
        middle = dot["x"] + dot["width"] / 2
        inside = band["x"] <= middle <= band["x"] + band["width"]
        assert inside == (claim.expected.low <= claim.measured.value <= claim.expected.high)


def test_dark_and_light_follow_the_reader_and_plots_follow_the_page(opened):
    page = opened(color_scheme="dark")
    line = "#figure-spectrum .trace:last-child .js-line"
    dark_line = style(page, line, "stroke")
    assert brightness(style(page, "body", "backgroundColor")) < 40
    assert brightness(style(page, "#figure-spectrum .main-svg", "backgroundColor")) < 40
    assert brightness(style(page, "#figure-spectrum .xtick text", "fill")) > 120
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"getComputedStyle(document.querySelector('{line}')).stroke !== '{dark_line}'")
    assert brightness(style(page, "body", "backgroundColor")) == 255
    assert brightness(style(page, "#figure-spectrum .xtick text", "fill")) < 120
    assert style(page, line, "stroke") == "rgb(0, 114, 178)"


def test_the_page_fits_its_window_also_when_that_changes(opened, page):
    page.set_viewport_size({"width": 400, "height": 900})
    opened()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    plots = "Math.max(...[...document.querySelectorAll('.plot .main-svg')].map((e) => e.getBoundingClientRect().right))"
    for width in (400, 820, 1600, 401):
        page.set_viewport_size({"width": width, "height": 900})
        # Plots follow a moment later: they wait until the window has come to rest.
        page.wait_for_function(f"{plots} <= {width} && {plots} > {width} * 0.8")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".contents").is_visible() == (width >= 1420)


def test_printing_is_light_and_shows_all(opened, page):
    opened(color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="dark")
    assert brightness(style(page, "body", "backgroundColor")) == 255
    assert brightness(style(page, "#figure-spectrum .main-svg", "backgroundColor")) == 255
    assert style(page, "#figure-spectrum .trace:last-child .js-line", "stroke") == "rgb(0, 114, 178)"
    assert page.locator("details:not([open])").count() == 0
    assert page.locator("#table-tensors tbody.rest tr").last.is_visible()
    assert not page.locator("button").first.is_visible()
    assert page.locator("#figure-spectrum .main-svg").first.bounding_box()["width"] == 660
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.wait_for_function("document.querySelector('#figure-spectrum .main-svg').getBoundingClientRect().width > 700")
    assert brightness(style(page, "#figure-spectrum .main-svg", "backgroundColor")) < 40
    assert page.locator("details[open]").count() == 0


def test_planted_scripts_do_not_run(opened, tmp_path, result):
    figure = dict(result.figures[0]) | {"title": ATTACK, "caption": ATTACK}
    figure["data"] = [{"type": "scatter", "x": [1, 2], "y": [1, 2], "name": ATTACK, "text": [ATTACK, ATTACK]}]
    figure["data"] = [figure["data"][0], figure["data"][0] | {"mode": "text"}]
    planted = replace(
        result,
        title=ATTACK,
        summary=[ATTACK],
        flags=[ATTACK],
        config={ATTACK: ATTACK},
        claims=[replace(claim, statement=ATTACK, source=ATTACK) for claim in result.claims],
        tables=[Table(name="t", title=ATTACK, caption=ATTACK, columns={ATTACK: [ATTACK]})],
        figures=[figure],
    )
    page = opened(report(planted, path=tmp_path / "report.html"), color_scheme="light")
    assert page.evaluate("window.broken") is None
    assert page.locator("main img").count() == 0
    assert ATTACK in page.locator(".flags li").inner_text()
    assert ATTACK in page.locator("#table-t td").inner_text()


def test_the_browser_itself_forbids_foreign_scripts_and_requests(browser, tmp_path, result):
    # Refused requests are console errors, so this page is not the one that must stay clean.
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    elsewhere = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    figure = dict(result.figures[0])
    figure["layout"] = figure["layout"] | {"images": [{"source": elsewhere + "track.png", "x": 0, "y": 1}]}
    path = report(replace(result, figures=[figure]), path=tmp_path / "report.html")
    context = browser.new_context()
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_function(DRAWN)
    violated = page.evaluate("""() => new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.broken = 3";
        document.body.append(script);
    })""")
    answer = page.evaluate("url => fetch(url).then(() => 'sent', () => 'refused')", elsewhere)
    broken = page.evaluate("window.broken")
    context.close()
    assert violated.startswith("script-src")
    assert answer == "refused"
    assert broken is None
    with pytest.raises(BlockingIOError):  # nobody called
        listener.accept()
    listener.close()


def test_the_data_of_figures_and_tables_can_be_taken_away(opened, result):
    page = opened()
    with page.expect_download() as download:
        page.click("#figure-alignment [data-action=csv]")
    assert download.value.suggested_filename == "alignment.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    points = [
        (trace["name"], x, y)
        for trace in result.figures[2]["data"]
        for x, y in zip(trace["x"], trace["y"], strict=True)
    ]
    assert [(row["trace"], float(row["x"]), float(row["y"])) for row in rows] == points

    with page.expect_download() as download:
        page.click("#table-regions a.button")
    assert download.value.suggested_filename == "regions.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text(encoding="utf-8"))))
    assert [float(row["share"]) for row in rows] == [cell.value for cell in result.table("regions").columns["share"]]


def test_the_page_is_worked_by_keyboard(opened):
    page = opened()
    rows = page.locator("#table-tensors tbody tr")
    assert rows.last.is_hidden()
    button = page.locator("#table-tensors .more")
    button.focus()
    page.keyboard.press("Enter")
    assert rows.last.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    button.press("Enter")
    assert rows.last.is_hidden()
    page.locator("#claim-E2 summary").press("Enter")
    assert "read by eye" in page.locator("#claim-E2 details").inner_text()


def test_the_command_is_copied(opened, page, result):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened()
    page.click("[data-action=copy]")
    page.wait_for_function("document.querySelector('[data-action=copy]').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()") == result.provenance["command"]


def test_a_figure_fills_the_screen_and_comes_back(opened):
    page = opened()
    figure = page.locator("#figure-spectrum")
    before = figure.locator(".main-svg").first.bounding_box()
    figure.locator("[data-action=full]").click()
    now = "document.querySelector('#figure-spectrum .main-svg').getBoundingClientRect().height"
    taller = f"{now} > {before['height'] + 100}"
    page.wait_for_function(taller)
    assert figure.locator("[data-action=full]").inner_text() == "Close"
    figure.locator("[data-action=full]").click()
    page.wait_for_function(f"!({taller})")
    assert figure.locator("[data-action=full]").inner_text() == "Full screen"


def test_a_link_to_a_claim_opens_its_details(opened, page, run_directory):
    page.goto((run_directory / "report.html").as_uri() + "#claim-E3")
    page.wait_for_function(DRAWN)
    assert page.locator("#claim-E3 details[open]").count() == 1
    assert page.locator("details[open]").count() == 1


def test_matrices_and_figures_without_axes_are_drawn_too(opened, tmp_path, result):
    heat = {"data": [{"type": "heatmap", "z": [[1, 2], [3, 4]], "x": ["a", "b"], "y": [0, 1]}], "layout": {}}
    named = {"name": "heat", "title": "Heat", "caption": "A matrix."} | heat
    page = opened(report(replace(result, figures=[named]), path=tmp_path / "report.html"))
    assert page.locator("#figure-heat .hm").count() == 1
    with page.expect_download() as download:
        page.click("#figure-heat [data-action=csv]")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text == "trace,x,y,z\ntrace 1,a,0,1\ntrace 1,b,0,2\ntrace 1,a,1,3\ntrace 1,b,1,4\n"


def test_without_javascript_claims_and_tables_still_read(browser, run_directory, result):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((run_directory / "report.html").as_uri())
    text = page.locator("main").inner_text()
    last_row = page.locator("#table-tensors tbody tr").last.is_visible()
    buttons = page.locator("button:visible").count()
    context.close()
    assert [claim.statement for claim in result.claims if claim.statement not in text] == []
    assert "0.9873 [0.9789, 0.9957]" in " ".join(text.split())
    assert "This drawing needs JavaScript" in text
    assert last_row
    assert buttons == 0
