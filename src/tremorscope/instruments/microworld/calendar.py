"""Days and months: "Two days after Monday is Wednesday", forwards and backwards, and lists in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, final, get_args

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.microworld.composed_statements import composed_statement
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.reckoned_statements import reckoned_statement
from tremorscope.instruments.microworld.splits import HeldOut, Split, divide, sources, take
from tremorscope.instruments.microworld.strewn_words import scattered_statement, strewn_statement
from tremorscope.instruments.microworld.template import Marked, Span, Template, capitalised, join, templates
from tremorscope.instruments.microworld.word_list import words

Unit = Literal["weekday", "month"]
Relation = Literal["after", "before"]
UNITS: tuple[Unit, ...] = get_args(Unit)
RELATIONS: tuple[Relation, ...] = get_args(Relation)

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
NAMES: dict[Unit, tuple[str, ...]] = {"weekday": WEEKDAYS, "month": MONTHS}
ONES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
NUMBERS = (*ONES, *TEENS, "twenty", *(f"twenty-{ones}" for ones in ONES[:4]))
MAX_OFFSET = len(NUMBERS)
NEARNESS = 12  # an offset of n comes 1 + NEARNESS // n times as often as the largest, where near ones are preferred

# {units} is "day", "days", "month" or "months", {on} is "on" or "in". The answer comes after the last word.
AFTER = templates(
    "{Offset} {units} after {start} is",
    "{Offset} {units} after {start} comes",
    "The {unit} that comes {offset} {units} after {start} is",
    "If this {unit} is {start}, then in {offset} {units} it will be",
    "It is {start} now. In {offset} {units} it will be",
    "It is {start}. After {offset} more {units} it will be",
    "What comes {offset} {units} after {start}? The answer is",
    "Start with {start} and go {offset} {units} forward: you reach",
    "Start: {start}. Plus {offset} {units}:",
    "Question: which {unit} is {offset} {units} after {start}? Answer:",
    "The trip begins {on} {start} and ends {offset} {units} later, {on}",
    "Count {offset} {units} on from {start} and you arrive at",
    "Add {offset} {units} to {start} and you get",
    "Once {offset} {units} have passed since {start}, it is",
    "The painter left {on} {start} and came home {offset} {units} later, {on}",
    "A letter sent {on} {start} takes {offset} {units}, so it arrives {on}",
    "Move {offset} {units} ahead of {start} and you will find",
    "From {start} it takes {offset} {units} to reach",
    "From {start}, count {offset} {units} forward, and you have",
    "Wait {offset} {units} from {start}, and it will be",
    "We waited {offset} {units} from {start} on, until",
    "The tree was planted {on} {start} and had leaves {offset} {units} later, {on}",
    "If it is {start} today, then {offset} {units} later it is",
    "Later than {start} by {offset} {units} is",
    "{Start} plus {offset} {units} is",
    "After {start}, {offset} {units} go by, and then it is",
    "{Offset} {units} from {start} it is",
    "It was {start} when we began, and {offset} {units} later it was",
    "The shop closed {on} {start} and opened {offset} {units} later, {on}",
    "This {unit} is {start}, so {offset} {units} from now it will be",
    "The {unit} {start} is here. Wait {offset} {units} for",
    "From {start}, wait {offset} {units}, and it is",
    "{Offset} {units} later than {start} is",
    "We planted the tree {on} {start}. It had its first leaves {offset} {units} later, {on}",
)
BEFORE = templates(
    "{Offset} {units} before {start} is",
    "{Offset} {units} before {start} comes",
    "The {unit} that comes {offset} {units} before {start} is",
    "If this {unit} is {start}, then {offset} {units} ago it was",
    "It is {start} now. Go back {offset} {units} and it was",
    "It is {start}. Just {offset} {units} earlier it was",
    "What comes {offset} {units} before {start}? The answer is",
    "Start with {start} and go {offset} {units} back: you reach",
    "Start: {start}. Minus {offset} {units}:",
    "Question: which {unit} is {offset} {units} before {start}? Answer:",
    "The trip ends {on} {start} and began {offset} {units} earlier, {on}",
    "Count {offset} {units} back from {start} and you arrive at",
    "Take {offset} {units} away from {start} and you get",
    "The painter came home {on} {start}, having left {offset} {units} earlier, {on}",
    "A letter that came {on} {start} took {offset} {units}, so it was sent {on}",
    "Look back {offset} {units} from {start} and you will find",
    "From {start} we go {offset} {units} back to",
    "From {start}, count {offset} {units} back, and you have",
    "The tree had leaves {on} {start} and was planted {offset} {units} earlier, {on}",
    "If it is {start} today, then {offset} {units} earlier it was",
    "Earlier than {start} by {offset} {units} is",
    "{Start} minus {offset} {units} is",
    "Before {start}, {offset} {units} went by, and they began {on}",
    "The rain ended {on} {start}. It had begun {offset} {units} before, {on}",
    "{Offset} {units} back from {start} it was",
    "It was {offset} {units} earlier than {start}, so it was",
    "It was {start} when we ended, and {offset} {units} earlier it was",
    "The shop opened {on} {start} after {offset} {units}, so it had closed {on}",
    "This {unit} is {start}, so {offset} {units} back it was",
    "{Start} is the end. {Offset} {units} before that was",
    "{Offset} {units} earlier than {start} is",
    "The tree had its first leaves {on} {start}. We had planted it {offset} {units} earlier, {on}",
)
# Further wordings that are held out; the words that tell the direction are ones that training has.
MORE: dict[Relation, dict[Split, tuple[Template, ...]]] = {
    "after": {
        "validation": templates(
            "They promised it for {start} and needed {offset} {units} more, so it was done {on}",
            "Monika reads {start} on the wall, adds {offset} {units} and says",
            "Just {offset} {units} past {start} on the calendar stands",
            "The guests came {on} {start} and stayed {offset} {units}, until",
            "The exam is {on} {start}; the results come {offset} {units} after that, {on}",
            "My ticket from {start} is good for {offset} {units}, that is until",
            "Paul turned the page from {start} {offset} {units} onwards and saw",
            "{Start} was the first; the last came {offset} {units} later and was",
            "If you plant beans {on} {start}, you eat them after {offset} {units}, {on}",
            "Given {start}, what do we have when {offset} {units} are over? We have",
            "The bus broke down {on} {start} and it took {offset} {units} to mend it, so it ran again {on}",
            "The wedding was planned for {start} but held {offset} {units} later, {on}",
            "Count from {start}: {offset} {units} further is",
            "Add to {start} a total of {offset} {units} for",
            "A baby that slept {on} {start} woke {offset} {units} afterwards, {on}",
            "Yesterday they said {start}, but it is {offset} {units} later: it is",
        ),
        "test": templates(
            "The milk came {on} {start} and was sour {offset} {units} later, {on}",
            "Leave {start}, walk {offset} {units} forward through the calendar, and stop at",
            "The judge spoke {on} {start}, and {offset} {units} later, {on}",
            "Since {start} they have had {offset} {units} of rain; today is",
        ),
    },
    "before": {
        "validation": templates(
            "The invitation for {start} came {offset} {units} before that, {on}",
            "Monika reads {start} on the wall, takes off {offset} {units} and says",
            "Looking back {offset} {units} from {start} on the calendar, she found",
            "The guests left {on} {start} after a stay of {offset} {units}, so they had come {on}",
            "The results came {on} {start}; the exam had been {offset} {units} before, {on}",
            "My ticket ran out {on} {start} after {offset} {units}, so I had bought it {on}",
            "Paul turned the page from {start} {offset} {units} backwards and saw",
            "{Start} was the last; the first came {offset} {units} earlier and was",
            "If you eat beans {on} {start}, you planted them {offset} {units} before, {on}",
            "Given {start}, what did we have {offset} {units} ago? We had",
            "The bus ran again {on} {start} once {offset} {units} had gone into mending it, so it broke down {on}",
            "The wedding was planned for {start} but held {offset} {units} earlier, {on}",
            "Count from {start}: {offset} {units} back is",
            "Take from {start} a total of {offset} {units} for",
            "A baby that woke {on} {start} had fallen asleep {offset} {units} previously, {on}",
            "They say {start}, but it was {offset} {units} sooner: it was",
        ),
        "test": templates(
            "The milk was sour {on} {start}. It had come {offset} {units} earlier, {on}",
            "Leave {start}, walk {offset} {units} backward through the calendar, and stop at",
            "The judge spoke {on} {start}, and {offset} {units} earlier, {on}",
            "{Offset} {units} are left until {start}, so today is",
        ),
    },
}
_FIRST: dict[Relation, tuple[Template, ...]] = {"after": AFTER, "before": BEFORE}
TEMPLATES: dict[Relation, dict[Split, tuple[Template, ...]]] = {
    relation: {split: (*some, *MORE[relation].get(split, ())) for split, some in divide(_FIRST[relation]).items()}
    for relation in RELATIONS
}

# Before a list of names or numbers, by direction; {things} is "days", "months" or "numbers".
LIST_OPENERS: dict[Relation, dict[Split, tuple[Template, ...]]] = {
    "after": divide(
        templates(
            "",
            "",
            "In order: ",
            "The {things} in order: ",
            "Some {things} in a row: ",
            "{Things}, one after the other: ",
            "Here is how the {things} go: ",
            "List of {things}: ",
        )
    ),
    "before": divide(
        templates(
            "Backwards: ",
            "The {things} backwards: ",
            "Some {things} in reverse order: ",
            "{Things}, last one first: ",
            "Here is how the {things} go backwards: ",
            "From the end: ",
            "Counting down the {things}: ",
        )
    ),
}
SEPARATORS = (", ", ", ", " ", ", then ")


@final
@dataclass(frozen=True, kw_only=True)
class CalendarStatement:
    """A sentence whose last word is the day or month so many steps after, or before, another.

    `text` is `prompt + answer` and a full stop. `start` and `answer_index` count from Monday or January, at 0;
    `answer_index` is `start + offset` (after) or `start - offset` (before), modulo 7 or 12. `combination` is what may
    be held out: unit, relation, offset, start. `told` is the number of characters of the prompt that tell the answer:
    what stands behind them tells nothing. Spans: `offset`, `units`, `start`, `answer`.
    """

    text: str
    prompt: str
    told: int
    answer: str
    unit: Unit
    relation: Relation
    offset: int
    start: int
    answer_index: int
    combination: tuple[Unit, Relation, int, int]
    template: str
    spans: tuple[Span, ...]


@final
@dataclass(frozen=True, kw_only=True)
class OrderedList:
    """Days, months or numbers in order, or backwards; `unit` is None for numbers. Spans: `word`, one for each."""

    text: str
    words: tuple[str, ...]
    unit: Unit | None
    relation: Relation
    template: str
    spans: tuple[Span, ...]


def examples(
    split: Split,
    seed: int,
    count: int,
    *,
    unit: Unit | None = None,
    relation: Relation | None = None,
    held_out: HeldOut = "both",
) -> list[CalendarStatement]:
    """Seeded statements; `stream` without an end.

    For each unit, relation and offset (1 to 24), one start is held out for validation and another for testing: every
    offset is seen with all other starts, and every start with most offsets. The `lists` of training hold all
    neighbours.

    Args:
        split: Training, validation or test examples.
        seed: Names the draws.
        count: How many.
        unit: Days or months, else both (months a little more often, there being more of them).
        relation: After or before, else both.
        held_out: What of a validation or test example is absent from training.

    >>> examples("train", 3, 1, unit="weekday")[0].text
    'Earlier than Tuesday by eleven days is Friday.'

    Raises:
        BadInput: If a name is unknown.
    """
    return take(stream(split, seed, unit=unit, relation=relation, held_out=held_out), count)


def stream(
    split: Split,
    seed: int,
    *,
    unit: Unit | None = None,
    relation: Relation | None = None,
    held_out: HeldOut = "both",
    near: bool = False,
    composed: float = 0.0,
    wider: bool = False,
    strewn: float = 0.0,
    scattered: float = 0.0,
    reckoned: float = 0.0,
) -> Iterator[CalendarStatement]:
    """Endless statements; arguments as for `examples`.

    With `near`, small offsets are drawn more often, as people speak of tomorrow more often than of the day in three
    weeks: without them, no part of a statement tells anything of its answer, and learning takes long to begin.
    `composed` is the share of training statements in one of thousands of composed wordings, with `wider` of more kinds;
    in the share `reckoned` of these, verbs tell the direction, there are two subjects, or somebody asks. In the share
    `strewn` of the composed ones other words may stand anywhere, and in the share `scattered` of those nothing but what
    tells the answer is left between them.
    """
    _check("unit", unit, UNITS)
    _check("relation", relation, RELATIONS)
    template_split, combination_split = sources(split, held_out)
    draw = Draw(seed, "calendar", split, held_out)
    possible = [
        combination
        for combination, part in combinations().items()
        if part == combination_split and unit in (None, combination[0]) and relation in (None, combination[1])
        for _ in range(1 + NEARNESS // combination[2] if near else 1)
    ]
    while True:
        combination = draw.one(possible)
        way = combination[1]
        if composed and split == "train" and draw.chance(composed):
            is_reckoned = reckoned > 0 and draw.chance(reckoned)
            wording = reckoned_statement(draw, way) if is_reckoned else composed_statement(draw, way, wider=wider)
            if strewn and draw.chance(strewn):
                is_bare = scattered > 0 and draw.chance(scattered)
                wording = scattered_statement(draw, way) if is_bare else strewn_statement(draw, wording)
            yield statement(combination, *map(Template, wording))
        else:
            yield statement(combination, draw.one(TEMPLATES[way][template_split]))


def statement(
    combination: tuple[Unit, Relation, int, int], template: Template, ending: Template | None = None
) -> CalendarStatement:
    """The sentence that a template makes of unit, relation, offset and start.

    An ending behind the template only leads to the answer.
    """
    unit, relation, offset, start = combination
    names = NAMES[unit]
    index = (start + offset if relation == "after" else start - offset) % len(names)
    word = "day" if unit == "weekday" else "month"
    values = {
        "offset": NUMBERS[offset - 1],
        "units": word if offset == 1 else f"{word}s",
        "unit": word,
        "on": "on" if unit == "weekday" else "in",
        "start": names[start],
    }
    told, spans = template.fill(values)
    prompt = told if ending is None else told + ending.fill(values).text
    answer = f" {names[index]}"
    kept = tuple(span for span in spans if span.label in ("offset", "units", "start"))
    return CalendarStatement(
        text=f"{prompt}{answer}.",
        prompt=prompt,
        told=len(told),
        answer=answer,
        unit=unit,
        relation=relation,
        offset=offset,
        start=start,
        answer_index=index,
        combination=combination,
        template=template.text if ending is None else template.text + ending.text,
        spans=(*kept, Span("answer", len(prompt) + 1, len(prompt) + len(answer))),
    )


@cache
def combinations() -> dict[tuple[Unit, Relation, int, int], Split]:
    """Every unit, relation, offset and start, and the split that it belongs to."""
    draw = Draw(0, "calendar combinations")
    parts: dict[tuple[Unit, Relation, int, int], Split] = {}
    for unit in UNITS:
        for relation in RELATIONS:
            size = len(NAMES[unit])
            order: list[int] = []
            for offset in range(1, MAX_OFFSET + 1):
                # Each start has its turn before any has it again, so that all are trained about equally often.
                order = order[1:] if len(order) > 2 else draw.shuffled(range(size))
                validation, test = order[0], order[1]
                for start in range(size):
                    part: Split = "validation" if start == validation else "test" if start == test else "train"
                    parts[unit, relation, offset, start] = part
    return parts


def lists(split: Split, seed: int, count: int) -> list[OrderedList]:
    """Seeded lists, with the openers of the split.

    >>> lists("train", 0, 2)[1].text
    'The numbers in order: seven eight nine ten eleven twelve thirteen fourteen.'
    """
    return take(list_stream(split, seed), count)


def list_stream(split: Split, seed: int) -> Iterator[OrderedList]:
    """Endless lists."""
    sources(split, "templates")
    draw = Draw(seed, "calendar lists", split)
    while True:
        relation: Relation = "before" if draw.below(3) == 0 else "after"
        unit: Unit | None = draw.one(("weekday", "month", None))
        ring = NUMBERS if unit is None else NAMES[unit]
        step = 1 if relation == "after" else -1
        length = 3 + draw.below(len(ring) - 3 if unit == "month" else 7)
        start = draw.below(len(ring))
        if unit is None:  # numbers do not come round again
            start = draw.below(len(ring) - length + 1) + (0 if step == 1 else length - 1)
        words = [ring[(start + step * place) % len(ring)] for place in range(length)]
        opener = draw.one(LIST_OPENERS[relation][split])
        things = "numbers" if unit is None else "days" if unit == "weekday" else "months"
        head, separator = opener.fill({"things": things}).text, draw.one(SEPARATORS)
        shown = words if head else [capitalised(words[0]), *words[1:]]
        listed = join([Marked(word, (Span("word", 0, len(word)),)) for word in shown], separator)
        text, spans = join([Marked(head, ()), listed], "")
        yield OrderedList(
            text=f"{text}.",
            words=tuple(words),
            unit=unit,
            relation=relation,
            template=f"{opener.text}|{separator}",
            spans=spans,
        )


def _check(what: str, name: str | None, known: tuple[str, ...]) -> None:
    if name is not None and name not in known:
        raise BadInput(what, got=name, wanted=" or ".join(known), remedy=did_you_mean(str(name), known))
