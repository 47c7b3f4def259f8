"""Sentences with slots, and what is held out of training."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.instruments.microworld.reference import unchecked
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.splits import divide, part_of, sources, take
from tremorscope.instruments.microworld.template import Span, Template, join


def test_spans_hold_the_words_of_their_slots():
    text, spans = Template("{A_bird}, {other} and {other}: {bird}.").fill({"bird": "owl", "other": "the fox"})
    assert text == "An owl, the fox and the fox: owl."
    assert [(span.label, text[span.start : span.stop]) for span in spans] == [
        ("bird", "owl"),
        ("other", "the fox"),
        ("other", "the fox"),
        ("bird", "owl"),
    ]


def test_a_pattern_reads_back_what_the_template_wrote():
    template = Template("{Who} saw {what}, and {who} ran.")
    words = {"who": ["a dog", "a dog and a cat"], "what": ["it. (All of it)", "it"]}
    pattern = template.pattern(words)
    for who in words["who"]:
        for what in words["what"]:
            found = pattern.fullmatch(template.fill({"who": who, "what": what}).text)
            assert found is not None
            assert found["who"].lower() == who
            assert found["what"] == what
    assert pattern.fullmatch("A dog saw it, and a dog and a cat ran.") is None


def test_a_pattern_of_a_slot_with_an_article_is_refused():
    with pytest.raises(BadInput, match="slots without an article"):
        Template("{a_dog}").pattern({"dog": ["dog"]})


def test_joining_moves_spans():
    one = Template("{x} b").fill({"x": "a"})
    text, spans = join([one, one], ", ")
    assert text == "a b, a b"
    assert spans == (Span("x", 0, 1), Span("x", 5, 6))


def test_divided_templates_are_disjoint_and_complete():
    for count in range(3, 40):
        parts = divide(list(range(count)))
        assert sorted([*parts["train"], *parts["validation"], *parts["test"]]) == list(range(count))
        assert len(parts["validation"]) == len(parts["test"]) == max(1, count // 8)


def test_parts_are_eight_one_and_one_tenths():
    counts = Counter(part_of("some", number) for number in range(5000))
    # Three standard deviations of a binomial with 5,000 draws at 1/10 are 64.
    assert abs(counts["validation"] - 500) < 64
    assert abs(counts["test"] - 500) < 64


def test_sources_say_what_is_new():
    assert sources("train", "both") == sources("train", "templates") == ("train", "train")
    assert sources("test", "templates") == ("test", "train")
    assert sources("validation", "combinations") == ("train", "validation")
    assert sources("test", "both") == ("test", "test")


def test_unknown_names_and_empty_requests_are_refused():
    with pytest.raises(BadInput, match="Did you mean 'test'"):
        unchecked(sources)("tset", "both")
    with pytest.raises(BadInput, match="Did you mean 'templates'"):
        unchecked(sources)("test", "template")
    with pytest.raises(BadInput, match="wanted at least 3"):
        divide("ab")
    with pytest.raises(BadInput, match="wanted at least 1"):
        take(iter("ab"), 0)
