"""The report as a file: what it says, what it escapes, what it refuses. Its behaviour in a browser is tested apart."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.instruments.example_result import example_result
from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result, Table
from tremorscope.instruments.report import report
from tremorscope.instruments.report.interval_drawing import interval_drawing
from tremorscope.instruments.report.numerals import numeral
from tremorscope.instruments.report.page import MAX_ROWS

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class _Outline(HTMLParser):
    """Elements with their attributes, and what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data


def outline(html: str) -> _Outline:
    parser = _Outline()
    parser.feed(html)
    return parser


def without_figures(**more) -> Result:
    return replace(example_result(), figures=(), **more)


def rendered(folder: Path, *results: Result, **more) -> str:
    return report(*results, path=folder / "report.html", **more).read_text(encoding="utf-8")


def one_claim(measured: Estimate, *nulls: Estimate, low: float = 0.5, high: float = float("inf")) -> Claim:
    return Claim(
        study="s",
        row="R1",
        preset="quick",
        statement="A statement.",
        source="A source.",
        scope="A scope.",
        expected=Expected(low=low, high=high, origin="an origin"),
        measured=measured,
        nulls=tuple(
            NullEvidence(name=f"null {i}", description="Chance.", measured=null) for i, null in enumerate(nulls)
        ),
        without_null=None if nulls else "There is none.",
    )


def test_one_file_is_written_whole_and_its_path_returned(tmp_path):
    target = tmp_path / "new" / "report.html"
    assert report(example_result(), path=target) == target
    assert [entry.name for entry in target.parent.iterdir()] == ["report.html"]
    assert target.stat().st_size <= 8e6
    html = target.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")


def test_everything_of_the_result_is_on_the_page(tmp_path):
    result = example_result()
    text = " ".join(outline(rendered(tmp_path, result)).text.split())
    said = [result.title, result.study, result.preset, *result.summary, *result.flags, str(result.seed), "1 min 32 s"]
    for claim in result.claims:
        said += [claim.row, claim.statement, claim.source, claim.scope, claim.expected.origin, str(claim.verdict)]
        said += [part for null in claim.nulls for part in (null.name, null.description)]
    said += [part for block in (*result.figures,) for part in (block["title"], block["caption"])]
    said += [part for table in result.tables for part in (table.title, table.caption)]
    said += ["train.momentum", "cpu.model", "Example CPU at 2.6 GHz", result.provenance["command"]]
    assert [part for part in said if " ".join(part.split()) not in text] == []


def test_claims_come_before_figures_and_figures_before_tables(tmp_path):
    html = rendered(tmp_path, example_result())
    places = [html.index(f'id="{name}"') for name in ("claims", "figure-spectrum", "figure-alignment", "table-regions")]
    assert places == sorted(places)
    assert places[-1] < html.index('id="repeat"')


def test_numbers_of_estimates_are_those_of_the_result(tmp_path):
    result = example_result()
    html = rendered(tmp_path, result)
    for claim in result.claims:
        row = html.split(f'data-claim="{claim.id}"')[1].split("</tr>")[0]
        values = re.findall(r'<data class="value" value="([^"]+)">([^<]+)</data>', row)
        estimates = [claim.measured, *(null.measured for null in claim.nulls)]
        assert [float(exact) for exact, _ in values] == [estimate.value for estimate in estimates]
        assert [shown for _, shown in values] == [f"{estimate.value:.4g}" for estimate in estimates]
        ends = re.findall(r'<data class="(?:low|high)" value="([^"]+)">', row)
        widths = [estimate for estimate in estimates if estimate.method not in ("exact", "one seed")]
        assert [float(end) for end in ends] == [end for estimate in widths for end in (estimate.low, estimate.high)]


def test_every_verdict_has_a_word_beside_its_colour(tmp_path):
    html = rendered(tmp_path, without_figures())
    for word in ("holds", "fails", "vacuous", "undecided"):
        assert re.search(rf'<span class="badge {word}"><span aria-hidden="true">.</span> {word}</span>', html)
    assert "4 hold<" in html
    assert "1 fails<" in html


