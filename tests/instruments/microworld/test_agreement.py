"""Agreement: every label is recomputed from the text by a morphology of the test's own."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.instruments.microworld.reference import disjoint, reproducible, shared, unchecked, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.agreement import STRUCTURES, Agreement, examples, pair_part, stream

IRREGULAR_PLURALS = {"men", "women", "children", "geese", "mice", "wolves", "scarves", "leaves", "shelves"}
SINGULARS_IN_S = {"bus", "glass", "boss", "dress", "compass", "princess"}
BASES_IN_S = {"miss", "cross", "pass", "guess"}
PREPOSITION = "near|behind|beside|by|next to|close to|across from|in front of|to the left of|far from"
SHAPES = {
    "simple": re.compile(r"(?P<controller>\w+)$"),
    "across_preposition": re.compile(rf"(?P<controller>\w+) (?:{PREPOSITION}) the (?P<other>\w+)$"),
    "within_relative": re.compile(r"(?P<other>\w+) (?:that|who) the (?P<controller>\w+)$"),
    "across_relative": re.compile(r"(?P<controller>\w+) (?:that|who) the (?P<other>\w+) \w+$"),
}


def noun_number(noun: str) -> str:
    plural = noun in IRREGULAR_PLURALS or (noun.endswith("s") and noun not in SINGULARS_IN_S)
    return "plural" if plural else "singular"


def verb_number(verb: str) -> str:
    return "singular" if verb.endswith("s") and verb not in BASES_IN_S else "plural"


def complaints(example: Agreement) -> list[str]:
    """What is wrong with an example, read from its texts alone."""
    found = SHAPES[example.structure].search(example.prompt)
    if found is None:
        return ["the prompt has another structure"]
    controller = noun_number(found["controller"])
    partner = SHAPES[example.structure].search(example.pair_prompt)
    rules = {
        "number": controller == example.number,
        "answer": verb_number(example.answer.strip()) == controller,
        "wrong": verb_number(example.wrong.strip()) != controller,
        "pair": partner is not None and noun_number(partner["controller"]) != controller,
        "text": example.text.startswith(example.prompt + example.answer),
        "other": example.other_number == (noun_number(found["other"]) if "other" in found.groupdict() else None),
    }
    if example.structure == "across_relative":
        inner = example.prompt.split()[-1]
        rules["inner verb"] = verb_number(inner) == noun_number(found["other"])
    return [name for name, holds in rules.items() if not holds]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_labels_follow_from_the_text(structure):
    for split in ("train", "validation", "test"):
        for example in examples(split, 0, 80, structure=structure):
            assert complaints(example) == []
            well_formed(example.text)


def test_the_check_notices_a_wrong_form():
    example = examples("train", 0, 1)[0]
    bad = Agreement(**{**vars(example), "answer": example.wrong, "wrong": example.answer})
    assert "answer" in complaints(bad)


def test_pairs_differ_in_the_controlling_noun_alone():
    for example in examples("train", 1, 100):
        one, other = example.prompt.split(), example.pair_prompt.split()
        assert len(one) == len(other)
        assert sum(left != right for left, right in zip(one, other, strict=True)) == 1


def test_spans_name_their_words():
    for example in examples("train", 2, 120):
        named = {span.label: example.prompt[span.start : span.stop] for span in example.spans}
        assert noun_number(named["subject"]) in ("singular", "plural")
        controller = named["inner_subject" if example.structure == "within_relative" else "subject"]
        assert noun_number(controller) == example.number
        assert (set(named) == {"subject"}) == (example.structure == "simple")


def test_numbers_and_structures_are_balanced():
    found = examples("train", 0, 400)
    assert Counter(example.structure for example in found) == dict.fromkeys(STRUCTURES, 100)
    matches = [example.number == example.other_number for example in found if example.other_number is not None]
    # Three standard deviations of 300 coin tosses are 26.
    assert abs(sum(matches) - 150) < 26
    assert abs(sum(example.number == "plural" for example in found) - 200) < 30


def test_held_out_words_and_pairs_are_not_in_training():
    disjoint(examples, lambda one: one.template, held_out="templates", count=120)
    disjoint(examples, lambda one: (one.noun, one.verb), held_out="combinations", count=120)
    shared(examples, lambda one: one.template.partition(": ")[2].rpartition("}")[0], held_out="combinations", count=60)


def test_no_clause_of_training_holds_a_held_out_pair():
    # The clause inside as well: its subject and verb are read from the text.
    for example in examples("train", 3, 150, structure="across_relative"):
        inner, verb = example.prompt.split()[-2:]
        outer = next(span for span in example.spans if span.label == "inner_subject")
        assert example.prompt[outer.start : outer.stop] == inner
        assert pair_part(_singular(inner), _base(verb)) == "train"
        assert pair_part(example.noun, example.verb) == "train"


def test_plain_prompts_have_the_same_words_in_the_same_places():
    for structure, length in (("simple", 2), ("within_relative", 5), ("across_relative", 6)):
        found = examples("test", 0, 40, structure=structure, held_out="combinations", plain=True)
        assert {len(example.prompt.split()) for example in found} == {length}
        assert {example.prompt.split()[0] for example in found} == {"The"}


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="Did you mean 'simple'"):
        unchecked(stream)("train", 0, structure="simpel")
    with pytest.raises(BadInput, match="Plain sentences have one template"):
        examples("test", 0, 1, plain=True)
    with pytest.raises(BadInput, match="number of examples: got 0"):
        examples("test", 0, 0)


def _singular(noun: str) -> str:
    from tremorscope.instruments.microworld.lexicon import NOUNS

    return next(one.singular for one in NOUNS if noun in (one.singular, one.plural))


def _base(verb: str) -> str:
    from tremorscope.instruments.microworld.lexicon import TRANSITIVE

    return next(one.plural for verbs in TRANSITIVE.values() for one in verbs if verb in (one.singular, one.plural))
