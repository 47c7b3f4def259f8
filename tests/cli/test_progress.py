from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from tremorscope.cli import progress
from tremorscope.cli.progress import LiveBars, PlainLines, Tally, following
from tremorscope.foundations.run import Run


def event(label, done, total, at):
    return {"kind": "progress", "label": label, "done": done, "total": total, "time": at}


def test_the_pace_gives_the_time_left():
    tally = Tally()
    for done, at in ((10, 100.0), (20, 105.0), (30, 120.0)):
        tally.take(event("members", done, 100, at))
    assert tally.stages["members"].seconds_left == pytest.approx(70.0)  # 20 in 20 s, 70 to go
    assert tally.line(25.0) == "members 30/100, 1 min 10 s left (after 25 s)"


def test_labels_stand_beside_each_other_and_finished_ones_leave():
    tally = Tally()
    for label, done, total in (("members", 2, 5), ("columns", 0, 1210), ("columns", 300, 1210), ("test", 3, 3)):
        tally.take(event(label, done, total, 100.0 + done))
    assert tally.line(12.0).startswith("members 2/5 · columns 300/1210, ")
    tally.take(event("columns", 1210, 1210, 2000.0))
    assert tally.line(12.0) == "members 2/5 (after 12 s)"


def test_a_label_that_begins_again_has_a_new_pace():
    tally = Tally()
    for done, at in ((0, 0.0), (10, 1000.0), (0, 1001.0), (5, 1006.0)):
        tally.take(event("columns", done, 10, at))
    assert tally.stages["columns"].seconds_left == pytest.approx(5.0)


def test_other_and_damaged_events_change_nothing():
    tally = Tally()
    for odd in ({"kind": "started"}, {}, {"kind": "progress"}, event("x", "many", 3, 1.0), event("x", None, 3, 1.0)):
        tally.take(odd)
    assert tally.stages == {}
    assert tally.line(31.0) == "working (after 31 s)"


def test_plain_lines_come_every_ten_seconds():
    now, shown = [0.0], []
    lines, tally = PlainLines(shown.append, clock=lambda: now[0]), Tally()
    lines.start()
    for second in range(26):
        now[0] = float(second)
        tally.take(event("members", second, 100, float(second)))
        lines.update(tally)
    assert shown == [
        "members 10/100, 1 min 30 s left (after 10 s)",
        "members 20/100, 1 min 20 s left (after 20 s)",
    ]


def test_the_follower_reads_the_file_and_prints_messages_as_they_come(tmp_path):
    run = Run.create(tmp_path, name="x", request={"verb": "run"})
    run.say("before anyone looked")
    shown = []
    with following(run.path, display=PlainLines(shown.append, every=0.2)):
        run.say("a word")
        run.say("careful", "warning")
        run.progress("members", 1, 4)
        deadline = time.monotonic() + 10
        while not any("members 1/4" in line for line in shown) and time.monotonic() < deadline:
            time.sleep(0.02)
        run.say("at the very end")
    assert shown[:2] == ["a word", "warning: careful"]
    assert shown[2].startswith("members 1/4 (after 0.")
    assert shown[-1] == "at the very end"
    assert "before anyone looked" not in shown


def test_the_follower_survives_the_loss_of_the_file(tmp_path):
    run = Run.create(tmp_path, name="x", request={"verb": "run"})
    shown = []
    with following(run.path, display=PlainLines(shown.append, every=0.1)):
        (run.path / "events.jsonl").unlink()
        (run.path / "events.jsonl").mkdir()  # reading it is an error now
        deadline = time.monotonic() + 10
        while not shown and time.monotonic() < deadline:
            time.sleep(0.02)
    assert shown[0].startswith("working")


def test_bars_move_and_leave_and_messages_stay():
    screen = io.StringIO()
    bars = LiveBars(Console(file=screen, force_terminal=True, width=80, color_system=None))
    tally = Tally()
    bars.start()
    for done, at in ((1, 100.0), (2, 110.0)):
        tally.take(event("members [1]", done, 4, at))
        bars.update(tally)
    bars.message("a word with [brackets]", "warning")
    assert "members [1]" in screen.getvalue()
    assert "2/4" in screen.getvalue()
    assert "20 s left" in screen.getvalue()
    tally.take(event("members [1]", 4, 4, 130.0))
    bars.update(tally)
    bars.stop()
    assert "warning: a word with [brackets]" in screen.getvalue()
    assert "\x1b[2K" in screen.getvalue().rpartition("left")[2], "the bar was wiped"
    assert "\x1b[?25h" in screen.getvalue(), "the cursor is shown again"


def test_a_pipe_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert not progress.is_terminal()
