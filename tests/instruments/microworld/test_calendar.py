"""The calendar: answers recomputed by counting on fingers, and what is held out is nowhere in training."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from tests.instruments.microworld.reference import disjoint, reproducible, shared, unchecked, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.calendar import MAX_OFFSET, combinations, examples, lists, stream
from tremorscope.instruments.microworld.corpus import CorpusConfig, documents

# In other orders than the module's, and without its arithmetic: the next name, so many times.
RINGS = """Sunday Monday Tuesday Wednesday Thursday Friday Saturday Sunday
December January February March April May June July August September October November December"""
NEXT = {name: after for ring in map(str.split, RINGS.splitlines()) for name, after in pairwise(ring)}
BEFORE = {after: name for name, after in NEXT.items()}
COUNTED = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four"""
COUNT = {word: place for place, word in enumerate(str.split(COUNTED), start=1)}
BACKWARDS = re.compile(
    r"before|ago|back|earlier|Minus|away from|so it was sent|had closed|went by|ends (?:on|in) |"
    r"takes off|had come|left until|sooner|previously|take from|had bought|so it broke",
    re.IGNORECASE,
)


def solved(text: str) -> tuple[str, bool]:
    """The answer to a statement without its last word, and whether it goes backwards; read from its words alone."""
    words = re.findall(r"[A-Za-z-]+", text)
    (start,) = [word for word in words if word in NEXT]
    (offset,) = [COUNT[word.lower()] for word in words if word.lower() in COUNT]
    backwards = BACKWARDS.search(text) is not None
    for _ in range(offset):
        start = (BEFORE if backwards else NEXT)[start]
    return start, backwards


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_answers_are_right(split):
    for example in examples(split, 0, 250):
        answer, backwards = solved(example.prompt)
        assert answer == example.answer.strip(), example.text
        assert backwards == (example.relation == "before")
        assert example.text == f"{example.prompt}{example.answer}."
        well_formed(example.text)


def test_labels_name_the_words_of_the_text():
    for example in examples("train", 1, 200):
        words = {span.label: example.text[span.start : span.stop] for span in example.spans}
        assert COUNT[words["offset"].lower()] == example.offset == example.combination[2]
        assert words["units"].rstrip("s") == ("day" if example.unit == "weekday" else "month")
        assert words["units"].endswith("s") == (example.offset > 1)
        assert words["answer"] == example.answer.strip()
        assert (example.answer_index - example.start) % (7 if example.unit == "weekday" else 12) == (
            example.offset if example.relation == "after" else -example.offset
        ) % (7 if example.unit == "weekday" else 12)


def test_each_offset_has_one_start_for_validation_and_one_for_testing():
    counts = Counter((unit, relation, offset, part) for (unit, relation, offset, _), part in combinations().items())
    for unit, size in (("weekday", 7), ("month", 12)):
        for relation in ("after", "before"):
            for offset in range(1, MAX_OFFSET + 1):
                assert counts[unit, relation, offset, "validation"] == counts[unit, relation, offset, "test"] == 1
                assert counts[unit, relation, offset, "train"] == size - 2


def test_every_start_is_trained_with_most_offsets():
    starts = Counter(
        (unit, relation, start) for (unit, relation, _, start), part in combinations().items() if part == "train"
    )
    assert min(starts.values()) >= MAX_OFFSET - 8
    assert len(starts) == 2 * (7 + 12)


def test_held_out_words_and_combinations_are_not_in_training():
    disjoint(examples, lambda one: one.template, held_out="templates", count=200)
    disjoint(examples, lambda one: one.combination, held_out="combinations", count=300)
    shared(examples, lambda one: one.template, held_out="combinations", count=40)


def test_no_training_text_tells_a_held_out_combination():
    config = CorpusConfig(characters=60_000, weights={"calendar": 1})
    text = " ".join(document.text for document in documents(config, "train"))
    told = re.findall(r"(?i)\b([a-z-]+) (?:day|month)s? (after|before) ([A-Z][a-z]+) (?:is|comes)", text)
    assert len(told) > 50
    held = {
        (example.offset, example.relation, example.prompt[span.start : span.stop])
        for example in examples("test", 0, 400, held_out="combinations")
        for span in example.spans
        if span.label == "start"
    }
    assert not {(COUNT[offset.lower()], relation, start) for offset, relation, start in told} & held


def test_lists_are_in_order():
    for one in lists("train", 0, 200):
        well_formed(one.text)
        for left, right in pairwise(one.words):
            first, second = (left, right) if one.relation == "after" else (right, left)
            if one.unit is None:
                assert COUNT[second] == COUNT[first] + 1
            else:
                assert NEXT[first] == second
        shown = [one.text[span.start : span.stop] for span in one.spans]
        assert [word.lower() for word in shown] == [word.lower() for word in one.words]
    openers = {split: {one.template.partition("|")[0] for one in lists(split, 0, 120)} for split in ("train", "test")}
    assert not openers["train"] & openers["test"]


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="Did you mean 'month'"):
        next(unchecked(stream)("train", 0, unit="months"))
    with pytest.raises(BadInput, match="relation: got since; wanted after or before"):
        next(unchecked(stream)("train", 0, relation="since"))


def test_near_offsets_come_more_often_and_none_is_left_out():
    near = Counter(one.offset for _, one in zip(range(4000), stream("train", 0, near=True), strict=False))
    even = Counter(one.offset for one in examples("train", 0, 4000))
    assert set(near) == set(even) == set(range(1, MAX_OFFSET + 1))
    assert near[1] > 3 * even[1]
    assert near[1] > near[2] > near[4] > near[13]
