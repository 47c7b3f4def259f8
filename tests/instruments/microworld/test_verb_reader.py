"""The reader of verbs against sentences whose number is known."""

from __future__ import annotations

import pytest

from tremorscope.instruments.microworld import agreement
from tremorscope.instruments.microworld.verb_reader import verb_number


@pytest.mark.parametrize("structure", agreement.STRUCTURES)
def test_every_sentence_of_the_grammar_is_read_rightly(structure):
    for split in ("train", "test"):
        for one in agreement.examples(split, 3, 400, structure=structure):
            assert one.text.startswith(one.prompt)
            assert verb_number(one.text[len(one.prompt) :]) == one.number, one.text
            other = "plural" if one.number == "singular" else "singular"
            assert verb_number(f"{one.wrong}{one.text[len(one.prompt + one.answer) :]}") == other, one.text


def test_phrases_between_are_passed_over():
    across = agreement.examples("train", 5, 300, structure="across_preposition")
    for one in across:
        start = next(span.stop for span in one.spans if span.label == "subject")
        # From the subject itself on: the attractor is no subject, and its noun no verb.
        assert verb_number(one.text[start:]) == one.number, one.text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" sits.", "singular"),
        (" often walk home", "plural"),
        (" beside the train rests", "singular"),
        (" of the old trains train the dog", "plural"),
        (" wants to walk", "singular"),
        (" can walk", None),
        (" to walk is fun", "singular"),
        (" walked near the cars", None),
        (" that the boys like sits", None),
        (" and the girl walk", None),
        (" secretary fixes the car", None),  # a longer subject
        ("s are old", None),  # another number
        ("'s dog sits", None),
        (". They walk", None),
        ("", None),
    ],
)
def test_single_texts(text, number):
    assert verb_number(text) == number
