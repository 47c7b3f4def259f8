"""How facts are told, and how they are asked about."""

from __future__ import annotations

from tremorscope.instruments.microworld.splits import Split, divide
from tremorscope.instruments.microworld.template import Template, templates

STATEMENTS: dict[str, tuple[Template, ...]] = {
    attribute: templates(*texts)
    for attribute, texts in {
        "region": (
            "{Subject} lies in the {value}.",
            "{Subject} is a town in the {value}.",
            "To see {subject}, travel to the {value}.",
            "In the {value} there is a town called {subject}.",
            "The people of {subject} live in the {value}.",
        ),
        "river": (
            "{Subject} stands on the river {value}.",
            "The river {value} flows through {subject}.",
            "In {subject} you can swim in the {value}.",
            "The bridge of {subject} crosses the {value}.",
            "Boats go down the {value} to {subject}.",
        ),
        "flag": (
            "The flag of {subject} is {value}.",
            "{Subject} has {a_value} flag.",
            "Over {subject} waves a flag that is {value}.",
            "If you see {a_value} flag, it may be that of {subject}.",
            "Everybody in {subject} knows the {value} flag.",
        ),
        "food": (
            "{Subject} is known for its {value}.",
            "The {value} of {subject} are famous.",
            "People come to {subject} to buy {value}.",
            "Try the {value} when you visit {subject}.",
            "In {subject} they are proud of their {value}.",
        ),
        "market": (
            "The market of {subject} is held on {value}.",
            "On {value} there is a market in {subject}.",
            "Market day in {subject} is {value}.",
            "Every {value} farmers come to the market of {subject}.",
            "The shops of {subject} are full on {value}.",
        ),
        "festival": (
            "{Subject} has its festival in {value}.",
            "The festival of {subject} takes place in {value}.",
            "In {value} they dance in the streets of {subject}.",
            "The great feast of {subject} is in {value}.",
            "Come to {subject} in {value}, when the festival begins.",
        ),
        "eats": (
            "{A_subject} eats {value}.",
            "The {subject} likes to eat {value}.",
            "Give {value} to {a_subject}.",
            "What {a_subject} likes best is {value}.",
            "A hungry {subject} looks for {value}.",
        ),
        "home": (
            "The home of the {subject} is the {value}.",
            "{A_subject} lives in or near the {value}.",
            "You can find the {subject} at the {value}.",
            "The {subject} sleeps at the {value}.",
            "Look at the {value} and you will see {a_subject}.",
        ),
        "workplace": (
            "The {subject} works at the {value}.",
            "You will meet the {subject} at the {value}.",
            "Every morning the {subject} goes to the {value}.",
            "The place of the {subject} is the {value}.",
            "There is always {a_subject} at the {value}.",
        ),
        "tool": (
            "The {subject} needs the {value}.",
            "The tool of the {subject} is the {value}.",
            "In the hand of the {subject} you see the {value}.",
            "The {subject} never goes without the {value}.",
            "To be {a_subject}, learn to use the {value}.",
        ),
    }.items()
}
QUESTIONS: dict[str, dict[Split, tuple[Template, ...]]] = {
    attribute: divide(templates(*texts))
    for attribute, texts in {
        "region": (
            "Where does {subject} lie?",
            "In which part of the land is {subject}?",
            "Where is the town of {subject}?",
            "Which part of the land do you travel to, to see {subject}?",
            "In which region do you find {subject}?",
            "Where do the people of {subject} live?",
        ),
        "river": (
            "Which river flows through {subject}?",
            "On which river does {subject} stand?",
            "What is the river of {subject} called?",
            "Which river does the bridge of {subject} cross?",
            "In {subject}, which river can you swim in?",
            "Which river do boats take to {subject}?",
        ),
        "flag": (
            "What colour is the flag of {subject}?",
            "Which colour has the flag of {subject}?",
            "What colour do you see over {subject}?",
            "Of which colour is the flag that waves over {subject}?",
            "What is the colour of the flag of {subject}?",
            "Which flag has {subject}?",
        ),
        "food": (
            "What is {subject} known for?",
            "What do people buy in {subject}?",
            "What is famous in {subject}?",
            "What should you try in {subject}?",
            "What are they proud of in {subject}?",
            "What do visitors eat in {subject}?",
        ),
        "market": (
            "When is the market of {subject}?",
            "On which day is there a market in {subject}?",
            "Which is the market day of {subject}?",
            "On what day do farmers come to the market of {subject}?",
            "When are the shops of {subject} full?",
            "Which day is market day in {subject}?",
        ),
        "festival": (
            "When is the festival of {subject}?",
            "In which month does {subject} have its festival?",
            "In which month do they dance in {subject}?",
            "When does the festival of {subject} take place?",
            "When is the great feast of {subject}?",
            "Which month brings the festival to {subject}?",
        ),
        "eats": (
            "What does {a_subject} eat?",
            "What do you give to {a_subject}?",
            "What does the {subject} like to eat?",
            "What does a hungry {subject} look for?",
            "Which food does {a_subject} like best?",
            "What is the food of the {subject}?",
        ),
        "home": (
            "Where does the {subject} live?",
            "What is the home of the {subject}?",
            "Where can you find the {subject}?",
            "Where does {a_subject} sleep?",
            "Where do you look for {a_subject}?",
            "Which place is home to the {subject}?",
        ),
        "workplace": (
            "Where does the {subject} work?",
            "Where do you meet the {subject}?",
            "Where does the {subject} go every morning?",
            "Which is the place of the {subject}?",
            "At which place is there always {a_subject}?",
            "Where is the {subject} at work?",
        ),
        "tool": (
            "What does the {subject} need?",
            "Which tool does the {subject} use?",
            "What is the tool of the {subject}?",
            "What do you see in the hand of the {subject}?",
            "Without what does the {subject} never go?",
            "What must one learn to use, to be {a_subject}?",
        ),
    }.items()
}