def test_nothing_on_the_page_asks_for_another_file(tmp_path):
    parsed = outline(rendered(tmp_path, example_result()))
    links = [
        attributes[key] for _, attributes in parsed.elements for key in ("href", "src", "action") if key in attributes
    ]
    assert links
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    policy = next(a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_text_of_a_result_is_never_markup(tmp_path):
    claim = replace(
        one_claim(Estimate.exact(1.0)), statement=ATTACK, source=ATTACK, scope=ATTACK, row=ATTACK, without_null=ATTACK
    )
    figure = dict(example_result().figures[0]) | {"title": ATTACK, "caption": ATTACK}
    figure["data"] = [{"type": "scatter", "x": [1], "y": [1], "name": ATTACK}]
    result = Result(
        study=ATTACK,
        preset=ATTACK,
        seed=1,
        config={ATTACK: ATTACK},
        title=ATTACK,
        summary=[ATTACK],
        flags=[ATTACK],
        claims=[claim],
        tables=[Table(name="t", title=ATTACK, caption=ATTACK, columns={ATTACK: [ATTACK]})],
        figures=[figure],
        provenance={"command": ATTACK, "environment": {ATTACK: ATTACK}},
    )
    clean = replace(example_result(), figures=example_result().figures[:1])
    html = rendered(tmp_path, result)
    assert "<script>alert" not in html
    assert not [tag for tag, _ in outline(html).elements if tag == "img"]

    def scripts(text: str) -> int:
        return sum(tag == "script" for tag, _ in outline(text).elements)

    assert scripts(html) == scripts(rendered(tmp_path, clean))
    assert outline(html).text.count("alert(1)") > 10


def test_figures_survive_the_embedding(tmp_path):
    figure = dict(example_result().figures[0])
    figure["data"] = [{"type": "scatter", "x": [1, None], "y": [2.5, 3], "name": ATTACK + "&amp; é"}]
    html = rendered(tmp_path, replace(example_result(), figures=[figure]))
    spec = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html).group(1))
    assert spec == {"data": figure["data"], "layout": figure["layout"]}


def test_a_table_can_be_taken_away_whole(tmp_path):
    result = without_figures()
    html = rendered(tmp_path, result)
    links = re.findall(r'download="(\w+)\.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', html)
    assert [name for name, _ in links] == ["regions", "tensors"]
    for name, content in links:
        rows = list(csv.DictReader(io.StringIO(base64.b64decode(content).decode())))
        columns = result.table(name).flat_columns()
        assert list(rows[0]) == list(columns)
        for key, column in columns.items():
            assert [row[key] for row in rows] == ["" if cell is None else str(cell) for cell in column]


def test_long_tables_are_folded_longer_ones_cut_and_the_page_says_so(tmp_path):
    folded = rendered(tmp_path, without_figures())
    assert "Show all 40 rows" in folded
    assert "of the run directory" not in folded
    cut = rendered(
        tmp_path, without_figures(tables=[Table(name="t", title="T", caption="C", columns={"n": list(range(50_000))})])
    )
    assert f"The first {MAX_ROWS} of 50000 rows; all of them are in tables/t.parquet" in cut
    assert cut.count("<tr>") < MAX_ROWS + 10
    assert 'download="t.csv"' not in cut


