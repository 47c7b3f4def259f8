"""Nouns, verbs and adjectives of the microworld, with their forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from tremorscope.instruments.microworld.word_list import words

Number = Literal["singular", "plural"]
NounClass = Literal["person", "animal", "thing", "place"]
VOWELS = "aeiou"


@final
@dataclass(frozen=True)
class Noun:
    """A countable noun; the class says which verbs and adjectives suit it."""

    singular: str
    plural: str
    kind: NounClass

    def form(self, number: Number) -> str:
        """The form for one, or for many."""
        return self.singular if number == "singular" else self.plural


@final
@dataclass(frozen=True)
class Verb:
    """A verb in the third person: `singular` with one subject, `plural` with many."""

    singular: str
    plural: str

    def form(self, number: Number) -> str:
        """The form that agrees with one subject, or with many."""
        return self.singular if number == "singular" else self.plural


def with_s(word: str) -> str:
    """The regular ending of a plural noun and of a verb in the third person.

    >>> with_s("boy"), with_s("story"), with_s("watch")
    ('boys', 'stories', 'watches')
    """
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2] not in VOWELS:
        return f"{word[:-1]}ies"
    return f"{word}s"


def _nouns(kind: NounClass, words: str) -> tuple[Noun, ...]:
    """`man/men` gives an irregular plural; the others follow the rule."""
    pairs = (word.split("/") for word in words.split())
    return tuple(Noun(pair[0], pair[1] if len(pair) == 2 else with_s(pair[0]), kind) for pair in pairs)


def _verbs(words: str) -> tuple[Verb, ...]:
    """`goes/go` gives an irregular verb; the others are given as many subjects have them."""
    pairs = (word.split("/") for word in words.split())
    return tuple(Verb(pair[0], pair[1]) if len(pair) == 2 else Verb(with_s(pair[0]), pair[0]) for pair in pairs)


PEOPLE = _nouns(
    "person",
    "boy girl man/men woman/women child/children friend neighbour uncle aunt cousin brother sister parent guest "
    "visitor student pupil driver farmer painter singer dancer writer poet actor player runner swimmer climber "
    "sailor pilot baker gardener tailor builder plumber mechanic waiter cook clerk manager officer guard mayor "
    "judge lawyer author editor artist musician drummer tourist traveller hiker customer worker engineer "
    "professor nurse dentist captain coach trainer champion king queen prince knight villager stranger librarian "
    "secretary athlete boss twin lady expert helper leader owner shepherd juggler",
)
ANIMALS = _nouns(
    "animal",
    "dog cat horse cow goat pig duck goose/geese hen rabbit mouse/mice fox wolf/wolves bear lion tiger monkey "
    "elephant camel donkey pony squirrel hedgehog badger otter beaver frog turtle lizard eagle owl crow robin "
    "parrot penguin swan bee ant spider butterfly kitten puppy lamb",
)
THINGS = _nouns(
    "thing",
    "car bus train boat ship bike truck wall door window table chair lamp clock book letter picture map box bag "
    "basket bottle cup plate spoon bowl glass key coat hat shoe scarf/scarves shirt dress blanket pillow candle "
    "mirror piano guitar drum flute bell flag kite ball toy tree flower rose bush leaf/leaves stone fence gate "
    "roof bench statue tent ladder rope wheel engine computer phone camera radio painting dish shelf/shelves "
    "brush button coin pencil",
)
PLACES = _nouns(
    "place",
    "house barn tower castle bridge hill lake field garden road path fountain island village town city museum "
    "school shop market station farm theatre temple cottage palace harbour park",
)
NOUNS = (*PEOPLE, *ANIMALS, *THINGS, *PLACES)
NOUNS_OF: dict[NounClass, tuple[Noun, ...]] = {"person": PEOPLE, "animal": ANIMALS, "thing": THINGS, "place": PLACES}

# What each class of subject does, needing no object.
INTRANSITIVE: dict[NounClass, tuple[Verb, ...]] = {
    "person": _verbs(
        "smile laugh sing dance walk run wait work sleep read cook swim travel whisper wave jump sit stand listen"
        " talk rest play draw write speak cheer yawn sneeze cycle climb shout arrive leave return agree wonder "
        "pause stay study paint"
    ),
    "animal": _verbs(
        "run sleep eat drink jump rest hide wander play wait breathe move grow sit stand climb swim wake listen "
        "tremble sneeze yawn return escape arrive vanish hurry stay stretch dream"
    ),
    "thing": _verbs(
        "shine fall stand remain vanish matter move float stay arrive change glow appear sparkle wobble rattle "
        "squeak drip age fade sink crack"
    ),
    "place": _verbs("remain matter change stay appear vanish shine glow grow wait sleep prosper wake fade rest age"),
}
# What people do to those of each class.
TRANSITIVE: dict[NounClass, tuple[Verb, ...]] = {
    "person": _verbs(
        "like admire know help see thank visit follow love trust call watch meet invite teach remember praise "
        "greet miss need join answer warn guide choose mention notice respect recognise photograph describe "
        "welcome envy tease"
    ),
    "animal": _verbs(
        "like love feed follow watch see know find call hear miss draw paint wash brush train own need carry notice pet"
    ),
    "thing": _verbs(
        "like love buy sell clean paint carry need want use find hide fix watch draw choose own borrow push pull "
        "wash move see photograph describe rent"
    ),
    "place": _verbs(
        "like love visit know see find paint draw photograph describe leave own need build cross remember miss "
        "choose watch"
    ),
}
COPULAS = _verbs("is/are was/were seems/seem looks/look")
ADJECTIVES: dict[NounClass, tuple[str, ...]] = {
    "person": words(
        "happy tired kind busy clever quiet hungry proud honest polite careful late ready lucky famous nervous "
        "cheerful curious patient friendly brave calm rich lonely"
    ),
    "animal": words(
        "hungry tired quick slow small noisy quiet wild tame thirsty clever shy calm fast sleepy strong wet curious"
    ),
    "thing": words(
        "old new clean dirty small large heavy light bright dark empty full broken expensive cheap beautiful "
        "dusty wet dry safe ready cold warm ugly"
    ),
    "place": words("old new clean small large dark empty famous safe quiet beautiful cold busy pretty lovely sunny"),
}
QUALITIES: dict[NounClass, tuple[str, ...]] = {
    "person": words("old young tall kind clever busy famous quiet cheerful new"),
    "animal": words("old young small brown white black grey hungry clever quiet"),
    "thing": words("old new small large red blue green broken dusty wooden"),
    "place": words("old new small large quiet famous pretty busy dark lovely"),
}
