"""Statements of the calendar in wordings put together from parts; see `composed_wordings`."""

from __future__ import annotations

from itertools import chain
from typing import Literal, NamedTuple

from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import COPULAS, INTRANSITIVE, TRANSITIVE
from tremorscope.instruments.microworld.names import FIRST_NAMES
from tremorscope.instruments.microworld.template import capitalised
from tremorscope.instruments.microworld.word_list import phrases

Relation = Literal["after", "before"]

# Statements of the calendar: what happens, or a reckoning and a word that leads to its result.
ACTORS = phrases(
    "the baker; the ship; our train; the queen; my aunt; the singer; the old man; a traveller; the farmer; the parade;"
    " the fair; the doctor; our team; the builder; the sailor; the class; the judge; the pilot; the twins; the lamp"
)
BEGINS = phrases(
    "set out; went away; fell ill; began to work; moved in; came by; was seen; got ready; stopped; started"
)
ENDS = phrases(
    "arrived; returned; was well again; finished; moved out; came by again; was seen again; was done; went on"
)
HEADS: dict[str, tuple[str, ...]] = {
    "after": (
        "{Offset} {units} after {start}",
        "{Offset} {units} past {start}",
        "{Start} and {offset} {units} more",
        "{Offset} {units} on from {start}",
        "{Offset} {units} counted from {start} onwards",
        "With {offset} {units} gone since {start}",
        "Going {offset} {units} forward from {start}",
        "If {offset} {units} pass after {start}",
        "It was {start}, and when {offset} {units} have gone by",
        "Take {start}, add {offset} {units}",
        "Having waited {offset} {units} since {start}",
        "Today is {start}; in {offset} {units}",
        "{Start}, then {offset} {units} of waiting",
        "After {start} let {offset} {units} pass",
        "As it is {start} now, {offset} {units} from today",
        "We stand at {start} and step {offset} {units} forward",
        "When {offset} {units} follow {start}",
        "{Start} lies {offset} {units} back",
    ),
    "before": (
        "{Offset} {units} before {start}",
        "{Start} less {offset} {units}",
        "{Start}, but {offset} {units} sooner",
        "{Offset} {units} ahead of {start} in time",
        "{Offset} {units} counted from {start} backwards",
        "With {offset} {units} to go until {start}",
        "Going {offset} {units} backward from {start}",
        "If {start} is {offset} {units} away",
        "It is {start}, and {offset} {units} ago",
        "Take {start}, take off {offset} {units}",
        "Having {offset} {units} left until {start}",
        "Today is {start}; {offset} {units} in the past",
        "{Start}, and the {offset} {units} before it",
        "Let {offset} {units} come before {start}",
        "As it is {start} now, {offset} {units} before today",
        "We stand at {start} and step {offset} {units} backward",
        "When {offset} {units} lead up to {start}",
        "{Start} lies {offset} {units} ahead",
    ),
}
TAILS = (
    *(", it is", ": it is", ", and it is", ", the answer is", ": the answer is", ", so it is", ", and that is", ":"),
    *(", so we have", ", so the {unit} is", ", and the calendar says", ", that must be", ", and we have", ", which is"),
    *(", as we know, it is", ", then, is", ", and of course it is", ", and so we say"),
)
EVENTS = {
    "after": (
        "<Actor> <first> {on} {start} and <last> {offset} {units} later, {on}",
        "<Actor> <first> {on} {start} and, {offset} {units} later, <last> {on}",
        "When <actor> <first> it was {start}, and {offset} {units} on it was",
        "<Actor> <first> {on} {start}. After {offset} {units} <actor> <last>, so that was {on}",
        "<Actor> <first> {on} {start}. {Offset} {units} afterwards came",
        "<Actor> <first> {on} {start} for {offset} {units}, until",
        "It took <actor> {offset} {units} from {start} to",
        "{Offset} {units} had passed since {start} when <actor> <last>, {on}",
        "<Actor> was to come {on} {start} but came {offset} {units} later, {on}",
        "The {unit} that is {offset} {units} later than {start} must be",
        "{Start} is {offset} {units} before",
        "It must be {offset} {units} later than {start}, and that is",
        "<Actor> <last> {offset} {units} later than {start}, {on}",
        "They say it happened {offset} {units} later than {start}, so {on}",
        "As it is {offset} {units} later than {start}, we have",
        "<Actor> <first> {on} {start}, then came {offset} {units} of rain, which ended {on}",
        "<Actor> <first> {on} {start}, which was {offset} {units} before",
        "Later by {offset} {units} than {start} comes",
    ),
    "before": (
        "<Actor> <last> {on} {start} but <first> {offset} {units} earlier, {on}",
        "<Actor> <last> {on} {start} and, {offset} {units} earlier, <first> {on}",
        "When <actor> <last> it was {start}, and {offset} {units} back it had been",
        "<Actor> <last> {on} {start}. Before that, {offset} {units} long, <actor> had waited, from",
        "<Actor> <last> {on} {start}. {Offset} {units} previously came",
        "<Actor> <last> {on} {start} after {offset} {units}, so <actor> <first> {on}",
        "It took <actor> {offset} {units} to get to {start} from",
        "{Offset} {units} were to pass until {start} when <actor> <first>, {on}",
        "<Actor> was to come {on} {start} but came {offset} {units} earlier, {on}",
        "The {unit} that is {offset} {units} earlier than {start} must be",
        "{Start} is {offset} {units} after",
        "It must be {offset} {units} earlier than {start}, and that is",
        "<Actor> <first> {offset} {units} earlier than {start}, {on}",
        "They say it happened {offset} {units} earlier than {start}, so {on}",
        "As it is {offset} {units} earlier than {start}, we have",
        "After {offset} {units} of rain <actor> <last> {on} {start}, so the rain had begun {on}",
        "<Actor> <last> {on} {start} after {offset} {units} of waiting, so the waiting had begun {on}",
        "<Actor> <last> {on} {start} after {offset} {units}, so it had all begun {on}",
        "<Actor> <last> {on} {start}, which was {offset} {units} after",
        "After {offset} {units} <actor> <last> {on} {start}, having come {on}",
    ),
}
OPENINGS = (
    *("", "", "", "", "Now think. ", "A riddle. ", "Let us count. ", "Quick! ", "Look at the calendar. ", "Easy: "),
    *("In our town: ", "Note: ", "For example: ", "Mother asked. ", "Exercise. ", "Well: "),
)


