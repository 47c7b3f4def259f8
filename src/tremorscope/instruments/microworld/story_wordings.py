"""The sentences of stories: meetings, gear, plans, and endings by what becomes of the mishap."""

from __future__ import annotations

from typing import Literal, get_args

from tremorscope.instruments.microworld.splits import divide
from tremorscope.instruments.microworld.template import templates

# What becomes of the mishap in the last sentence.
Outcome = Literal[
    "open",  # it happens, and what follows is left to the reader: gear decides
    "hurt",  # it happens and hurts
    "guarded",  # it happens, and gear guards
    "lucky",  # it happens and does no harm
    "almost",  # it nearly happens
    "avoided",  # it does not happen
    "dream",  # it is dreamt
    "pretence",  # it is played
    "tale",  # it happens to somebody in a tale
    "harmless",  # something else happens
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

MEETINGS = divide(
    templates(
        "{Hero} and {friend} went to the {place}.",
        "{Hero} met {friend} at the {place}.",
        "One morning {hero} took {friend} to the {place}.",
        "{Hero} visited the {place} with {friend}.",
        "It was a sunny day, and {hero} walked to the {place} with {friend}.",
        "{Friend} had told {hero} about the {place}, and now they were there.",
        "{Hero} and {friend} spent the afternoon at the {place}.",
        "After school {hero} and {friend} ran to the {place}.",
        "{Hero} had always wanted to see the {place}, so {friend} came along.",
        "On a cold day {hero} and {friend} came to the {place}.",
        "There was no school, and {hero} waited for {friend} at the {place}.",
        "The {place} was quiet when {hero} and {friend} arrived.",
        "{Hero} and {friend} were cousins, and they often played at the {place}.",
        "{Hero} showed {friend} the way to the {place}.",
        "Early in the day {hero} and {friend} set out for the {place}.",
        "Nobody was at the {place} but {hero} and {friend}.",
    )
)
# Sentences about gear, and whether it is worn after them.
WORN = divide(
    templates(
        "{Wearer} put on {gear}.",
        "{Wearer} wore {gear}.",
        "To be safe, {wearer} put on {gear}.",
        "{Wearer} had brought {gear} to wear all day.",
        "Only {wearer} wore {gear}.",
        "{Wearer} wore {gear} with pride.",
        "{Wearer} never went out without {gear}.",
        "{Wearer} was dressed in {gear}.",
    )
)
NOT_WORN = divide(
    templates(
        "{Wearer} had left {gear} at home.",
        "{Wearer} carried {gear} in a bag all day.",
        "{Wearer} had forgotten to bring {gear}.",
        "{Wearer} used to have {gear}, but not any more.",
        "{Wearer} wanted to buy {gear} one day.",
        "{Wearer} laughed at people with {gear}.",
        "{Wearer} did not care for {gear}.",
        "{Wearer} looked for {gear} in vain.",
    )
)
BARE = divide(
    templates(
        "They were happy and a little hungry.",
        "They had lunch with them in a basket.",
        "The sky was blue and the birds sang.",
        "They had been friends for years.",
        "It was warm, and they took their time.",
        "They talked about the summer.",
        "There was nobody else around.",
        "They had the whole day for it.",
    )
)
PLANS = divide(
    templates(
        "They wanted to {plan}.",
        "The plan was to {plan}.",
        "{Hero} wanted to {plan}.",
        "{Friend} had an idea: they would {plan}.",
        "It was time to {plan}.",
        "They had come to {plan}.",
        "{Hero} asked {friend} to help {plan}.",
        "They had decided to {plan}.",
        "Soon they began to {plan}.",
        "{Friend} could not wait to {plan}.",
        "{Hero} had dreamed for weeks that they would {plan}.",
        "What they liked best was to {plan}.",
    )
)
_ENDINGS: dict[Outcome, tuple[str, ...]] = {
    "open": (
        "{Victim} {past}.",
        "Suddenly {victim} {past}.",
        "A moment later {victim} {past}.",
        "Then {victim} {past}.",
        "Before long {victim} {past}, and {other} came running.",
        "While {other} looked away, {victim} {past}.",
        "{Other} turned round just as {victim} {past}.",
        "In the end {victim} {past}.",
    ),
    "hurt": (
        "{Victim} {past} and hurt {their} {body}.",
        "{Victim} {past}, and {their} {body} was sore for days.",
        "{Victim} hurt {their} {body} when {they} {past}.",
        "Soon {victim} {past} and had a sore {body}.",
        "{Victim} {past} and needed a bandage for {their} {body}.",
        "Suddenly {victim} {past}, and {other} had to look after the sore {body}.",
        "{Victim} {past}, and it was {their} {body} that was hurt.",
        "{Other} saw how {victim} {past} and hurt {their} {body}.",
    ),
    "guarded": (
        "{Victim} {past}, but {the_gear} kept {them} safe.",
        "{Victim} {past} and felt nothing because of {the_gear}.",
        "Thanks to {the_gear}, nothing was hurt when {victim} {past}.",
        "{Victim} {past}, but was safe in {the_gear}.",
        "{Other} was glad of {the_gear} when {victim} {past}, for nobody was hurt.",
        "When {victim} {past}, {the_gear} did its work, and {they} only laughed.",
    ),
    "lucky": (
        "{Victim} {past}, but was not hurt at all.",
        "{Victim} {past} and got up laughing, without a scratch.",
        "Then {victim} {past}, but luckily nothing was hurt.",
        "{Victim} {past}, but {they} was fine.",
        "{Other} was frightened when {victim} {past}, but {they} was not hurt.",
        "Suddenly {victim} {past}, yet {they} felt no pain at all.",
    ),
    "almost": (
        "{Victim} almost {past}, but {excuse}.",
        "{Victim} nearly {past}.",
        "{Other} called out just before {victim} could {mishap}.",
        "{Victim} was about to {mishap} when {other} called out.",
        "It looked as if {victim} would {mishap} and hurt {their} {body}, but {excuse}.",
        "For a moment {other} thought that {victim} would {mishap}, but {excuse}.",
    ),
    "avoided": (
        "{Victim} did not {mishap}, because {they} was careful.",
        "{Victim} and {other} took care, and nobody {past}.",
        "{Victim} was careful and did not {mishap}.",
        "{Other} was afraid that {victim} might {mishap}, but that never came.",
        "If {victim} had not been careful, {they} would have hurt {their} {body}.",
        "{Victim} knew how easy it was to {mishap} and get a sore {body}, and took great care.",
    ),
    "dream": (
        "That night {victim} dreamed that {they} {past}.",
        "In a dream {victim} {past} and hurt {their} {body}.",
        "{Victim} dreamed that {other} {past}.",
        "{Victim} woke up and was glad: it was only in a dream that {they} {past}.",
        "At night {other} dreamed that {victim} {past} and hurt {their} {body}.",
    ),
    "pretence": (
        "{Victim} pretended that {they} {past}, and {other} laughed.",
        "For fun {victim} acted as if {they} {past} and hurt {their} {body}.",
        "{Victim} played a trick and made {other} believe that {they} {past}.",
        "In their game {victim} {past}, and {other} played the nurse.",
        "{Victim} held {their} {body} and said that {they} {past}, but it was a joke.",
    ),
    "tale": (
        "{Victim} told a tale of {outsider} who {past}.",
        "{Victim} had read of {outsider} who {past} and got a sore {body}.",
        "{Victim} and {other} talked about {outsider} who {past}.",
        "{Victim} sang a song about {outsider} who {past}.",
        "In the film that {victim} liked, {outsider} {past} and got a sore {body}.",
    ),
    "harmless": (
        "{Victim} {harmless}.",
        "Then {victim} {harmless}.",
        "Later {victim} {harmless}.",
        "In the end {victim} {harmless}.",
        "{Victim} smiled and {harmless}.",
        "When all was done, {victim} {harmless}.",
        "While {other} waited, {victim} {harmless}.",
        "At last {victim} {harmless}.",
    ),
}
ENDINGS = {outcome: divide(templates(*texts)) for outcome, texts in _ENDINGS.items()}
