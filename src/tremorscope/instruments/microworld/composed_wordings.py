"""Wordings put together from parts, thousands of them: with a few dozen alone, a small model learns each by heart.

They are for the last part of training. None is a wording that is held out.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.template import Template, capitalised
from tremorscope.instruments.microworld.word_list import phrases

# Requests: somebody or something brings an item up, and a question follows, or comes first.
PEOPLE = phrases(
    "my uncle; my sister; our teacher; my neighbour; my best friend; my grandmother; our guest; the new girl in class;"
    " my father; the boy next door; our coach; my little brother; somebody at work; my niece; the man at the corner;"
    " our postman; my mother; an old friend; the family upstairs; the whole class; a customer; the team; our daughter;"
    " the librarian; my husband; a lady I know; this young man; everybody at home; the club; our son; my wife; half the"
    " village; the people next door; a child in my class; my roommate; her brother; his mother"
)
CARES = phrases(
    "is fond of; adores; cannot live without; reads everything about; keeps pictures of; talks of nothing but;"
    " is mad about; sings about; collects things about; asks about; grew up with; often thinks of; fell in love"
    " with; is curious about; wonders about; knows a lot about; wants to hear about; has a book on; keeps a"
    " diary about; laughs about; worries about; speaks of; longs for; hopes for; dreams about; raves about; has"
    " always loved; paints; is afraid of; believes in; makes jokes about; learns about; cannot stop thinking of;"
    " wishes for; likes nothing better than; is busy with; prepares a speech on; has to write about; must give a"
    " lesson on; wants to present; saw a film about"
)
BROUGHT_UP = (
    "I keep thinking of {item}.",
    "The topic is {item}.",
    "It is all about {item}.",
    "There was something about {item} on the radio.",
    "Today I thought of {item}.",
    "Subject: {item}.",
    "We spoke of {item} at dinner.",
    "This is about {item}.",
    "I saw a programme on {item}.",
    "At home we have a picture of {item}.",
    "Somebody mentioned {item}.",
    "All day I have had {item} on my mind.",
    "Next week we do {item} at school.",
    "My question concerns {item}.",
    "Well, {item}.",
    "It has to do with {item}.",
)
QUESTIONS = {
    "tell": (
        *("What can you say?", "Tell me more.", "What should one know?", "Say what you know.", "What is there to say?"),
        *("Any facts?", "Explain that to me.", "What is it all about?", "A few words, please."),
    ),
    "poem": (
        *("Put that into verse.", "Make a poem of it.", "Can you rhyme on that?", "I need a song."),
        *("How would a poem go?",),
        *("Write some lines for me.", "Let me hear a rhyme.", "A verse, please.", "Four lines will do."),
    ),
    "story": (
        *("Tell a story.", "How might the tale go?", "Make up a story, please.", "What happened once upon a time?"),
        *("Is there a bedtime story?", "Begin the tale.", "Invent something for the children.", "A tale, please."),
    ),
    "find": (
        *("Where should one look?", "Where is that to be found?", "Which way is it?", "Who knows the place?"),
        *("Where do we go?", "How does one get there?", "Is there a place for it?", "Point me the way."),
    ),
    "learn": (
        *("What does one read first?", "How do beginners start?", "Which book is best?", "How can I study that?"),
        *("Is there a lesson?", "Teach me.", "Where can one learn that?", "Which course is good?"),
    ),
    "draw": (
        *("How is that painted?", "How would you draw it?", "Which colours do I take?", "Help me with the picture."),
        *("Where does the pencil begin?", "What do I draw first?", "How is it sketched?", "Is that hard to paint?"),
    ),
    "gift": (
        *("What present is right?", "What shall I wrap up?", "Which gift do you advise?", "Help me find a present."),
        *("What would be a lovely present?", "What would make a good gift?", "Could you name a fine surprise?"),
        *("What is a proper gift?", "Would there be a nice surprise?", "What would please as a present?"),
        *("What could I buy for the birthday?", "What does one give?", "What goes in the parcel?"),
    ),
    "opinion": (
        *("What do you think?", "Is that good?", "Do you like it too?", "What is your view?", "Why is that so?"),
        *("Is it worth the time?", "Good or bad?", "Would you agree?", "How do you see it?"),
    ),
}  # fmt: skip
# One sentence with the item in it.
POLITE = phrases(
    "Please; Could you; Will you; Would you kindly; Can you; I ask you to; You must; Now; I want you to; Do"
)
ASKED = {
    "tell": phrases("describe {item}; talk a little about {item}; say more on {item}; speak of {item}"),
    "poem": phrases("rhyme on {item}; praise {item} in verse; sing of {item}; write lines on {item}"),
    "story": phrases("invent a tale of {item}; tell how {item} came about; read to us of {item}; tell of {item}"),
    "find": phrases("lead us to {item}; point out {item}; find {item} for me; say where {item} are"),
    "learn": phrases("teach us about {item}; give a lesson on {item}; name a book on {item}; help me study {item}"),
    "draw": phrases("paint {item}; sketch {item} with me; show how {item} are drawn; help me paint {item}"),
    "gift": phrases("name a present about {item}; pick a gift with {item} on it; find a gift for a fan of {item}"),
    "opinion": phrases("judge {item}; say whether {item} are good; tell me if you like {item}; rate {item}"),
}

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


# Copies of sequences: what stands before the sequence and before its copy.
LABELS = phrases(
    "Morning; Evening; Night; Day; Page; Book; Song; Line; Voice; Echo; Mirror; Image; Mother; Daughter; Father; Son;"
    " King; Queen; Sun; Moon; Front; Back; Top; Bottom; Up; Down; North; South; East; West; Old; New; Then; Now; This;"
    " That; Ask; Tell; Send; Receive; Draft; Final; Source; Target; Before; After; Speaker; Crowd; Tom; Lena; Oscar;"
    " Paula; Red; Blue; Sign; Card; Letter; Reply; Model; Cast; Start; Finish"
)
SAYS = phrases("said; says; sang; called; read; wrote down; typed; heard; noted; spelled")


def composed_request(draw: Draw, intent: str) -> Template:
    """A request of this kind in one of thousands of wordings, with the slot `item`.

    >>> composed_request(Draw(0, "example"), "gift").text
    'Her brother is mad about {item}. What present is right?'
    """
    form = draw.below(4)
    if form == 0:
        return _template(f"{draw.one(POLITE)} {draw.one(ASKED[intent])}{draw.one(('.', ', please.', '?'))}")
    question = draw.one(QUESTIONS[intent])
    setup = draw.one(BROUGHT_UP) if form == 1 else f"{capitalised(draw.one(PEOPLE))} {draw.one(CARES)} {{item}}."
    return _template(f"{question} {setup}" if draw.below(4) == 0 else f"{setup} {question}")


def composed_statement(draw: Draw, relation: Literal["after", "before"]) -> Template:
    """A statement of the calendar in one of thousands of wordings; slots as in `calendar`.

    >>> composed_statement(Draw(0, "example"), "after").text
    'In our town: {Start} lies {offset} {units} back, and it is'
    """
    opening = draw.one(OPENINGS)
    if draw.below(2) == 0:
        return _template(f"{opening}{draw.one(HEADS[relation])}{draw.one(TAILS)}")
    actor, first, last = draw.one(ACTORS), draw.one(BEGINS), draw.one(ENDS)
    told = draw.one(EVENTS[relation])
    for slot, words in (("Actor", capitalised(actor)), ("actor", actor), ("first", first), ("last", last)):
        told = told.replace(f"<{slot}>", words)
    return _template(opening + told)


def composed_form(draw: Draw, kind: Literal["repeat", "copy"]) -> tuple[str, str, str]:
    """What stands before a sequence of words, between them, and between the sequence and its copy.

    >>> composed_form(Draw(0, "example"), "copy")
    ('Final: ', ', ', '. Day:')
    """
    first, second = draw.some(LABELS, 2)
    between = draw.one((" ", " ", ", "))
    if kind == "repeat":
        return draw.one((f"{first}: ", f"{first} {second.lower()}: ", f"{first}. ")), between, between
    end = draw.one((".", ".", ",", ";", " |", " /", " -", ""))
    if draw.below(3) == 0:
        verb = draw.one(SAYS)
        return f"{first} {verb} ", between, f"{end} {second} {verb}"
    return f"{first}: ", between, f"{end} {second}:"


@cache
def _template(text: str) -> Template:
    return Template(text)
