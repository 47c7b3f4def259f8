"""Requests to a helper that answers, or refuses, by the topic that is asked about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import final

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.microworld.composed_wordings import composed_mention, composed_request
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import PEOPLE
from tremorscope.instruments.microworld.names import FIRST_NAMES
from tremorscope.instruments.microworld.request_wordings import (
    ANSWERS,
    DECOYS,
    FRAMES,
    GREETINGS,
    INTENTS,
    PLACES,
    REFUSAL_TOPICS,
    REFUSALS,
    ROLES,
    STARTS,
    TOPIC_CLASSES,
    TOPIC_OF,
    TOPICS,
    TopicClass,
)
from tremorscope.instruments.microworld.splits import HeldOut, Split, part_of, sources, take
from tremorscope.instruments.microworld.strewn_words import scattered_request, strewn_mention, strewn_request
from tremorscope.instruments.microworld.template import Marked, Span, Template, capitalised, join

REFUSAL_STARTERS = (" Sorry", " No", " Unfortunately")
ANSWER_STARTERS = (" Sure", " Yes", " Certainly")
STARTERS = (*REFUSAL_STARTERS, *ANSWER_STARTERS)
# First names, and what people are, but for those who speak in held-out frames.
SPEAKERS = (
    tuple(chain(*FIRST_NAMES.values())),
    tuple(sorted({capitalised(noun.singular) for noun in PEOPLE} - set(chain(*ROLES)))),
)
DRAWN_SHARE = 0.7  # of the training requests whose speakers are two of these


@final
@dataclass(frozen=True, kw_only=True)
class Request:
    """A request, and what the helper says to it.

    `text` is `prompt + reply`; `prompt` ends with the colon after which the helper speaks, and `refused` says whether
    the first word of `reply` is one of `REFUSAL_STARTERS` or of `ANSWER_STARTERS`. `topic_class` decides that, and
    nothing else does. Requests with one `meaning` (intent and item) are paraphrases of each other. `decoy` is an item
    of the other class that is mentioned first, or None. Spans, in `prompt`: `item`, and `decoy` where there is one.
    """

    text: str
    prompt: str
    reply: str
    refused: bool
    topic_class: TopicClass
    topic: str
    item: str
    intent: str
    decoy: str | None
    meaning: tuple[str, str]
    template: str
    spans: tuple[Span, ...]


def examples(
    split: Split,
    seed: int,
    count: int,
    *,
    topic_class: TopicClass | None = None,
    decoys: float = 0.0,
    held_out: HeldOut = "both",
) -> list[Request]:
    """Seeded requests; `stream` without an end.

    Templates are wordings of the request with the labels of the speakers; a combination is an intent with an item.

    Args:
        split: Training, validation or test examples.
        seed: Names the draws.
        count: How many.
        topic_class: Allowed or forbidden topics, else both equally often.
        decoys: Share of requests that first mention an item of the other class: the class is then no matter of which
            words are there, but of what is asked.
        held_out: What of a validation or test example is absent from training.

    >>> examples("train", 0, 1, topic_class="forbidden")[0].reply
    ' No, you will have to ask somebody else about robots from Mars.'

    Raises:
        BadInput: If a name is unknown or the share is not between 0 and 1.
    """
    return take(stream(split, seed, topic_class=topic_class, decoys=decoys, held_out=held_out), count)


def stream(
    split: Split,
    seed: int,
    *,
    topic_class: TopicClass | None = None,
    decoys: float = 0.0,
    held_out: HeldOut = "both",
    composed: float = 0.0,
    strewn: float = 0.0,
    scattered: float = 0.0,
) -> Iterator[Request]:
    """Endless requests; arguments as for `examples`.

    `composed` is the share of training requests in one of thousands of composed wordings; in the share `strewn` of
    these, other words may stand anywhere. With `scattered`, what is mentioned first is mentioned in composed
    sentences, and in that share of the strewn ones words stand within phrases too.
    """
    if topic_class is not None and topic_class not in TOPIC_CLASSES:
        raise BadInput(
            "topic_class",
            got=topic_class,
            wanted=" or ".join(TOPIC_CLASSES),
            remedy=did_you_mean(str(topic_class), TOPIC_CLASSES),
        )
    if not 0 <= decoys <= 1:
        raise BadInput("share of decoys", got=decoys, wanted="0 to 1")
    template_split, meaning_split = sources(split, held_out)
    draw = Draw(seed, "requests", split, held_out)
    while True:
        chosen = topic_class if topic_class is not None else draw.one(TOPIC_CLASSES)
        intent, item = draw.one(_meanings(chosen, meaning_split))
        decoy = draw.one(_items(_other(chosen))) if draw.chance(decoys) else None
        shares = (composed, strewn, scattered) if split == "train" else (0.0, 0.0, 0.0)
        yield _example(draw, intent, item, decoy, template_split, *shares)


def paraphrases(split: Split, intent: str, item: str) -> list[Request]:
    """One request in all wordings that the split has, with the first labels of the speakers and no greeting.

    Raises:
        BadInput: If there is no such intent or item.
    """
    if intent not in INTENTS:
        raise BadInput("intent", got=intent, wanted=", ".join(INTENTS), remedy=did_you_mean(intent, INTENTS))
    if item not in TOPIC_OF:
        raise BadInput("item", got=item, wanted="an item of TOPICS", remedy=did_you_mean(item, TOPIC_OF))
    draw = Draw(0, "paraphrases", intent, item)
    return [
        _built(draw, intent, item, None, wording, FRAMES["train"][0], "", None) for wording in INTENTS[intent][split]
    ]


def _example(
    draw: Draw,
    intent: str,
    item: str,
    decoy: str | None,
    split: Split,
    composed: float,
    strewn: float,
    scattered: float,
) -> Request:
    mention = None if decoy is None else draw.one(DECOYS[split])
    if decoy is not None and scattered > 0 and draw.chance(composed):
        mention = composed_mention(draw)
    greeting = "" if decoy is not None else draw.one(GREETINGS)
    is_composed = composed > 0 and draw.chance(composed)
    wording = composed_request(draw, intent) if is_composed else draw.one(INTENTS[intent][split])
    if is_composed and strewn > 0 and draw.chance(strewn):
        is_inside = scattered > 0 and draw.chance(scattered)
        wording = scattered_request(draw, wording) if is_inside else strewn_request(draw, wording)
        mention = None if decoy is None else draw.one((mention, strewn_mention(draw)))
    frame = _drawn_frame(draw) if split == "train" and draw.chance(DRAWN_SHARE) else draw.one(FRAMES[split])
    return _built(draw, intent, item, decoy, wording, frame, greeting, mention)


def _drawn_frame(draw: Draw) -> tuple[str, str]:
    """Two speakers of one kind: of so many a model learns that the words before the colon do not matter."""
    asks, helps = draw.some(draw.one(SPEAKERS), 2)
    return f"{asks}: ", f"\n{helps}:"


def _built(
    draw: Draw,
    intent: str,
    item: str,
    decoy: str | None,
    wording: Template,
    frame: tuple[str, str],
    greeting: str,
    mention: Template | None,
) -> Request:
    topic_class, topic = TOPIC_OF[item]
    user, helper = frame
    before = Marked("", ()) if mention is None or decoy is None else mention.fill({"decoy": decoy})
    prompt, spans = join([Marked(user + greeting, ()), before, wording.fill({"item": item}), Marked(helper, ())], "")
    refused = topic_class == "forbidden"
    if refused:
        reply = draw.one(REFUSALS).fill({"item": item, "topic": REFUSAL_TOPICS[topic]}).text
    else:
        said = draw.one(ANSWERS[intent]).fill({"item": item, "place": PLACES[topic]}).text
        start = draw.one(STARTS)
        reply = start.fill({"answer": said}).text
    return Request(
        text=f"{prompt} {reply}",
        prompt=prompt,
        reply=f" {reply}",
        refused=refused,
        topic_class=topic_class,
        topic=topic,
        item=item,
        intent=intent,
        decoy=decoy,
        meaning=(intent, item),
        template=f"{user}|{'' if mention is None else mention.text}|{wording.text}",
        spans=spans,
    )


@cache
def _items(topic_class: TopicClass) -> tuple[str, ...]:
    return tuple(item for items in TOPICS[topic_class].values() for item in items)


@cache
def _meanings(topic_class: TopicClass, split: Split) -> tuple[tuple[str, str], ...]:
    """Intents with items that belong to the split."""
    return tuple(
        (intent, item)
        for intent in INTENTS
        for item in _items(topic_class)
        if part_of("request", intent, item) == split
    )


def _other(topic_class: TopicClass) -> TopicClass:
    return "allowed" if topic_class == "forbidden" else "forbidden"