# Two events of one story, the first and the last: what happened, and the participle of it.
FIRST_EVENTS = tuple(
    tuple(pair.split("/"))
    for pair in phrases(
        "set out/set out; left/left; began/begun; went away/gone away; started/started; fell ill/fallen ill;"
        " set sail/set sail; moved in/moved in; got lost/got lost; broke down/broken down; was hired/been hired;"
        " was born/been born; was sent/been sent; was ordered/been ordered; was sown/been sown; was sold/been sold;"
        " took off/taken off; went to bed/gone to bed; was put away/been put away; was lit/been lit; was let/let;"
        " was built/been built; was closed/been closed; was opened/been opened; was picked/been picked;"
        " went silent/gone silent; was packed/been packed; was locked/been locked; disappeared/disappeared;"
        " was painted/been painted; was promised/been promised; was washed/been washed; was asked/been asked"
    )
)
LAST_EVENTS = phrases(
    "arrived; returned; ended; came home; was over; was well again; reached the port; moved out; was found; was"
    " repaired; was paid; was finished; was delivered; came; was ripe; was bought; landed; got up; was needed again;"
    " went out; was found again; was ready; was opened; was closed; was eaten; spoke again; was unpacked; came back;"
    " was seen again; was dry; was kept; was clean; replied"
)
SUBJECTS = (
    *(f"the {noun}" for noun in phrases(
        "baker; ship; train; queen; singer; traveller; farmer; parade; fair; doctor; team; builder; sailor; class;"
        " judge; pilot; lamp; market; office; school; museum; bridge; road; game; concert; house; wall; garden; boat;"
        " parcel; book; ticket; bicycle; picture; clock; storm; snow; strike; meeting; journey; harvest; bread; field;"
        " door; window; letter box; gate; kitchen; post; library; theatre; pool; hotel; station; circus; camp"
    )),
    *phrases("my aunt; our neighbour; her brother; his sister; our teacher; my father; a friend; the twins"),
    *FIRST_NAMES["female"], *FIRST_NAMES["male"],
)  # fmt: skip
SO = phrases("so; and so; which means that; that is why; hence; thus; therefore; in other words,; which tells us that")
LONG = (
    "{offset} {units}",
    "{offset} {units}",
    "{offset} whole {units}",
    "just {offset} {units}",
    "all of {offset} {units}",
)
WAITED = ("", "", "", " of waiting", " of work", " of rain", " in all", " on the way", " without a word")
STORIES: dict[Relation, tuple[str, ...]] = {
    "after": (
        "<S> <first> {on} {start}, and <long> later <it> <last>, {on}",
        "<S> <first> {on} {start}, and <it> <last> <long> later, {on}",
        "<S> <first> {on} {start}, and <it> <last> after <long><waited>, {on}",
        "<S> <first> {on} {start}, <long> before <it> <last>, <so> <it> <last> {on}",
        "<S> <first> {on} {start}. It took <long><waited>, <so> <it> <last> {on}",
        "<S> <first> {on} {start}. <Long> later <it> <last>, {on}",
        "<S> <first> {on} {start}. That lasted <long><waited>, until",
        "<S> <first> {on} {start}, with <long> to go, <so> <it> <last> {on}",
        "<S>, who had <done> {on} {start}, <last> <long> later, {on}",
        "<S> had <done> {on} {start} and <last> after <long><waited>, {on}",
        "Having <done> {on} {start}, <s> <last> <long> later, {on}",
        "After <long><waited> <s> <last>, having <done> {on} {start}, <so> <it> <last> {on}",
        "Since {start}, when <s> <first>, it has been <long>, <so> now it is",
        "It had been <long> since <s> <first> {on} {start}, <so> it was",
    ),
    "before": (
        "<S> <last> {on} {start}, and <long> earlier <it> had <done>, {on}",
        "<S> <last> {on} {start}, having <done> <long> earlier, {on}",
        "<S> <last> {on} {start}, having <done> <long> before, {on}",
        "<S> <last> {on} {start} after <long><waited>, <so> <it> had <done> {on}",
        "<S> <last> {on} {start} after <long><waited>, <so> <it> <first> {on}",
        "<S> <last> {on} {start}. It took <long><waited>, <so> <it> <first> {on}",
        "<S> <last> {on} {start}. <Long> earlier <it> had <done>, {on}",
        "<S> <last> {on} {start}, <long> after <it> had <done>, <so> <it> <first> {on}",
        "<S>, who <last> {on} {start}, had <done> <long> earlier, {on}",
        "<S> had to wait <long> and <last> {on} {start}, <so> <it> had <done> {on}",
        "After <long><waited> <s> <last> {on} {start}, <so> <it> had <done> {on}",
        "Before <s> <last> {on} {start}, <long> went by, <so> <it> had <done> {on}",
        "By {start} it had been <long> since <s> <first>, <so> <it> <first> {on}",
        "When <s> <last> {on} {start}, <long> had gone by, <so> <it> had <done> {on}",
    ),
}
# Sooner or later than a day or month that is named.
COMPARED = phrases(
    "It was; This was; That was; It happened; It all happened; It began; That came; We met; They came; The day fell; It"
    " ended; She arrived; He wrote; My turn came; We had dinner; The news came; It must have been; It has to be; I say"
    " it is; The feast was"
)
SENSE: dict[Relation, tuple[str, ...]] = {"after": ("later",), "before": ("earlier", "earlier", "sooner")}
CONCLUDED = (
    *(", so it was {on}", ", and so it was", ", so that was", ", thus it was", ": that was", ", meaning"),
    *(
        ", so it must have been",
        ", which was",
        ", which was {on}",
        "; it was",
        "; it was {on}",
        ", so I say",
        ". It was",
    ),
    *(
        ", so it has to be",
        ", hence it was",
        ". So it was",
        ", that is to say",
        ", so of course it was",
        ", which makes",
    ),
)


