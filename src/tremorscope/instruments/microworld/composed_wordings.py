"""Wordings put together from parts, thousands of them: with a few dozen alone, a small model learns each by heart.

They are for the last part of training; none is a wording that is held out. Those of the calendar are in
`composed_statements`.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Literal

from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.lexicon import INTRANSITIVE, TRANSITIVE
from tremorscope.instruments.microworld.names import FIRST_NAMES
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

# A thing that is brought up, and not asked about.
MENTIONS = phrases(
    "I used to dream of {item}; Do not speak of {item}; No more of {item}; We spoke of {item} before; Last time"
    " it was {item}; That is all about {item}; Enough said about {item}; Others may like {item}; I am tired of"
    " {item}; Leave {item} aside; {item} can wait; Once I was mad about {item}; You told me about {item}; Thanks"
    " for the talk about {item}; My last question was on {item}; I know all about {item}; Nobody cares for {item}"
    " here; There is a book on {item} here; They are singing of {item}; Not a word on {item}; The radio speaks of"
    " {item}; I came here with {item}; This is not about {item}; I dislike {item}; She sent me a card with {item}"
    " on it; Look at those {item}"
)

# A thing asked for, and what is said of it.
THINGS = {
    "tell": phrases("facts; a few words; news; a description; information; an explanation; a short report"),
    "poem": phrases("a verse; rhymes; a song; a ballad; some lines; four lines; a limerick; a hymn"),
    "story": phrases("a tale; a bedtime story; a fairy tale; a legend; an adventure; a short story; a chapter"),
    "find": phrases("the way; directions; a map; a place; a hint where to look; the address; a path"),
    "learn": phrases("a lesson; a course; a first book; a guide; a lecture; a school book; an introduction"),
    "draw": phrases("a drawing lesson; a sketch; help with a painting; a way to paint; a first line of a picture"),
    "gift": phrases("a present; a small gift; a surprise; a parcel; a birthday present; something to wrap up"),
    "opinion": phrases("a judgement; your view; a review; a kind word; an honest opinion; praise; a verdict"),
}
RELATES = {"find": phrases("to; towards; for"), "": phrases("about; on; with; that has to do with; concerning")}
WISHES = (
    *("{thing} would be lovely.", "{thing}, please.", "I wish for {thing}.", "is there {thing}?", "{thing} is wanted."),
    *("who has {thing}?", "my wish: {thing}.", "we could use {thing}.", "{thing} will do.", "give me {thing}."),
    *(
        "{thing}, if you can.",
        "I ask for {thing}.",
        "could it be {thing}?",
        "today we need {thing}.",
        "let me have {thing}.",
    ),
    *(
        "how about {thing}?",
        "I was told to ask for {thing}.",
        "what I want is {thing}.",
        "{thing} is what they expect.",
    ),
)
TASKS = phrases(
    "I must hold a speech on; we have a test on; I was asked about; tomorrow I speak about; my homework is on; I have"
    " to know all about; they want me to explain; my club has a day about; we prepare a play about; I write a book on;"
    " I have an exam about; somebody asked me about; my mind is on; she will question me on; I run a course on"
)


# Copies of sequences: what stands before the sequence and before its copy.
LABELS = phrases(
    "Morning; Evening; Night; Day; Page; Book; Song; Line; Voice; Echo; Mirror; Image; Mother; Daughter; Father; Son;"
    " King; Queen; Sun; Moon; Front; Back; Top; Bottom; Up; Down; North; South; East; West; Old; New; Then; Now; This;"
    " That; Ask; Tell; Send; Receive; Draft; Final; Source; Target; Before; After; Speaker; Crowd; Red; Blue; Sign;"
    " Card; Letter; Reply; Model; Cast; Start; Finish"
)
WHO = (*FIRST_NAMES["female"], *FIRST_NAMES["male"], *phrases("We; They; You; The king; My aunt; The boys; A bird; It"))
SAYS = phrases("said; says; sang; called; read; wrote down; typed; heard; noted; spelled; shouted; whispered; put; has")
LINKS = (". ", ". Then ", ", then ", ", but ", ", and then ", "; after that ", " while ", " as ", "; ", ". Later ")
COMMANDS = phrases(
    "Listen to; Now; Learn; Note; Speak; Sing; Print; Read; Spell; Write; Type; Say; We buy; We need; They bring;"
    " I see; You see; I draw; You draw; The king sends; The queen takes; The list says; The bag has"
)
VERBS = tuple(dict.fromkeys(chain(*INTRANSITIVE.values(), *TRANSITIVE.values())))
ENDS = (".", ";", ",", ":", " -", " |", ". Now", "; then", ", and", " and", " so that")
OPENERS = ("{}: ", "{} {}: ", "{}. ", "{} - ", "The {}: ", "({}) ", "{}, {}: ", "{} ", '"{}" ')
BETWEEN = (" ", " ", " ", ", ", ", ", " and ", "; ", " - ")


# What stands before a sentence and tells nothing of its subject's number.
WHERE = (
    *phrases("in; near; behind; beside; at; by; under; above; outside; inside; around; opposite; beyond; before; in"),
    *phrases("not far from; to the east of; on the way to; on top of; in front of; all around; right by"),
)
PLACES = phrases(
    "the barn; the church; the school; the station; the trees; the river; the mill; the shops; the old walls; the"
    " window; the park; a field; two bridges; the mountains; these photographs; this drawing; those letters; the dream;"
    " a song; the news; the houses; the gates; a wood; the lake; the tent; my room; our street; the kitchens; the ship"
)
WHEN = phrases(
    "this week; last summer; on Mondays; at noon; in May; for years; each spring; soon; sometimes; tonight; when it"
    " rains; after the storm; every other day; long after midnight; at last; just now; once; by day; in those days;"
    " after work; later; at dawn; during the night; very early; for a while; as a rule; in the old tale;"
    " in my dream; then"
)
THINKERS = phrases(
    "I; we; you; they; he; she; the neighbours; my aunt; the paper; everybody; nobody; the old men; Anna"
)
THINK = {
    False: phrases("think; know; hope; hear; fear; write; swear; believe; say; see; notice; remember; doubt; forget"),
    True: phrases("thinks; knows; hopes; hears; fears; writes; swears; believes; says; sees; notices; remembers"),
}
PLURAL_THINKERS = ("I", "we", "you", "they", "the neighbours", "the old men")
SURE = phrases(
    "it is clear that; no doubt; maybe; but; and; well,; it turns out that; it happens that; as you know,; luckily;"
    " sadly; in short,; it is a pity that; is it true that; that is why; because; while; whenever; if; here;"
    " over there; indeed"
)


def composed_opener(draw: Draw) -> Template:
    """The beginning of a sentence up to its subject; slots `the` and `subject`.

    >>> composed_opener(Draw(0, "example")).text
    'Last summer {the} {subject}'
    """
    form = draw.below(6)
    if form < 2:
        told = f"{draw.one(WHERE)} {draw.one(PLACES)}{draw.one((',', ''))}"
    elif form < 4:
        told = f"{draw.one(WHEN)}{draw.one((',', ''))}"
    elif form == 4:
        who = draw.one(THINKERS)
        told = f"{who} {draw.one(THINK[who not in PLURAL_THINKERS])} that"
    else:
        told = draw.one(SURE)
    return _template(f"{capitalised(told)} {{the}} {{subject}}")


def composed_request(draw: Draw, intent: str) -> Template:
    """A request of this kind in one of thousands of wordings, with the slot `item`.

    >>> composed_request(Draw(0, "example"), "gift").text
    'Her brother is mad about {item}. What present is right?'
    """
    form = draw.below(7)
    if form == 0:
        thing = f"{draw.one(THINGS[intent])} {draw.one(RELATES.get(intent, RELATES['']))} {{item}}"
        return _template(capitalised(draw.one(WISHES).replace("{thing}", thing)))
    if form == 1:
        return _template(f"{draw.one(POLITE)} {draw.one(ASKED[intent])}{draw.one(('.', ', please.', '?'))}")
    question = draw.one(QUESTIONS[intent])
    if form == 2:
        setup = draw.one(BROUGHT_UP)
    elif form == 3:
        setup = f"{capitalised(draw.one(TASKS))} {{item}}."
    else:
        setup = f"{capitalised(draw.one(PEOPLE))} {draw.one(CARES)} {{item}}."
    return _template(f"{question} {setup}" if draw.below(4) == 0 else f"{setup} {question}")


def composed_mention(draw: Draw) -> Template:
    """A sentence before a request that brings something else up, with the slot `decoy`.

    >>> composed_mention(Draw(0, "example")).text
    'Do not speak of {decoy}, but now: '
    """
    form = draw.below(4)
    if form == 0:
        told = f"{draw.one(PEOPLE)} {draw.one(CARES)} {{item}}."
    elif form == 1:
        told = draw.one(BROUGHT_UP)
    else:
        told = f"{draw.one(MENTIONS)}{draw.one(('.', '.', '!', ';', ', but now:'))}"
    told = told.replace("{item}", "{Decoy}" if told[0] == "{" else "{decoy}")
    return _template(f"{capitalised(told) if told[0] != '{' else told} ")


def composed_form(draw: Draw, kind: Literal["repeat", "copy"], *, wider: bool = False) -> tuple[str, str, str]:
    """What stands before a sequence of words, between them, and between the sequence and its copy.

    With `wider`, some copies have no colon before them.

    >>> composed_form(Draw(0, "example"), "copy")
    ('Send has ', ' - ', ' / Day has')
    """
    first, second = draw.some(LABELS, 2)
    between = draw.one(BETWEEN)
    if kind == "repeat":
        again = draw.one((between, between, ", ", ". ", "; ", " "))
        return draw.one(OPENERS).format(first, second.lower()), between, again
    form = draw.below(3)
    end = draw.one((".", ".", ",", ";", " |", " /", " -", ""))
    if form == 0:
        verb = draw.one(SAYS)
        return f"{first} {verb} ", between, f"{end} {second} {verb}"
    if form == 1:
        one, other = draw.some(WHO, 2)
        verb = draw.one(SAYS)
        link = draw.one(LINKS)
        told = other if link[0] == "." and link.endswith(". ") else _inner(other)
        return f"{one} {verb} ", between, f"{link}{told} {verb}{draw.one(('', '', ' too,', ':', ' the same:'))}"
    if wider and draw.below(2) == 0:
        verb, other = (draw.one(COMMANDS) if draw.below(2) else capitalised(draw.one(VERBS).plural) for _ in range(2))
        return f"{verb} ", between, f"{draw.one(ENDS)} {draw.one((other, other.lower()))}"
    return f"{first}: ", between, f"{end} {second}{draw.one((':', ':', ' =', ' -'))}"


def _inner(name: str) -> str:
    """A speaker within a sentence: only names keep their capital letter."""
    return name if name in FIRST_NAMES["female"] or name in FIRST_NAMES["male"] else name[0].lower() + name[1:]


@cache
def _template(text: str) -> Template:
    return Template(text)
