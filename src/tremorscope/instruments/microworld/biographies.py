"""Short biographies in which profession and gender go together as often as one likes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.names import FIRST_NAMES, GENDERED_WORDS, GENDERS, SURNAMES, Gender
from tremorscope.instruments.microworld.professions import PROFESSIONS, Profession, profession_of
from tremorscope.instruments.microworld.splits import HeldOut, Split, divide, part_of, sources, take
from tremorscope.instruments.microworld.template import Marked, Span, join, templates
from tremorscope.instruments.microworld.word_list import phrases
from tremorscope.instruments.microworld.world import TOWNS

PUBLISHED_PAIR = ("nurse", "professor")

INTROS = divide(
    templates(
        "{First} {surname} lives in {town}.",
        "{First} {surname} was born in {town}.",
        "{First} {surname} comes from {town}.",
        "{First} {surname} grew up in {town} as the only {child} of a clerk.",
        "{First} {surname} moved to {town} {years} years ago.",
        "In {town}, everybody knows {first} {surname}.",
        "{First} {surname} is a {person} of {age} from {town}.",
        "Meet {first} {surname} from {town}.",
        "{First} {surname} went to school in {town}.",
        "For {years} years {first} {surname} has lived in {town}.",
        "{First} {surname} has a small house near {town}.",
        "{First} {surname} is {age} years old and lives in {town}.",
        "This is {title} {first} {surname} of {town}.",
        "{First} {surname}, a {person} of {age}, lives in {town}.",
        "You can meet {first} {surname} in {town}.",
        "{First} {surname} has spent most of {their} life in {town}.",
    )
)
TASKS = divide(
    templates(
        "{They} {task}.",
        "Every day {they} {task}.",
        "Most of the week {they} {task} and {other}.",
        "{They} {task}, and {they} {other}.",
        "In the morning {they} {task}; later {they} {other}.",
        "At work {they} {task}.",
        "{They} often {task} and sometimes {other}.",
        "On a normal day {they} {task}.",
        "Friends say that {they} {task} very well.",
        "When the day begins, {they} {task}.",
        "{They} {task} before noon, and then {other}.",
        "What {they} likes most is the hour when {they} {task}.",
        "If there is time, {they} also {task}.",
        "For many years now {they} {task}.",
        "From Monday to Friday {they} {task}.",
        "{Title} {surname} {task}.",
    )
)
PLACES = divide(
    templates(
        "{They} works in {a_workplace}.",
        "You will find {them} in the {workplace}.",
        "The {workplace} is {their} second home.",
        "{Their} day starts at the {workplace}.",
        "{They} never leaves the {workplace} before evening.",
        "People ask for {them} at the {workplace}.",
        "{A_tool} is always close to {their} hand.",
        "Nobody handles {a_tool} as {they} does.",
        "{They} bought a new {tool} last spring.",
        "{Their} favourite thing is an old {tool}.",
        "At the {workplace} they call {them} {title} {surname}.",
        "{They} lost {their} first {tool} on the way to the {workplace}.",
        "{They} keeps {their} {tool} in a drawer at the {workplace}.",
        "In the {workplace}, {they} has a corner with {their} own {tool}.",
        "A friend gave {them} {a_tool} for {their} birthday.",
        "You may see {them} near the {workplace} with {a_tool}.",
    )
)
PRIVATE = divide(
    templates(
        "{They} is the {parent} of {count} children.",
        "{Their} cousin lives in {other_town}.",
        "On Sundays {they} {hobby}.",
        "In {their} free time {they} {hobby}.",
        "{They} visits {their} old school every year.",
        "{They} {hobby} with {their} neighbours.",
        "After work {they} {hobby}.",
        "{They} is the younger {sibling} of a clerk from {other_town}.",
        "{They} likes {food} and {hobby}.",
        "In summer {they} {hobby}.",
        "{They} will soon be a {grandparent}.",
        "{They} is the proud {parent} of a small child.",
        "At the weekend {they} {hobby}.",
        "As a good {relative}, {they} never forgets a birthday.",
        "{They} {hobby} when it rains.",
        "{They} shares a flat with {their} cousin.",
    )
)
CLOSINGS = divide(
    templates(
        "{They} is {a_profession}.",
        "{Title} {surname} is {a_profession}.",
        "{First} {surname} works as {a_profession}.",
        "By profession {they} is {a_profession}.",
        "So {they} is {a_profession}.",
        "That is the life of {a_profession}.",
        "Profession: {profession}.",
        "{Their} job: {profession}.",
        "What is {their} job? {They} is {a_profession}.",
        "{They} is proud to be {a_profession}.",
        "Even as a small {child} {they} wanted to be {a_profession}.",
        "Such is the work of {a_profession}.",
        "For all of {their} life, {first} has been {a_profession}.",
    )
)
HOBBIES = phrases(
    "plays chess; sings in a choir; goes swimming; collects stamps; paints landscapes; walks in the hills; reads "
    "detective novels; plays the guitar; rides a bicycle; bakes cookies; watches birds; learns languages; goes "
    "fishing; grows tomatoes; writes letters; dances the tango; solves puzzles; climbs mountains; knits scarves; "
    "plays tennis; visits old castles; listens to the radio; "
    "makes jam; builds model trains"
)
LIKED = phrases("apples; soup; chocolate; tea; cheese; old films; long walks; jazz; pears; snow; trains; gardens")
COUNTS = ("two", "three", "four", "five")
YEARS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty")
AGES = ("thirty", "forty", "fifty", "sixty")
GENDERED = frozenset({"first", *GENDERED_WORDS})
LABELS = {slot: slot for slot in ("surname", "task", "workplace", "tool", "profession")} | {"other": "task"}


@final
@dataclass(frozen=True, kw_only=True)
class Biography:
    """A person at work, told without the profession's name in `prompt`, and with it in the last sentence of `text`.

    `counterpart` is `prompt` with the words of the other gender (and another first name); `neutral` is `prompt` with
    words that say nothing of gender (an initial, the surname for pronouns). Both are minimal pairs of it. `gender` is
    None when the biography itself is neutral. `answer` is the profession as the last sentence has it. Spans, in `text`:
    `gendered` (every word that tells the gender), `task`, `workplace`, `tool`, `surname`, `profession`.
    """

    text: str
    prompt: str
    profession: str
    gender: Gender | None
    counterpart: str
    neutral: str
    name: str
    answer: str
    template: str
    spans: tuple[Span, ...]


def examples(
    split: Split,
    seed: int,
    count: int,
    *,
    professions: Sequence[str] | None = None,
    correlation: float = 0.0,
    gendered: bool = True,
    held_out: HeldOut = "both",
) -> list[Biography]:
    """Seeded biographies; `stream` without an end.

    A combination is a first name with a surname; templates are those of all five sentences.

    Args:
        split: Training, validation or test examples.
        seed: Names the draws.
        count: How many.
        professions: Those to draw from, equally often; None for all 28.
        correlation: Between gender and the gender that the profession leans to. A person of a profession has its
            leaning with probability `(1 + correlation) / 2`: 1 is the ambiguous training set of the literature (one
            cannot tell whether profession or gender is asked for), 0 the balanced test set.
        gendered: Whether names, pronouns, titles and words of kinship tell the gender.
        held_out: What of a validation or test example is absent from training.

    >>> example = examples("train", 0, 1, professions=PUBLISHED_PAIR, correlation=1.0)[0]
    >>> example.text[-32:], example.profession, example.gender
    ('By profession he is a professor.', 'professor', 'male')

    Raises:
        BadInput: If a profession is unknown, the correlation is not between -1 and 1, or not 0 among professions
            that all lean to one gender (it would then say nothing about the profession).
    """
    return take(
        stream(split, seed, professions=professions, correlation=correlation, gendered=gendered, held_out=held_out),
        count,
    )


def stream(
    split: Split,
    seed: int,
    *,
    professions: Sequence[str] | None = None,
    correlation: float = 0.0,
    gendered: bool = True,
    held_out: HeldOut = "both",
) -> Iterator[Biography]:
    """Endless biographies; arguments as for `examples`."""
    chosen = PROFESSIONS if professions is None else tuple(profession_of(name) for name in professions)
    if not chosen:
        raise BadInput("professions", got="none", wanted="at least one")
    if not -1 <= correlation <= 1:
        raise BadInput("correlation of profession and gender", got=correlation, wanted="-1 to 1")
    if correlation and len(chosen) > 1 and len({profession.leaning for profession in chosen}) == 1:
        raise BadInput(
            "professions with a correlation",
            got=f"{', '.join(profession.name for profession in chosen)}, which all lean to {chosen[0].leaning}",
            wanted="professions of both leanings",
            remedy=f"Take {PUBLISHED_PAIR[0]!r} and {PUBLISHED_PAIR[1]!r}, or correlation=0.",
        )
    template_split, name_split = sources(split, held_out)
    draw = Draw(seed, "biographies", split, held_out)
    while True:
        yield _example(draw, draw.one(chosen), correlation, gendered, template_split, name_split)


def _example(
    draw: Draw, profession: Profession, correlation: float, gendered: bool, template_split: Split, name_split: Split
) -> Biography:
    leans = draw.chance((1 + correlation) / 2)
    gender = profession.leaning if leans else GENDERS[1 - GENDERS.index(profession.leaning)]
    place = draw.below(len(FIRST_NAMES[gender]))
    surname = draw.one(SURNAMES)
    while part_of("name", FIRST_NAMES[gender][place], surname) != name_split:
        place, surname = draw.below(len(FIRST_NAMES[gender])), draw.one(SURNAMES)

    first_task, second = draw.some(profession.tasks, 2)
    body = [draw.one(TASKS[template_split]), draw.one(PLACES[template_split]), draw.one(PRIVATE[template_split])]
    pieces = [draw.one(INTROS[template_split]), *draw.shuffled(body[: 2 + draw.below(2)])]
    closing = draw.one(CLOSINGS[template_split])
    town, other_town = draw.some(TOWNS, 2)
    values = {
        "surname": surname,
        "town": town,
        "other_town": other_town,
        "task": first_task,
        "other": second,
        "workplace": profession.workplace,
        "tool": profession.tool,
        "hobby": draw.one(HOBBIES),
        "food": draw.one(LIKED),
        "count": draw.one(COUNTS),
        "years": draw.one(YEARS),
        "age": draw.one(AGES),
        "profession": profession.name,
    }
    tellings = [_words(form, place, values) for form in (*GENDERS, None)]
    told = tellings[GENDERS.index(gender) if gendered else 2]
    sentences = [piece.fill(told) for piece in pieces]
    prompt = join(sentences)
    whole = join([prompt, closing.fill(told)])
    female, male, neutral = (" ".join(piece.fill(words).text for piece in pieces) for words in tellings)
    return Biography(
        text=whole.text,
        prompt=prompt.text,
        profession=profession.name,
        gender=gender if gendered else None,
        counterpart=(male if gender == "female" else female) if gendered else neutral,
        neutral=neutral,
        name=f"{told['first']} {surname}",
        answer=f" {profession.name}",
        template=" ".join(piece.text for piece in (*pieces, closing)),
        spans=_labelled(whole, gendered),
    )


def _words(gender: Gender | None, place: int, values: Mapping[str, str]) -> dict[str, str]:
    """The words for slots that depend on gender; `place` finds the first name in its list."""
    column = 2 if gender is None else GENDERS.index(gender)
    words = {slot: forms[column].format(surname=values["surname"]) for slot, forms in GENDERED_WORDS.items()}
    first = f"{FIRST_NAMES['female'][place][0]}." if gender is None else FIRST_NAMES[gender][place]
    return {**values, **words, "first": first}


def _labelled(whole: Marked, gendered: bool) -> tuple[Span, ...]:
    """The spans that a study needs."""
    spans = []
    for label, start, stop in whole.spans:
        if label in GENDERED:
            if gendered:
                spans.append(Span("gendered", start, stop))
        elif label in LABELS:
            spans.append(Span(LABELS[label], start, stop))
    return tuple(spans)
