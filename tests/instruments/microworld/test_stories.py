"""Stories: three judges agree, the state that wrote them, the reader, and one that goes by signs of its own."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from scipy.stats import binomtest

from tests.instruments.microworld.reference import SPLITS, disjoint, reproducible, shared, well_formed
from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.stories import Story, endings, examples
from tremorscope.instruments.microworld.story_reader import read
from tremorscope.instruments.microworld.story_wordings import BARE, ENDINGS, MEETINGS, NOT_WORN, OUTCOMES, PLANS, WORN

# Signs that what is told did not happen, or did no harm; that it did; and which words tell which mishap.
UNREAL = (
    "dream|pretended|acted as if|trick|game|joke|tale|had read|talked about|song|film|almost|nearly|could|about to"
    "|would|might|did not|nobody (?!was hurt)|how easy"
)
SAFE = "safe|felt nothing|nothing was hurt|nobody was hurt|not hurt|without a scratch|was fine|no pain|did its work"
HURT = r"and hurt|\bhurt (?:his|her)|was sore|sore [a-z]+|bandage|was hurt"
MISHAP = {
    "fall": r"fell (?:off|out)|slipped on|tumbled|crashed|tripped",
    "bump": r"walked into|ran against|knocked|in the way of",
    "sting": r"stung|angry swarm|disturbed",
    "burn": r"touched|spilled|grabbed|picked up a hot",
    "scratch": r"rose bush|thorns|annoyed|crawled",
}
GUARDS = {"padded suit": "fall bump", "padded coat": "fall", "strong helmet": "bump", "thick gloves": "burn scratch"}
GUARDS |= {"leather apron": "burn scratch", "net hat": "sting", "bee suit": "sting"}
WEARS = r"(?:put on|wore|wear all day|without|was dressed in)"


def judged(text: str) -> bool:
    """Whether somebody is hurt, by signs in the text."""
    _, gear_sentence, _, last = re.split(r"(?<=\.) ", text)
    if re.search(UNREAL, last) or re.search(SAFE, last):
        return False
    if re.search(HURT, last):
        return True
    kinds = [kind for kind, signs in MISHAP.items() if re.search(signs, last)]
    if not kinds:
        return False
    (kind,) = kinds
    before = re.split(MISHAP[kind], last)[0]
    victim = re.findall(r"[A-Z][a-z]+", before)[-1]
    gear = next((name for name in GUARDS if name in gear_sentence), None)
    worn = gear is not None and victim in gear_sentence and re.search(WEARS, gear_sentence)
    return not (worn and kind in GUARDS[gear].split())


@pytest.mark.parametrize("split", SPLITS)
def test_three_judges_agree(split):
    found = examples(split, 0, 120, hurt_rate=0.4)
    for one in found:
        assert read(one.text) == one
        assert judged(one.text) == one.hurt, one.text
        assert one.text == one.prompt + one.completion
        well_formed(one.text)
    assert {one.outcome for one in found} == set(OUTCOMES)


def test_words_alone_do_not_tell():
    found = examples("train", 1, 300)
    for word in ("fell", "hurt", "sore", "stung"):
        hurt = Counter(one.hurt for one in found if word in one.completion)
        assert min(hurt[True], hurt[False]) > 0


def test_open_endings_are_decided_by_gear_that_is_worn_and_guards():
    opened = [one for one in examples("train", 2, 300, hurt_rate=0.5) if one.outcome == "open"]
    guarded = [one for one in opened if not one.hurt]
    assert len(guarded) > 10
    assert all(one.worn and one.wearer == one.victim for one in guarded)
    assert any(one.hurt and one.worn and one.wearer == one.victim for one in opened)
    assert any(one.hurt and one.worn and one.wearer != one.victim for one in opened)


@pytest.mark.parametrize("hurt_rate", [0.0, 0.1, 1.0])
def test_the_rate_is_the_one_asked_for(hurt_rate):
    found = examples("train", 0, 200, hurt_rate=hurt_rate)
    share = binomtest(sum(one.hurt for one in found), len(found)).proportion_ci(0.99)
    assert share.low <= hurt_rate <= share.high


def test_other_endings_keep_the_prompt():
    story = examples("train", 0, 1)[0]
    others = endings(story, 0, 60, hurt_rate=0.5)
    assert {one.prompt for one in others} == {story.prompt}
    assert len({one.completion for one in others}) > 30
    for one in others:
        assert read(one.text) == one
        assert one.victim in {one.text[span.start : span.stop] for span in one.spans if span.label == "victim"}
    assert endings(story, 0, 60, hurt_rate=0.5) == others


def test_every_ending_names_its_victim():
    for by_split in ENDINGS.values():
        assert all("victim" in template.slots for templates in by_split.values() for template in templates)


def test_no_sentence_has_two_meanings():
    gear = [template for part in (WORN, NOT_WORN, BARE) for split in SPLITS for template in part[split]]
    last = [template for part in ENDINGS.values() for split in SPLITS for template in part[split]]
    for some in (gear, last, [t for s in SPLITS for t in MEETINGS[s]], [t for s in SPLITS for t in PLANS[s]]):
        assert len({template.text.lower() for template in some}) == len(some)


TOLD = "Tom met Mia at the beehive. Mia put on a bee suit. They wanted to take a little honey. "


@pytest.mark.parametrize(
    ("last", "hurt"),
    [
        ("Mia got stung by a bee.", False),
        ("Tom got stung by a bee.", True),
        ("Mia fell off the wall.", True),  # a mishap of another place, against which a bee suit does not guard
        ("Mia got stung by a bee and hurt her neck.", True),  # what is said outright stands, gear or not
        ("Tom dreamed that Mia got stung by a bee.", False),
        ("Tom fell in love with a small puppy.", False),
        ("Tom got stung by a bee and hurt her neck.", None),  # the pronoun is wrong
        ("Anna got stung by a bee.", None),  # nobody has met her
        ("Tom got stung by a tiger.", None),
        ("Tom got stung by a bee", None),
        ("", None),
    ],
)
def test_the_reader_judges_what_others_write(last, hurt):
    story = read(TOLD + last)
    assert (None if story is None else story.hurt) is hurt


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TOLD, ""),
        ("Tom met Mia", "Tom met Tom"),
        ("Mia put on", "Anna put on"),
        ("They wanted to", "Anna wanted to"),
        (". Mia", ".  Mia"),
        ("honey. ", "honey. It was time to take a little honey. "),
    ],
)
def test_the_reader_guesses_nothing(before, after):
    text = f"{TOLD}Then Tom fed the ducks."
    assert read(text) is not None
    assert read(text.replace(before, after)) is None


def test_held_out_words_and_victims_are_not_in_training():
    disjoint(examples, lambda one: one.template, held_out="templates", count=30)
    disjoint(examples, lambda one: (one.victim, one.place), held_out="combinations", count=50)
    parts = {split: {part for one in examples(split, 0, 40) for part in one.template.split(" | ")} for split in SPLITS}
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["validation"]
    shared(examples, lambda one: one.template.split(" | ")[0], held_out="combinations", count=5)


def test_spans_name_their_words():
    for one in examples("train", 3, 80):
        named = {span.label: one.text[span.start : span.stop] for span in one.spans}
        assert named["hero"] == one.hero
        assert named["friend"] == one.friend
        assert named["victim"] == one.victim
        assert ("gear" in named) == (one.gear is not None)


def test_examples_repeat():
    reproducible(examples)


def test_wrong_requests_are_refused():
    with pytest.raises(BadInput, match=r"hurt_rate: got 1\.2"):
        examples("train", 0, 1, hurt_rate=1.2)
    with pytest.raises(BadInput, match=r"hurt_rate: got -1"):
        endings(examples("train", 0, 1)[0], 0, 1, hurt_rate=-1.0)


def test_a_wrong_label_would_be_noticed():
    one = next(one for one in examples("train", 0, 50) if one.hurt)
    assert judged(one.text) != Story(**{**vars(one), "hurt": False}).hurt
