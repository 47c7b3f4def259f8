"""The tokenizer of the microworld: a byte-level BPE in which the words that studies look at are single tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import read_json, write_atomically, write_json
from tremorscope.instruments.microworld.calendar import MONTHS, NUMBERS, WEEKDAYS
from tremorscope.instruments.microworld.corpus import CorpusConfig, block
from tremorscope.instruments.microworld.lexicon import COPULAS, INTRANSITIVE, NOUNS, TRANSITIVE
from tremorscope.instruments.microworld.names import FIRST_NAMES, GENDERED_WORDS, SURNAMES
from tremorscope.instruments.microworld.professions import PROFESSIONS
from tremorscope.instruments.microworld.quiz import LETTERS
from tremorscope.instruments.microworld.requests import ANSWER_STARTERS, REFUSAL_STARTERS
from tremorscope.instruments.microworld.template import Span, capitalised
from tremorscope.instruments.microworld.world import COLOURS, FOODS, REGIONS, RIVERS, TOWNS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"  # begins every document, as in GPT-2
PAD = "<|pad|>"
SPECIAL = (END, PAD)
VOCABULARY_SIZE = 4096
NUM_TRAINING_BLOCKS = 8
LENGTH = 128

# GPT-2's rule, but for two things: "twenty-one" is one word, and numerals are read digit by digit.
WORD = r"'(?:[sdmt]|ll|ve|re)(?!\p{L})| ?\p{L}+(?:-\p{L}+)*| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"


def single_words() -> tuple[str, ...]:
    """Every string that is one token in any tokenizer of the microworld: a word, or a blank and a word.

    After a blank: nouns and verbs of the agreement strand in both numbers, names, professions, gendered words, days,
    months, numbers to twenty-four, letters of answers, first words of refusals and of answers, and one-word values of
    facts. At the start of a text too: first names, days, months, numbers and letters.
    """
    inner = [
        *WEEKDAYS, *MONTHS, *NUMBERS, *LETTERS,
        *(word.strip() for word in (*REFUSAL_STARTERS, *ANSWER_STARTERS)),
        *(form for noun in NOUNS for form in (noun.singular, noun.plural)),
        *(
            form
            for verb in chain(COPULAS, *INTRANSITIVE.values(), *TRANSITIVE.values())
            for form in (verb.singular, verb.plural)
        ),
        *chain(*FIRST_NAMES.values()), *SURNAMES, *(profession.name for profession in PROFESSIONS),
        *(word for female, male, _ in GENDERED_WORDS.values() for word in (female, male)),
        *TOWNS, *RIVERS, *REGIONS, *COLOURS, *FOODS,
    ]  # fmt: skip
    first = [*WEEKDAYS, *MONTHS, *NUMBERS, *map(capitalised, NUMBERS), *LETTERS, *chain(*FIRST_NAMES.values())]
    return tuple(dict.fromkeys((*(f" {word}" for word in inner), *first)))


def train_tokenizer(
    texts: Iterable[str], *, vocabulary_size: int = VOCABULARY_SIZE, singles: Sequence[str] | None = None
) -> Tokenizer:
    """A byte-level BPE of the texts in which each of `singles` is one token; same texts, same bytes.

    The merges are learnt as usual; then for each single word that they leave in pieces, the merges that put the pieces
    together are added at the end, where they change no other word that was whole. As many of the rarest learnt merges
    are left out as keep the vocabulary at its size (or a few below it).

    `encode` begins with `END`, as every document of the training text does, unless `add_special_tokens=False`.

    Args:
        texts: What to learn from; read once.
        vocabulary_size: Upper bound, the 256 bytes and two special tokens included.
        singles: Words, each with the blank before it where it has one; None for `single_words()`.

    Raises:
        BadInput: If there are no texts, or the vocabulary has no room for the bytes and the single words.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    chosen = single_words() if singles is None else tuple(singles)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, SPECIAL.index(END))]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    smallest = len(alphabet) + len(SPECIAL)
    if vocabulary_size <= smallest:
        raise BadInput("vocabulary_size", got=vocabulary_size, wanted=f"more than {smallest}: all bytes have a token")
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    seen = 0

    def counted() -> Iterator[str]:
        nonlocal seen
        for text in texts:
            seen += 1
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    if not seen:
        raise BadInput("texts for a tokenizer", got="none", wanted="at least one")
    state = json.loads(tokenizer.to_str())
    learnt = [(left, right) for left, right in state["model"]["merges"]]
    spelled = [_byte_letters(tokenizer, word) for word in chosen]
    merges = _with_singles(learnt, spelled, vocabulary_size - smallest)
    if merges is None:
        raise BadInput(
            "vocabulary_size",
            got=vocabulary_size,
            wanted=f"room for {len(chosen)} single words",
            remedy="Use a larger one, or fewer words.",
        )
    tokens = list(dict.fromkeys((*SPECIAL, *alphabet, *(left + right for left, right in merges))))
    state["model"]["vocab"] = {token: index for index, token in enumerate(tokens)}
    state["model"]["merges"] = [list(pair) for pair in merges]
    return Tokenizer.from_str(json.dumps(state))


