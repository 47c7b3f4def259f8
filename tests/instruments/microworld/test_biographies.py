"""Biographies: the correlation is as asked, and words that tell the gender are all marked."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from scipy.stats import binomtest

from tests.instruments.microworld.reference import disjoint, reproducible, shared, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.biographies import PUBLISHED_PAIR, Biography, examples
from tremorscope.instruments.microworld.names import FIRST_NAMES
from tremorscope.instruments.microworld.professions import PROFESSIONS, profession_of

TELLING = {
    "female": {"she", "her", "hers", "ms", "mother", "daughter", "sister", "grandmother", "woman", "aunt"},
    "male": {"he", "him", "his", "mr", "father", "son", "brother", "grandfather", "man", "uncle"},
}


def telling_words(text: str, surname: str, gender: str) -> list[str]:
    """Words of a text that a reader knows a gender by; a surname may look like one."""
    words = re.findall(r"[A-Za-z]+", text)
    return [
        word for word in words if word != surname and (word.lower() in TELLING[gender] or word in FIRST_NAMES[gender])
    ]


def follows_leaning(found: list[Biography]) -> int:
    return sum(one.gender == profession_of(one.profession).leaning for one in found)


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5])
def test_the_correlation_is_the_one_asked_for(correlation):
    found = examples("train", 0, 300, correlation=correlation)
    share = binomtest(follows_leaning(found), len(found)).proportion_ci(0.99)
    assert share.low <= (1 + correlation) / 2 <= share.high


def test_at_the_ends_gender_tells_all():
    for split in ("train", "test"):
        found = examples(split, 0, 60, professions=PUBLISHED_PAIR, correlation=1.0)
        assert {(one.profession, one.gender) for one in found} == {("nurse", "female"), ("professor", "male")}
    assert follows_leaning(examples("train", 0, 60, correlation=-1.0)) == 0


def test_professions_are_balanced_and_lean_half_and_half():
    assert len(PROFESSIONS) == 28
    assert Counter(profession.leaning for profession in PROFESSIONS) == {"female": 14, "male": 14}
    counts = Counter(one.profession for one in examples("train", 0, 560))
    # 20 each are expected, with a standard deviation of 4.4.
    assert len(counts) == 28
    assert all(20 - 4 * 4.4 < count < 20 + 4 * 4.4 for count in counts.values())


def test_marked_words_are_the_ones_that_tell_the_gender():
    for one in examples("test", 0, 80) + examples("train", 0, 80):
        surname = one.name.split()[1]
        marked = [one.text[span.start : span.stop] for span in one.spans if span.label == "gendered"]
        assert sorted(marked) == sorted(telling_words(one.text, surname, one.gender))
        assert telling_words(one.text, surname, "female" if one.gender == "male" else "male") == []
        well_formed(one.text)


def test_minimal_pairs_differ_in_telling_words_alone():
    for one in examples("train", 1, 60):
        surname = one.name.split()[1]
        other = "female" if one.gender == "male" else "male"
        assert telling_words(one.counterpart, surname, one.gender) == []
        assert len(one.prompt.split()) == len(one.counterpart.split())
        changed = [
            (left, right)
            for left, right in zip(one.prompt.split(), one.counterpart.split(), strict=True)
            if left != right
        ]
        assert all(telling_words(right, surname, other) for _, right in changed)
        assert not telling_words(one.neutral, surname, "female")
        assert not telling_words(one.neutral, surname, "male")


def test_neutral_biographies_tell_nothing():
    for one in examples("test", 0, 60, gendered=False):
        surname = one.name.split()[1]
        assert one.gender is None
        assert one.prompt == one.neutral == one.counterpart
        assert not telling_words(one.text, surname, "female") + telling_words(one.text, surname, "male")
        assert not [span for span in one.spans if span.label == "gendered"]


def test_the_prompt_does_not_name_the_profession_and_the_text_does():
    names = re.compile("|".join(rf"\b{profession.name}s?\b" for profession in PROFESSIONS))
    for one in examples("train", 2, 100):
        assert not names.search(one.prompt), one.prompt
        assert names.findall(one.text[len(one.prompt) :]) == [one.profession]
        assert one.text.startswith(one.prompt)
        (span,) = [span for span in one.spans if span.label == "profession"]
        assert one.text[span.start - 1 : span.stop] == one.answer


def test_tasks_are_those_of_the_profession():
    for one in examples("train", 3, 50):
        told = [one.text[span.start : span.stop] for span in one.spans if span.label == "task"]
        assert told
        assert set(told) <= set(profession_of(one.profession).tasks)
    tasks = [task for profession in PROFESSIONS for task in profession.tasks]
    assert len(set(tasks)) == len(tasks) == 28 * 8


def test_held_out_wordings_and_names_are_not_in_training():
    disjoint(examples, lambda one: one.template.partition(" ")[0] + one.template, held_out="templates", count=20)
    disjoint(examples, lambda one: one.name, held_out="combinations", count=80)
    seen = {sentence for one in examples("train", 0, 150) for sentence in sentences(one)}
    assert not seen & {sentence for one in examples("test", 0, 40) for sentence in sentences(one)}
    shared(examples, lambda one: sentences(one)[0], held_out="combinations", count=8)


def sentences(one: Biography) -> list[str]:
    """The wordings that a biography is made of."""
    return re.split(r"(?<=[.?]) ", one.template)


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match="Did you mean 'nurse'"):
        examples("train", 0, 1, professions=["nurs"])
    with pytest.raises(BadInput, match="professions: got none"):
        examples("train", 0, 1, professions=[])
    with pytest.raises(BadInput, match=r"got 1\.5; wanted -1 to 1"):
        examples("train", 0, 1, correlation=1.5)
    with pytest.raises(BadInput, match="which all lean to female"):
        examples("train", 0, 1, professions=["nurse", "vet"], correlation=0.5)