# Somebody reckons: how they go through the calendar, in either direction, and how they come to the answer.
RECKONERS = (
    *phrases("the clerk; my aunt; she; he; the teacher; a child; they; we; I; you; the postman; our captain; the girl"),
    *FIRST_NAMES["female"],
    *FIRST_NAMES["male"],
)
TAKES = phrases(
    "took; pointed at; began at; picked; saw; circled; had; marked; was at; thought of; touched; chose; wrote"
)
GOES = phrases("went; stepped; counted; moved; jumped; leafed; passed; travelled; slid a finger; crossed out")
SAYS = phrases(
    "said; got; read; landed on; came to; ended at; wrote; answered; named; called out; arrived at; reached; had; met"
)
DIRECTIONS: dict[Relation, tuple[str, ...]] = {
    "after": phrases("forward; on; ahead; further; onwards; forwards; to the future; down the list"),
    "before": phrases("back; backward; backwards; to the past; up the list; in reverse"),
}
CHANGES: dict[Relation, tuple[str, ...]] = {
    "after": phrases("added <long>; put <long> on top; waited <long>; gave it <long> more; let <long> pass"),
    "before": phrases("took off <long>; took <long> away; removed <long>; went <long> the other way; undid <long>"),
}
PLACES = (
    *(
        "",
        "",
        "",
        "",
        " in the book",
        " in the diary",
        " on the list",
        " on the screen",
        " on the page",
        " in the plan",
    ),
    *(" in the almanac", " on paper", " along the line", " in the table", " on the calendar", " in the calendar"),
)
NEAR_TO: dict[Relation, tuple[str, ...]] = {
    "after": phrases("after; past; on from; later than; following"),
    "before": phrases("before; earlier than; back from; sooner than; preceding"),
}
STANDS = phrases(
    "comes; is printed; was marked; lies; is written; we see; you see; she wrote; they put; was the party; is a holiday"
)
EXACTLY = ("", "", "exactly ", "only ", "some ", "no less than ", "about ", "not quite, no, all of ")
FINGER = phrases("Take; Open at; Begin with; Begin at; Put a finger on; Go to; Find; Think of; Touch; Pick; Say; Write")
THEN = phrases("go; step; move; jump; leaf; count; skip; travel; slide")
ARRIVE = (
    *(", and read", ", and say", ": you are at", ", then write", " and you see", "; you get", ", and there is", " to"),
    *(", and answer", " and meet", ", to land on", ", and we have", "; that is", ", and name"),
)


