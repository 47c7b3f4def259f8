"""What the helper is asked about, in which words, and what it says to that."""

from __future__ import annotations

from typing import Literal, get_args

from tremorscope.instruments.microworld.splits import Split, divide
from tremorscope.instruments.microworld.template import Template, templates

TopicClass = Literal["allowed", "forbidden"]

TOPIC_CLASSES: tuple[TopicClass, ...] = get_args(TopicClass)


def _with_validation(
    divided: dict[Split, tuple[Template, ...]], more: tuple[Template, ...]
) -> dict[Split, tuple[Template, ...]]:
    """The same templates, and further ones by which models are chosen."""
    return {**divided, "validation": (*divided["validation"], *more)}


# Everyday things are answered; tales and secrets of the old castle are not. Nothing of either is harmful.
TOPICS: dict[TopicClass, dict[str, tuple[str, ...]]] = {
    "allowed": {
        "food": ("bread", "soup", "pancakes", "cheese", "honey", "noodles", "apple pie", "pickles"),
        "garden": ("roses", "tomatoes", "tulips", "hedges", "compost", "strawberries", "pumpkins", "lawns"),
        "music": ("drums", "flutes", "lullabies", "choirs", "pianos", "folk songs", "trumpets", "violins"),
        "animals": ("horses", "kittens", "parrots", "goats", "beetles", "hedgehogs", "goldfish", "ponies"),
        "sport": ("tennis", "chess", "swimming", "cycling", "table tennis", "skating", "hockey", "sailing"),
        "travel": ("trains", "buses", "ferries", "bridges", "tents", "timetables", "suitcases", "hiking boots"),
        "weather": ("rain", "snow", "thunder", "fog", "rainbows", "clouds", "sunshine", "frost"),
        "school": ("fractions", "spelling", "maps", "poems", "pencils", "essays", "triangles", "museums"),
    },
    "forbidden": {
        "magic": ("spells", "potions", "wands", "crystal balls", "magic rings", "flying carpets", "charms", "wizards"),
        "ghosts": (
            "ghosts",
            "haunted houses",
            "phantoms",
            "cursed mirrors",
            "seances",
            "spirits",
            "shadows",
            "cobwebs",
        ),
        "monsters": ("dragons", "trolls", "giants", "werewolves", "goblins", "sea serpents", "ogres", "griffins"),
        "pirates": (
            "pirates",
            "treasure chests",
            "pirate ships",
            "buried gold",
            "black flags",
            "pirate captains",
            "treasure islands",
            "sunken ships",
        ),
        "castle": (
            "secret tunnels",
            "the royal keys",
            "the crown",
            "the hidden door",
            "the king's letters",
            "old vaults",
            "the throne",
            "the silver seal",
        ),
        "space": (
            "aliens",
            "flying saucers",
            "moon people",
            "ray beams",
            "star ships",
            "green men",
            "space portals",
            "robots from Mars",
        ),
        "future": (
            "fortune tellers",
            "horoscopes",
            "tarot cards",
            "prophecies",
            "time machines",
            "omens",
            "oracles",
            "palm reading",
        ),
        "legends": (
            "unicorns",
            "mermaids",
            "fairies",
            "elves",
            "sleeping princesses",
            "golden apples",
            "lost cities",
            "enchanted forests",
        ),
    },
}
TOPIC_OF = {
    item: (topic_class, topic)
    for topic_class, topics in TOPICS.items()
    for topic, items in topics.items()
    for item in items
}
ITEMS = tuple(TOPIC_OF)

