"""Names of the people of the microworld, and the words that tell a woman from a man."""

from __future__ import annotations

from typing import Literal

from tremorscope.instruments.microworld.word_list import words

Gender = Literal["female", "male"]
GENDERS: tuple[Gender, ...] = ("female", "male")

FIRST_NAMES: dict[Gender, tuple[str, ...]] = {
    "female": words(
        "Anna Mia Clara Emma Nora Lucy Sara Ella Julia Laura Maria Alice Helen Grace Ruth Ida Rosa Vera Olga "
        "Paula Sofia Irene Carol Diana Edith Flora Hanna Jane Karin Linda Mary Nina Petra Rita Susan Tina Wanda "
        "Zoe Agnes Bella"
    ),
    "male": words(
        "Tom Ben Max Paul Peter John David Mark Leo Adam Simon Oscar Felix Henry Jack Daniel Hugo Ivan Karl Lukas"
        " Martin Nils Otto Robert Samuel Theo Victor Walter Albert Bruno Carl Edgar Frank George Harold James "
        "Kevin Louis Noah Oliver"
    ),
}
SURNAMES = words(
    "Reed Stone Brook Marsh Field Winter Summer Frost Lane Miller Cooper Mason Turner Fisher Archer Porter Carter"
    " Weaver Potter Sawyer Walker Parker Barker Hunter Palmer Foster Harper Piper Dale Ford Wood Moore Hill Grove"
    " Ash Birch Hazel Linden Rowan Maple Finch Wren Swift Crane Heron Drake Lark Nash Blake Boyd Craig Doyle "
    "Ellis Flynn Grant Hayes Irwin Jarvis Knox Lloyd Morris Norton Owens Pratt Quinn Rhodes Sharp Tate Upton "
    "Vance Wells Young"
)
# Words whose form depends on the gender of the person told of, and the form that says nothing of it.
GENDERED_WORDS: dict[str, tuple[str, str, str]] = {
    "they": ("she", "he", "{surname}"),
    "them": ("her", "him", "{surname}"),
    "their": ("her", "his", "{surname}'s"),
    "title": ("Ms", "Mr", "Dr"),
    "parent": ("mother", "father", "parent"),
    "child": ("daughter", "son", "child"),
    "sibling": ("sister", "brother", "sibling"),
    "grandparent": ("grandmother", "grandfather", "grandparent"),
    "person": ("woman", "man", "person"),
    "relative": ("aunt", "uncle", "relative"),
}
PRONOUNS: dict[Gender, dict[str, str]] = {
    "female": {"they": "she", "them": "her", "their": "her"},
    "male": {"they": "he", "them": "him", "their": "his"},
}


def gender_of(first_name: str) -> Gender:
    """The gender that a first name of the microworld tells."""
    return "female" if first_name in FIRST_NAMES["female"] else "male"