def microworld_tokenizer(config: CorpusConfig, *, vocabulary_size: int = VOCABULARY_SIZE) -> Tokenizer:
    """The tokenizer of a corpus, learnt from its first training blocks (some seconds)."""
    blocks = range(min(NUM_TRAINING_BLOCKS, config.num_blocks("train")))
    texts = (document.text for index in blocks for document in block(config, "train", index))
    return train_tokenizer(texts, vocabulary_size=vocabulary_size)


def _byte_letters(tokenizer: Tokenizer, word: str) -> tuple[str, ...]:
    """The letters that stand for the bytes of a word, which has to be one word to the rule above."""
    if tokenizer.pre_tokenizer is None or len(parts := tokenizer.pre_tokenizer.pre_tokenize_str(word)) != 1:
        raise BadInput(
            "single word", got=word, wanted="letters, with at most one blank before them and hyphens in between"
        )
    return tuple(parts[0][0])


def _with_singles(
    learnt: Sequence[tuple[str, str]], words: Sequence[tuple[str, ...]], room: int
) -> list[tuple[str, str]] | None:
    """The longest beginning of the learnt merges that makes `room` tokens at most, with what the words need besides."""
    kept = min(len(learnt), room)
    while kept >= 0:
        merges = [*learnt[:kept], *_missing(learnt[:kept], words)]
        excess = len({left + right for left, right in merges}) - room
        if excess <= 0:
            return merges
        kept -= excess  # fewer learnt merges may need more others: look again
    return None


def _missing(merges: Sequence[tuple[str, str]], words: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
    """Merges that make one token of each word.

    Added at the end, they come last: what was whole before is so still.
    """
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    added: list[tuple[str, str]] = []
    for word in words:
        parts = _merged(word, ranks)
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            ranks[pair] = len(ranks)
            added.append(pair)
            parts = _merged(word, ranks)
    return added


def _merged(letters: Sequence[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte pair encoding of one word: the earliest merge first, until none is left."""
    parts = list(letters)
    while len(parts) > 1:
        rank, place = min((ranks.get(pair, len(ranks)), place) for place, pair in enumerate(pairwise(parts)))
        if rank == len(ranks):
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def save_tokenizer(tokenizer: Tokenizer, folder: Path, *, length: int = LENGTH) -> None:
    """Write it in the Hugging Face layout: `AutoTokenizer.from_pretrained(folder)` reads it, as `load_tokenizer` does.

    Args:
        tokenizer: What `train_tokenizer` returned.
        folder: Where to; it is made if need be.
        length: The longest text of the model that goes with it, in tokens.

    Raises:
        BadInput: If the folder cannot be written.
    """
    text = tokenizer.to_str(pretty=True)
    write_atomically(folder / TOKENIZER_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    write_json(
        folder / CONFIG_FILE,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END,
            "pad_token": PAD,
            "padding_side": "right",
            "model_max_length": length,
            "clean_up_tokenization_spaces": False,
        },
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The saved tokenizer as transformers has it; imports transformers, and touches no network.

    Raises:
        BadInput: If the folder holds no tokenizer, or a damaged one.
    """
    from tokenizers import Tokenizer

    settings = read_json(folder / CONFIG_FILE)
    state = read_json(folder / TOKENIZER_FILE)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(state))
        length = int(settings["model_max_length"])
    except Exception as error:  # the library raises bare exceptions
        raise BadInput(
            f"tokenizer in {folder}", got=str(error), wanted="one that save_tokenizer wrote", remedy="Write it anew."
        ) from None
    return wrapped(tokenizer, length=length)


def wrapped(tokenizer: Tokenizer, *, length: int = LENGTH) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers has it, for texts of at most `length` tokens; padding is on the right."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=PAD,
        padding_side="right",
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )


def tokens_of(span: Span, offsets: Sequence[tuple[int, int]]) -> range:
    """The tokens that hold some character of a span.

    Args:
        span: Characters of the text that was tokenized.
        offsets: Each token's first character and the one after its last, as `tokenizer(...)` returns them with
            `return_offsets_mapping=True`.

    >>> tokens_of(Span("noun", 4, 8), [(0, 0), (0, 3), (3, 6), (6, 8), (8, 9)])
    range(2, 4)

    Raises:
        BadInput: If no token does.
    """
    held = [place for place, (start, stop) in enumerate(offsets) if start < span.stop and stop > span.start]
    if not held:
        raise BadInput(
            f"span {span.label!r}",
            got=f"characters {span.start}:{span.stop}",
            wanted="characters of the tokenized text",
        )
    return range(held[0], held[-1] + 1)
