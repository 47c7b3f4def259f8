"""Positions: literal in a plain pass, the text's own while it is written; masks; nothing outside the texts."""

from __future__ import annotations

import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.positions import Window, choose
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch

EMPTY = Batch((), {}, None)
LEFT = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
RIGHT = LEFT.flip(1)


def window(mask=None, start=0, prompt=None):
    return Window(batch=EMPTY, start=start, mask=mask, prompt_length=prompt)


def marked(position, view, length, where=None):
    """Which of two rows' columns are chosen, by what an edit would change."""
    x = torch.zeros(2, length, 1)
    at = None if position is None else Site.parse(f"acts:h@{position}").position
    chosen = choose(at, where, view, x, "here")
    if chosen is None:
        return [[1] * length] * 2
    taken = chosen.take(x)
    return chosen.put(x, torch.ones_like(taken))[..., 0].int().tolist()


@pytest.mark.parametrize(
    ("position", "mask", "wanted"),
    [
        ("all", LEFT, [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]),
        ("last", LEFT, [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),
        ("last", RIGHT, [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]),
        ("last", None, [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),
        ("-1", RIGHT, [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]),  # literal, padding or not
        ("0", LEFT, [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]),
        ("1:4:2", None, [[0, 1, 0, 1, 0], [0, 1, 0, 1, 0]]),
        ("-2:", None, [[0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]),
        ("prompt", LEFT, LEFT.tolist()),
        ("prompt", None, [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]),
    ],
)
def test_in_a_plain_pass(position, mask, wanted):
    assert marked(position, window(mask), 5) == wanted


GROWN = torch.cat([LEFT, torch.ones(2, 2, dtype=torch.int64)], 1)  # prompts of 3 and 5 tokens, and two new ones


@pytest.mark.parametrize(
    ("position", "wanted"),
    [
        ("last", [[0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0]]),
        ("-1", [[0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0, 0]]),
        ("-3", [[0, 0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]]),
        ("0", [[0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]),
        ("4", [[0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0]]),
        ("2:", [[0, 0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]]),
        (":2", [[0, 0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]),
        ("-2:", [[0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]),
        (":-1", [[0, 0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]]),
        ("1::2", [[0, 0, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1, 0]]),
        ("prompt", [[0, 0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0, 0]]),
        ("generated", [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1]]),
    ],
)
def test_while_a_text_is_written_every_way_of_reading_means_the_same(position, wanted):
    assert marked(position, window(GROWN, prompt=5), 7) == wanted
    pieces = [(0, 5), (5, 6), (6, 7)]  # the prompt, then one new token at a time
    read = [marked(position, window(GROWN[:, :stop], start, 5), stop - start) for start, stop in pieces]
    assert [[one for piece in read for one in piece[row]] for row in range(2)] == wanted


@pytest.mark.parametrize("position", ["3", "-1", "2:5", "last", "prompt"])
def test_a_plain_pass_behind_a_cache_keeps_absolute_positions(position):
    whole = marked(position, window(RIGHT), 5)
    later = marked(position, window(RIGHT, start=3), 2)
    assert later == [row[3:] for row in whole]


def test_masks_of_the_user_narrow_positions_down():
    rows, positions = torch.tensor([True, False]), torch.tensor([[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])
    assert marked(None, window(), 5, rows) == [[1] * 5, [0] * 5]
    assert marked("1:", window(), 5, positions) == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 1]]
    assert marked("last", window(RIGHT), 5, rows) == [[0, 0, 1, 0, 0], [0] * 5]
    assert marked(None, window(), 5, lambda batch: positions.bool()) == positions.tolist()
    flat = torch.zeros(2, 3)
    chosen = choose(None, rows, window(), flat, "here")
    assert chosen.put(flat, torch.ones_like(chosen.take(flat))).tolist() == [[1, 1, 1], [0, 0, 0]]


def test_one_position_of_each_row_is_one_vector_of_each_row():
    x = torch.arange(10.0).reshape(2, 5, 1)
    taken = {at: choose(at, None, window(RIGHT), x, "here").take(x) for at in ("last", 1, -1)}
    assert {at: value[:, 0].tolist() for at, value in taken.items()} == {"last": [2, 9], 1: [1, 6], -1: [4, 9]}
    assert choose(Site.parse("acts:h@1:3").position, None, window(), x, "here").take(x).shape == (2, 2, 1)


def test_the_length_of_a_cache_is_asked_before_the_pass():
    from transformers import DynamicCache

    cache, tokens = DynamicCache(), torch.zeros(2, 1, dtype=torch.int64)
    cache.update(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4), 0)
    assert Window.of(Batch((), {"input_ids": tokens, "past_key_values": cache}, None)).start == 3
    old = ((torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)),)
    assert Window.of(Batch((), {"input_ids": tokens, "past_key_values": old}, None)).start == 4
    silent = {"input_ids": tokens, "cache_params": object()}
    assert Window.of(Batch((), silent, None)).start is None
    assert Window.of(Batch((), silent | {"attention_mask": torch.ones(2, 6)}, None)).start == 5
    assert Window.of(EMPTY).start == 0


@pytest.mark.parametrize(
    ("position", "view", "message"),
    [
        (
            "5",
            window(LEFT),
            "got position 5; wanted -5 to 4: the texts have 5 positions, of which the mask shows 3 to 5",
        ),
        ("-6", window(), "got position -6; wanted -5 to 4: the texts have 5 positions"),
        ("7:9", window(), "got no position in 7:9; wanted -5 to 4"),
        ("generated", window(), "got a plain forward pass; wanted a text that is being written"),
        ("last", window(LEFT[:, :4]), r"a value of shape \(2, 5, 1\) beside a mask of shape \(2, 4\)"),
        ("-4", window(LEFT, prompt=5), "got position -4; wanted a prompt of 4 tokens. The shortest prompt has 3"),
        ("3::-1", window(LEFT, prompt=5), "got the step -1"),
        ("3", window(start=None), "got a cache that does not say how long it is"),
    ],
)
def test_positions_that_do_not_fit(position, view, message):
    with pytest.raises(BadInput, match=message):
        marked(position, view, 5)


def test_values_without_positions_and_masks_of_another_shape():
    with pytest.raises(BadInput, match=r"a position at a value of shape \(2, 3\).*Leave out what follows"):
        choose("last", None, window(), torch.zeros(2, 3), "here")
    with pytest.raises(BadInput, match=r"mask of here: got shape \(3,\); wanted \(2,\) or \(2, 5\)"):
        choose(None, torch.ones(3), window(), torch.zeros(2, 5, 1), "here")
