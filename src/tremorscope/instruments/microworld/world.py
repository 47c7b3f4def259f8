"""The facts of the microworld: towns, animals and professions, the same in every text that tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import final

from tremorscope.instruments.microworld.calendar import MONTHS, WEEKDAYS
from tremorscope.instruments.microworld.draw import Draw
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.microworld.splits import Split, part_of
from tremorscope.instruments.microworld.word_list import words

TOWNS = words(
    "Abbin Arlow Bastor Belwick Brennet Corvin Dalmor Dunfield Elmar Estwick Farlow Fenbury Galden Garrow Halvik "
    "Hartmoor Ilmen Jorvath Kelbrook Kinmere Lanholt Lindell Marwick Merrow Nolvar Norholt Oakmere Orsen Pellam "
    "Quarley Redmere Rolvik Sandhal Selwick Tarnow Tavik Tolven Ulver Vantry Velmar Wendale Westlow Wolmar Yarrow"
    " Yelden Zelling Zorin Thorby"
)
REGIONS = ("north", "south", "east", "west", "centre", "highlands")
RIVERS = words("Lumen Oster Brin Sool Tessa Varn Nerra Ulm Fyle Isk Dorn Quill")
COLOURS = words("red blue green yellow white black purple orange brown grey")
FOODS = words(
    "plums honey cheese cherries pears mustard pancakes sausages mushrooms apples walnuts butter noodles beans pies "
    "chestnuts"
)
# What each animal eats and where it lives.
ANIMAL_FACTS = {
    "badger": ("worms", "sett"),
    "bear": ("berries", "cave"),
    "beaver": ("bark", "lodge"),
    "bee": ("nectar", "hive"),
    "camel": ("shrubs", "desert"),
    "cat": ("fish", "house"),
    "cow": ("grass", "barn"),
    "crow": ("seeds", "nest"),
    "deer": ("leaves", "forest"),
    "dog": ("bones", "kennel"),
    "donkey": ("hay", "shed"),
    "duck": ("weeds", "pond"),
    "eagle": ("hares", "cliff"),
    "fox": ("mice", "den"),
    "frog": ("flies", "swamp"),
    "goat": ("herbs", "mountain"),
    "hedgehog": ("beetles", "hedge"),
    "hen": ("corn", "coop"),
    "horse": ("oats", "stable"),
    "lizard": ("crickets", "wall"),
    "mole": ("roots", "burrow"),
    "monkey": ("bananas", "jungle"),
    "mouse": ("crumbs", "hole"),
    "otter": ("crabs", "river"),
    "owl": ("moths", "tower"),
    "panda": ("bamboo", "valley"),
    "parrot": ("nuts", "cage"),
    "penguin": ("squid", "ice"),
    "pig": ("potatoes", "sty"),
    "rabbit": ("carrots", "hutch"),
    "robin": ("spiders", "bush"),
    "seal": ("herrings", "beach"),
    "snail": ("lettuce", "shell"),
    "squirrel": ("acorns", "tree"),
    "swan": ("reeds", "lake"),
    "turtle": ("algae", "sea"),
}

TIER_WEIGHTS = (8, 4, 2, 1)


@final
@dataclass(frozen=True)
class Fact:
    """`value` is the `attribute` of `subject`; one of `domain` might be.

    Facts of tier 0 are told eight times as often as those of tier 3. A fact whose split is not "train" is told in
    statements, and never asked about, in the training text.
    """

    subject: str
    attribute: str
    value: str
    domain: tuple[str, ...]
    tier: int
    split: Split


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in a fixed order; towns have theirs by lot, once and for all.

    >>> fact = facts()[0]
    >>> fact.subject, fact.attribute, fact.value
    ('Abbin', 'region', 'north')
    """
    draw = Draw(0, "microworld facts")
    domains = {
        "region": REGIONS,
        "river": RIVERS,
        "flag": COLOURS,
        "food": FOODS,
        "market": WEEKDAYS,
        "festival": MONTHS,
    }
    rows = [(town, attribute, draw.one(domain), domain) for town in TOWNS for attribute, domain in domains.items()]
    eaten, homes = (tuple(sorted({pair[place] for pair in ANIMAL_FACTS.values()})) for place in (0, 1))
    for animal, (food, home) in ANIMAL_FACTS.items():
        rows += [(animal, "eats", food, eaten), (animal, "home", home, homes)]
    workplaces = tuple(profession.workplace for profession in PROFESSIONS)
    tools = tuple(profession.tool for profession in PROFESSIONS)
    for profession in PROFESSIONS:
        rows += [
            (profession.name, "workplace", profession.workplace, workplaces),
            (profession.name, "tool", profession.tool, tools),
        ]
    return tuple(
        Fact(subject, attribute, value, domain, draw.below(len(TIER_WEIGHTS)), part_of("fact", subject, attribute))
        for subject, attribute, value, domain in rows
    )


@cache
def facts_by_weight(split: Split | None = None) -> tuple[Fact, ...]:
    """Facts, each as often as its tier tells it; those of one split, or all."""
    return tuple(fact for fact in facts() if split in (None, fact.split) for _ in range(TIER_WEIGHTS[fact.tier]))


@cache
def value_of(subject: str, attribute: str) -> str:
    """The value of a fact."""
    return next(fact.value for fact in facts() if (fact.subject, fact.attribute) == (subject, attribute))