def test_several_results_share_one_page_without_sharing_ids(tmp_path):
    html = rendered(tmp_path, example_result(seed=100), example_result(seed=101))
    ids = [attributes["id"] for _, attributes in outline(html).elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert {"r0-claim-E1", "r1-claim-E1"} <= set(ids)
    assert "<h1>2 results of example</h1>" in html
    targets = {
        attributes["href"][1:] for _, attributes in outline(html).elements if attributes.get("href", "").startswith("#")
    }
    assert targets <= set(ids)
    assert html.count("plotly.js v") == 1


def test_the_command_given_stands_before_the_one_recorded(tmp_path):
    given = "tremorscope examine 'my net.py:build' --prompt \"a < b\""
    html = rendered(tmp_path, without_figures(), command=given)
    assert given in unescape(html)
    assert "tremorscope run example" not in html
    listed = without_figures(provenance={"command": ["tremorscope", "examine", "my net.py:build"]})
    assert "tremorscope examine 'my net.py:build'" in unescape(rendered(tmp_path, listed))


def test_a_result_of_nothing_but_a_title_is_a_page(tmp_path):
    html = rendered(tmp_path, Result(study="s", preset="quick", seed=0, config={}, title="Nothing yet"))
    assert "Nothing yet" in html
    assert len(html) < 100_000  # nothing to draw, so the drawing library stays at home


def test_a_result_read_back_gives_the_same_page(tmp_path):
    result = example_result()
    result.save(tmp_path / "run")
    assert rendered(tmp_path / "a", result) == rendered(tmp_path / "b", Result.load(tmp_path / "run"))


def test_no_result_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"results of a report: got none; wanted at least one"):
        report(path=tmp_path / "report.html")


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_a_figure_that_is_no_json_is_refused_by_name_and_nothing_is_written(tmp_path, value):
    figure = dict(example_result().figures[0]) | {"data": [{"y": [value]}]}
    with pytest.raises(BadInput, match=r"figure 'spectrum'.*plain JSON without NaN"):
        report(replace(example_result(), figures=[figure]), path=tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"cannot write .*report\.html"):
        report(without_figures(), path=tmp_path / "file" / "report.html")


def test_importing_the_report_loads_neither_templates_nor_plots():
    code = "import sys, tremorscope.instruments.report; print([m for m in ('jinja2', 'plotly') if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_marks_stand_in_order_on_a_line():
    estimate = Estimate(value=0.9, low=0.8, high=1.0, level=0.99, n=5, method="t")
    drawing = interval_drawing(one_claim(estimate, Estimate.exact(0.0)))
    assert not drawing.is_log
    assert drawing.nulls[0].value == 7.0  # the smallest number stands one margin from the left
    assert drawing.measured.high == 93.0
    assert drawing.ends == (50.0,)
    assert drawing.expected == (50.0, 100.0)
    assert drawing.measured.low == pytest.approx(7 + 86 * 0.8)
    assert drawing.measured.has_width
    assert not drawing.nulls[0].has_width


@pytest.mark.parametrize(
    ("measured", "null", "low", "is_log"),
    [(1e-4, 1.0, 1e-2, True), (1e-2, 1.0, 0.5, False), (-1e-4, 1.0, 1e-2, False), (0.0, 1.0, 1e-6, False)],
)
def test_the_axis_is_logarithmic_over_decades_of_positive_numbers_only(measured, null, low, is_log):
    drawing = interval_drawing(one_claim(Estimate.exact(measured), Estimate.exact(null), low=low))
    assert drawing.is_log is is_log
    if is_log:
        assert drawing.ends[0] == pytest.approx(50.0)


def test_one_number_everywhere_stands_in_the_middle():
    drawing = interval_drawing(one_claim(Estimate.exact(0.5), Estimate.exact(0.5)))
    assert (drawing.measured.value, drawing.ends) == (50.0, (50.0,))


def test_an_infinite_end_reaches_the_edge_and_an_infinite_value_is_not_drawn(tmp_path):
    open_ended = Estimate(value=1.0, low=0.7, high=float("inf"), level=0.99, n=5, method="t")
    assert interval_drawing(one_claim(open_ended)).measured.high == 100.0
    lost = one_claim(Estimate.exact(float("inf")))
    assert interval_drawing(lost) is None
    assert "\N{INFINITY}" in rendered(tmp_path, without_figures(claims=[lost]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(float("nan"), "not a number"), (float("-inf"), "-\N{INFINITY}"), (1.5e-7, "1.5e-07"), (False, "no"), ("x", "x")],
)
def test_numeral(value, text):
    assert numeral(value) == text
