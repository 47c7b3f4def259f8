"""Sequences that come again."""

from __future__ import annotations

import pytest

from tests.instruments.microworld.reference import SPLITS, disjoint, reproducible, shared, unchecked, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.induction import KINDS, MOST_WORDS, Repetition, examples, stream


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_what_followed_before(kind):
    for split in SPLITS:
        for one in examples(split, 0, 40, kind=kind):
            shown = [one.text[span.start : span.stop] for span in one.spans]
            assert shown == [*one.words, *one.words]
            assert len(set(one.words)) == len(one.words) >= 3
            assert one.text.startswith(one.prompt + one.answer)
            assert one.answer.strip() == one.words[one.known]
            if one.known:
                # Induction itself: the last word of the prompt came before, and the answer came after it.
                places = [span.stop for span in one.spans if span.stop <= len(one.prompt)]
                last = shown[len(places) - 1]
                assert one.words[one.words.index(last) + 1] == one.answer.strip()
            well_formed(one.text)


def pairs(one: Repetition) -> set[tuple[str, str]]:
    """Words next to each other, round the end too where the sequence just goes on."""
    around = one.words[1:] + (one.words[:1] if one.kind == "repeat" else ())
    return set(zip(one.words, around, strict=False))


def test_no_pair_of_a_held_out_sequence_is_in_training():
    found = {split: set().union(*map(pairs, examples(split, 0, 100))) for split in SPLITS}
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]


def test_held_out_forms_are_not_in_training():
    disjoint(examples, lambda one: (one.kind, one.template), held_out="templates", count=40)
    shared(examples, lambda one: (one.kind, one.template), held_out="combinations", count=20)


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="Did you mean 'repeat'"):
        next(unchecked(stream)("train", 0, kind="repeats"))


def test_a_sequence_comes_again_as_often_as_asked_and_as_fits():
    copies = set()
    for _, one in zip(range(60), stream("train", 0, kind="repeat", most_copies=12), strict=False):
        shown = [one.text[span.start : span.stop] for span in one.spans]
        times, rest = divmod(len(shown), len(one.words))
        assert rest == 0
        assert shown == list(one.words) * times
        assert one.text.startswith(one.prompt + one.answer)
        assert len(shown) - len(one.words) <= MOST_WORDS
        copies.add(times - 1)
    assert {1, 12} <= copies
    assert all(len(one.spans) == 2 * len(one.words) for one in examples("train", 0, 30, kind="copy"))