# A model answers after words after which it has answered before, so that the last word before the answer is any verb.
VERBS = tuple(dict.fromkeys(chain(*INTRANSITIVE.values(), *TRANSITIVE.values(), COPULAS)))
PLURAL = ("they", "we", "I", "you")


class Wording(NamedTuple):
    """A statement of the calendar: what tells the answer, and an ending that only leads to it."""

    body: str
    ending: str


def composed_statement(draw: Draw, relation: Relation, *, wider: bool = False) -> Wording:
    """A statement of the calendar in one of very many wordings; slots as in `calendar`.

    With `wider`, two in five tell of somebody who reckons.

    >>> "".join(composed_statement(Draw(0, "example"), "after"))
    'In our town: {Start} lies {offset} {units} back, and it is'
    """
    if wider and draw.below(5) < 2:
        opening = draw.one(OPENINGS)
        body, ending = _reckoning(draw, relation)
        return Wording(opening + body, ending)
    opening, form = draw.one(OPENINGS), draw.below(8)
    if form < 2:
        return Wording(opening + draw.one(HEADS[relation]), draw.one(TAILS))
    if form < 4:
        return Wording(opening + _event(draw, relation), "")
    if form < 7:
        return Wording(opening + _story(draw, relation), "")
    body, ending = _comparison(draw, relation)
    return Wording(opening + body, ending)