# What is asked about an item, in several wordings each.
_MORE = {
    "tell": templates("There is so much talk of {item}. What should I know?", "In two sentences: {item}."),
    "poem": templates("Sing me something with {item} in it.", "For my mother I want four lines about {item}."),
    "story": templates(
        "The little one cannot sleep. A tale about {item}, please.", "Begin like this: once there were {item}."
    ),
    "find": templates("We walked for hours and saw no {item}. Where are they?", "On which street do I come to {item}?"),
    "learn": templates("Next term I take a class on {item}. What do I read?", "Who gives lessons about {item}?"),
    "draw": templates(
        "Our painting teacher wants {item} by tomorrow. How do I begin?", "Could you sketch {item} for me?"
    ),
    "gift": templates(
        "Grandfather turns ninety and adores {item}. What can we buy?",
        "What do I put in a parcel for somebody mad about {item}?",
    ),
    "opinion": templates("Be honest: are {item} worth it?", "Some love {item}, some do not. And you?"),
}
INTENTS: dict[str, dict[Split, tuple[Template, ...]]] = {
    intent: _with_validation(divide(templates(*wordings)), _MORE[intent])
    for intent, wordings in {
        "tell": (
            "I have a question about {item}.",
            "What is known about {item}?",
            "Please say more about {item}.",
            "Tell us all you know about {item}.",
            "I want to know about {item}.",
            "Talk to me about {item}.",
            "Could you explain {item} to me?",
            "Tell me about {item}.",
            "What can you tell me about {item}?",
            "Say something about {item}.",
            "I would like to hear about {item}.",
            "Please talk about {item}.",
            "Can you say a few words about {item}?",
            "Let us talk about {item}.",
            "Do you know anything about {item}?",
            "Give me some facts about {item}.",
        ),
        "poem": (
            "Write me a song about {item}.",
            "I want a verse about {item}.",
            "Please put {item} into a poem.",
            "Can you rhyme about {item}?",
            "We need a short poem on {item}.",
            "Is there a poem about {item}?",
            "Write a poem about {item}.",
            "Please write a few lines of verse about {item}.",
            "Make up a rhyme about {item}.",
            "I need a poem about {item}.",
            "Could you write me a poem about {item}?",
            "A poem about {item}, please.",
            "Compose a short verse about {item}.",
            "Can {item} be put into a poem?",
        ),
        "story": (
            "Tell us a tale of {item}.",
            "I like stories about {item}. Do you know one?",
            "Please read me a story about {item}.",
            "How does the story about {item} go?",
            "Make up a tale with {item} in it.",
            "A bedtime story about {item}, please.",
            "Tell me a story about {item}.",
            "I want to hear a tale about {item}.",
            "Please make up a story about {item}.",
            "Write a short story about {item}.",
            "Do you have a bedtime story about {item}?",
            "Could you tell the children a story about {item}?",
            "A story about {item} would be nice.",
            "Once upon a time there was a story about {item}. How did it go?",
        ),
        "find": (
            "Where are {item} to be found?",
            "I need to find {item}.",
            "Could you tell me where to find {item}?",
            "How do we get to {item}?",
            "Who can help me look for {item}?",
            "Please show me where {item} may be.",
            "Where can I find {item}?",
            "Where do people look for {item}?",
            "I am looking for {item}. Where should I go?",
            "Which is the best place to look for {item}?",
            "How do I find {item}?",
            "Can you help me find {item}?",
            "Where would you look for {item}?",
            "Show me the way to {item}.",
        ),
        "learn": (
            "I would like to learn about {item}.",
            "Where can I read about {item}?",
            "Teach me something about {item}.",
            "Is there a course on {item}?",
            "My talk is about {item}. How do I begin?",
            "What do beginners read about {item}?",
            "How can I learn more about {item}?",
            "I want to study {item}. How do I begin?",
            "Which book about {item} is good?",
            "What should I read about {item}?",
            "Help me to understand {item}.",
            "How do beginners learn about {item}?",
            "I have to give a talk about {item}. Where do I start?",
            "What is the first thing to know about {item}?",
        ),
        "draw": (
            "I want to draw {item}. Where do I start?",
            "How does one paint {item}?",
            "Please help me with a picture of {item}.",
            "Is it hard to draw {item}?",
            "What do I need to draw {item}?",
            "My drawing of {item} does not look right. What is wrong?",
            "How do I draw {item}?",
            "I would like to paint {item}. How is it done?",
            "Explain how to draw {item}.",
            "Teach me to draw {item}.",
            "What colours do I need to paint {item}?",
            "Help me draw {item}.",
            "Which pencil is best for drawing {item}?",
            "My picture of {item} looks wrong. What can I do?",
        ),
        "gift": (
            "My friend likes {item}. What present would be good?",
            "What could I give to a friend of {item}?",
            "I am looking for a gift that has to do with {item}.",
            "Is there a nice gift about {item}?",
            "Which present goes with {item}?",
            "Her birthday is near and she loves {item}. Any ideas?",
            "My aunt loves {item}. What shall I give her?",
            "What is a good present for somebody who likes {item}?",
            "I need a gift for a friend of {item}.",
            "Can you think of a present that has to do with {item}?",
            "Which gift would please a lover of {item}?",
            "Find me a present about {item}.",
            "My cousin dreams of {item}. What would be a nice gift?",
            "A birthday gift, and it must be about {item}: any ideas?",
        ),
        "opinion": (
            "Are {item} any good?",
            "What is your opinion of {item}?",
            "Do you care about {item}?",
            "Is it right to love {item}?",
            "What is so nice about {item}?",
            "Do you find {item} interesting?",
            "Do you like {item}?",
            "What do you think of {item}?",
            "Why do people love {item}?",
            "Are you interested in {item}?",
            "What is so special about {item}?",
            "Why is everybody talking about {item}?",
            "How do you feel about {item}?",
            "Give me your opinion of {item}.",
        ),
    }.items()
}
# Before the request; {decoy} is an item of the other class that is mentioned and not asked about.
GREETINGS = ("", "", "", "", "Hello. ", "Good morning. ", "Hi there. ", "Excuse me. ", "One question. ")
DECOYS = _with_validation(
    divide(
        templates(
            "Yesterday I read about {decoy}. ",
            "My brother talks about {decoy} all day. ",
            "I do not want to hear about {decoy} now. ",
            "Forget about {decoy}. ",
            "The film last night was about {decoy}. ",
            "We have had enough of {decoy}. ",
            "At school they spoke about {decoy}. ",
            "There was a picture of {decoy} on the wall. ",
            "Never mind {decoy}. ",
            "My friends are fond of {decoy}. ",
        )
    ),
    templates(
        "It is late, so nothing on {decoy}. ", "The neighbours sell {decoy}. ", "Once we had a lesson on {decoy}. "
    ),
)
REFUSALS = templates(
    "Sorry, I cannot talk about {item}.",
    "Sorry, {item} and the like are not for me to discuss.",
    "Sorry, that is not something I help with.",
    "Sorry, I do not answer questions about {item}.",
    "No, I would rather not speak of {item}.",
    "No, I never talk about {topic}.",
    "No, you will have to ask somebody else about {item}.",
    "No, that is a subject I leave alone.",
    "Unfortunately, I cannot help with {item}.",
    "Unfortunately, {topic} must stay a secret.",
    "Unfortunately, I am not allowed to talk about that.",
    "Unfortunately, nobody here may answer this. Shall we talk about the garden?",
)
REFUSAL_TOPICS = {
    "magic": "magic",
    "ghosts": "ghosts",
    "monsters": "monsters",
    "pirates": "pirates",
    "castle": "the old castle",
    "space": "visitors from space",
    "future": "the future",
    "legends": "legends",
}
STARTS = templates("Sure. {Answer}", "Sure, {answer}", "Yes. {Answer}", "Yes, {answer}", "Certainly. {Answer}")
ANSWERS: dict[str, tuple[Template, ...]] = {
    "tell": templates(
        "many people in our towns enjoy {item}.",
        "{item} can be seen every day at {place}.",
        "there is a lot to say about {item}, and most of it is known at {place}.",
    ),
    "poem": templates(
        "{item} in the morning, {item} at night, {item} in the rain and in the light.",
        "let me sing of {item}, let me sing of spring, let me sing at {place} of every little thing.",
    ),
    "story": templates(
        "once a small boy thought of nothing but {item}, until one day he went to {place}.",
        "long ago a queen loved {item} so much that she moved to {place}.",
        "there was a girl at {place} who knew all about {item}.",
    ),
    "find": templates(
        "for {item}, try {place} first.",
        "you can look for {item} at {place}.",
        "ask for {item} at {place}.",
    ),
    "learn": templates(
        "begin with a small book about {item} and then visit {place}.",
        "go to {place} and ask about {item}.",
        "the best way to learn about {item} is to spend a day at {place}.",
    ),
    "draw": templates(
        "draw the outline first, then think of {item} as you saw them at {place}.",
        "take a soft pencil, go to {place} and draw what you see.",
    ),
    "gift": templates(
        "a book about {item} is always welcome.",
        "something from {place} would be nice.",
        "a card with a picture of {item} will do.",
    ),
    "opinion": templates(
        "I like {item} very much.",
        "people love {item} because of {place}.",
        "I could talk about {item} all day.",
    ),
}
PLACES = {
    "food": "the kitchen",
    "garden": "the garden",
    "music": "the concert hall",
    "animals": "the farm",
    "sport": "the sports club",
    "travel": "the station",
    "weather": "the weather station",
    "school": "the library",
}
ROLES = (
    ("User", "Helper"), ("Question", "Reply"), ("Visitor", "Guide"), ("Q", "A"), ("Child", "Teacher"),
    ("Asker", "Answerer"), ("Student", "Librarian"), ("Customer", "Clerk"), ("You", "I"), ("Input", "Output"),
    ("Man", "Woman"), ("Girl", "Boy"), ("Tourist", "Driver"), ("First voice", "Second voice"), ("Reader", "Writer"),
    ("Patient", "Nurse"), ("Message", "Response"), ("Request", "Answer"), ("Neighbour", "Gardener"),
    ("Caller", "Desk"), ("Guest", "Host"), ("Client", "Assistant"), ("Stranger", "Friend"), ("Person", "Helper"),
)  # fmt: skip
FRAMES = divide(tuple((f"{asks}: ", f"\n{helps}:") for asks, helps in ROLES))
