"""What can happen to somebody in a story: places, plans, mishaps, and what guards against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from tremorscope.instruments.microworld.word_list import words

Hazard = Literal["fall", "bump", "sting", "burn", "scratch"]

GEAR: dict[str, frozenset[Hazard]] = {
    "a padded suit": frozenset({"fall", "bump"}),
    "a padded coat": frozenset({"fall"}),
    "a strong helmet": frozenset({"bump"}),
    "thick gloves": frozenset({"burn", "scratch"}),
    "a leather apron": frozenset({"burn", "scratch"}),
    "a net hat": frozenset({"sting"}),
    "a bee suit": frozenset({"sting"}),
}


@final
@dataclass(frozen=True)
class Scenario:
    """A plan at a place, and the mishap that may come of it, in the infinitive and the past.

    `body` are the parts of the body that it may hurt.
    """

    place: str
    plan: str
    hazard: Hazard
    mishap: str
    past: str
    body: tuple[str, ...]


def _scenario(hazard: Hazard, place: str, plan: str, mishap: str, body: str) -> Scenario:
    """`fall/fell off the wall` has the verb's infinitive and past before its other words."""
    verb, _, rest = mishap.partition(" ")
    infinitive, past = verb.split("/")
    return Scenario(place, plan, hazard, f"{infinitive} {rest}", f"{past} {rest}", words(body))


SCENARIOS = (
    _scenario("fall", "old castle", "climb the ruined wall", "fall/fell off the wall", "knee elbow ankle"),
    _scenario("fall", "orchard", "pick the highest apples", "fall/fell out of the apple tree", "arm knee back"),
    _scenario("fall", "frozen lake", "skate to the island", "slip/slipped on the ice", "knee wrist elbow"),
    _scenario("fall", "barn", "reach the top of the hay loft", "tumble/tumbled down the ladder", "shoulder knee arm"),
    _scenario("fall", "riding school", "ride the brown pony", "fall/fell off the pony", "back arm shoulder"),
    _scenario("fall", "long hill", "race down on their bicycles", "crash/crashed into the fence", "knee hand elbow"),
    _scenario("fall", "playground", "swing as high as the roof", "fall/fell off the swing", "chin knee elbow"),
    _scenario("fall", "lighthouse", "run up the steep stairs", "trip/tripped on the stairs", "shin knee toe"),
    _scenario("bump", "dark attic", "look for the old trunk", "walk/walked into a beam", "head forehead nose"),
    _scenario("bump", "ship", "explore the low cabins", "run/ran against a cabin door", "head forehead nose"),
    _scenario("bump", "cave", "see the deepest room", "knock/knocked against the low roof", "head forehead nose"),
    _scenario(
        "bump", "workshop", "move the long boards", "get/got in the way of a swinging board", "head shoulder ear"
    ),
    _scenario("sting", "beehive", "take a little honey", "get/got stung by a bee", "hand neck cheek"),
    _scenario("sting", "meadow", "have lunch near a wasp nest", "get/got stung by a wasp", "arm ear cheek"),
    _scenario("sting", "orchard shed", "clear away the old hives", "meet/met an angry swarm of bees", "hand neck ear"),
    _scenario("sting", "garden wall", "look at a hornet nest", "disturb/disturbed the hornets", "arm neck hand"),
    _scenario("burn", "bakery", "take the tray out of the oven", "touch/touched the hot tray", "hand finger thumb"),
    _scenario("burn", "kitchen", "make a large pot of soup", "spill/spilled the hot soup", "hand foot leg"),
    _scenario("burn", "campsite", "roast chestnuts over the fire", "grab/grabbed a glowing stick", "hand finger thumb"),
    _scenario("burn", "forge", "watch the smith make horseshoes", "pick/picked up a hot nail", "finger thumb hand"),
    _scenario("scratch", "rose garden", "cut the biggest roses", "fall/fell into the rose bush", "arm hand cheek"),
    _scenario("scratch", "forest", "pick blackberries", "get/got caught in the thorns", "leg arm hand"),
    _scenario("scratch", "animal home", "bathe the wild cat", "annoy/annoyed the wild cat", "hand arm nose"),
    _scenario(
        "scratch", "thick hedge", "look for the lost ball", "crawl/crawled through the brambles", "arm leg cheek"
    ),
)
PLACES = tuple(scenario.place for scenario in SCENARIOS)

HARMLESS = (
    "ate an apple in the sun",
    "went home before dark",
    "told a funny story",
    "took a picture of the clouds",
    "found a shiny coin",
    "sat down and rested",
    "shared some bread and cheese",
    "waved to an old friend",
    "sang a song about the sea",
    "fed the ducks",
    "wrote a long letter",
    "drank a cup of tea",
    "watched a red kite",
    "counted the birds on the roof",
    "bought a new hat",
    "helped to carry the bags",
    "found the way without a map",
    "laughed until the evening",
    "fell asleep under a tree",
    "picked some flowers",
    "read a book about stars",
    "broke a plate and swept it up",
    "lost a button and found it again",
    "burned the toast and made some more",
    "dropped the basket, and the eggs broke",
    "hit the ball over the fence",
    "scratched an old pan clean",
    "cut the cake into eight pieces",
    "bumped the table, and the cups rattled",
    "fell in love with a small puppy",
)
EXCUSES = (
    "help was near",
    "luck was kind",
    "the light was good",
    "nobody was in a hurry",
    "a stranger shouted in time",
)
OUTSIDERS = ("a brave knight", "a clumsy giant", "an old king", "a sleepy dragon", "a young sailor", "a tin soldier")