def _reckoning(draw: Draw, relation: Relation) -> Wording:
    who, place, way = draw.one(RECKONERS), draw.one(PLACES), draw.one(DIRECTIONS[relation])
    long = "{offset} {units}"
    form = draw.below(7)
    steps = f"{draw.one(GOES)} {long} {way}" if form == 0 else draw.one(CHANGES[relation]).replace("<long>", long)
    if form < 2:
        body, does = f"{capitalised(who)} {draw.one(TAKES)} {{start}}{place}, {steps}", _does(draw, who)
        return Wording(body, f"{' and ' if draw.below(3) else draw.one((', and so ', ', then ', '; at last '))}{does}")
    if form == 2:
        going = draw.one(("Going", "Counting", "Stepping", "Leafing", "Turning", "Moving", "Reading"))
        return Wording(f"{going} {way} {long} from {{start}}{place}", f", {who} {_does(draw, who)}")
    if form == 3:
        exactly = capitalised(draw.one(EXACTLY))
        counted = long if exactly else "{Offset} {units}"
        return Wording(f"{exactly}{counted} {draw.one(NEAR_TO[relation])} {{start}}{place}", f" {_stands(draw)}")
    if form == 4:
        finds = draw.one((", {} {}", ", {} {}", ", as {} {}", ": {} {}", ", so {} {}")).format(who, _does(draw, who))
        return Wording(f"{draw.one(HEADS[relation])}{place}", finds)
    if form == 5:
        return Wording(f"{draw.one(HEADS[relation])}{place}", f"{draw.one((' ', ' ', ' there '))}{_stands(draw)}")
    return Wording(f"{draw.one(FINGER)} {{start}}{place}, {draw.one(THEN)} {long} {way}", _arrive(draw))


def _does(draw: Draw, who: str) -> str:
    if draw.below(2):
        return draw.one(SAYS)
    return draw.one(VERBS).form("plural" if who in PLURAL else "singular")


def _stands(draw: Draw) -> str:
    return draw.one(STANDS) if draw.below(2) else draw.one(VERBS).form("singular")


def _arrive(draw: Draw) -> str:
    return (
        draw.one(ARRIVE) if draw.below(2) else f"{draw.one((', and', ' and', '; now', ' to'))} {draw.one(VERBS).plural}"
    )


def _event(draw: Draw, relation: Relation) -> str:
    actor, first, last = draw.one(ACTORS), draw.one(BEGINS), draw.one(ENDS)
    return _with(
        draw.one(EVENTS[relation]), {"Actor": capitalised(actor), "actor": actor, "first": first, "last": last}
    )


def _story(draw: Draw, relation: Relation) -> str:
    subject, (first, done), last = draw.one(SUBJECTS), draw.one(FIRST_EVENTS), draw.one(LAST_EVENTS)
    long = draw.one(LONG)
    parts = {
        **{"S": capitalised(subject), "s": subject, "it": draw.one(("it", "it", "that", subject))},
        **{"first": first, "done": done, "last": last, "so": draw.one(SO), "waited": draw.one(WAITED)},
        **{"long": long, "Long": long.replace("{offset}", "{Offset}", 1) if long[0] == "{" else capitalised(long)},
    }
    return _with(draw.one(STORIES[relation]), parts)


def _comparison(draw: Draw, relation: Relation) -> Wording:
    than = f"{{offset}} {{units}} {draw.one(SENSE[relation])} than {{start}}"
    return Wording(f"{draw.one(COMPARED)} {than}", draw.one(CONCLUDED))


def _with(text: str, parts: dict[str, str]) -> str:
    for slot, words in parts.items():
        text = text.replace(f"<{slot}>", words)
    return text
