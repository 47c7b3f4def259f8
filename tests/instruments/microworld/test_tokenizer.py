"""The tokenizer: whole words where studies look, the same bytes each time, and every text comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.microworld import (
    agreement,
    biographies,
    calendar,
    induction,
    quiz,
    requests,
    stories,
    tokenizer,
)
from tremorscope.instruments.microworld.corpus import CorpusConfig, block
from tremorscope.instruments.microworld.template import Span
from tremorscope.instruments.microworld.tokenizer import (
    END,
    PAD,
    VOCABULARY_SIZE,
    load_tokenizer,
    microworld_tokenizer,
    save_tokenizer,
    single_words,
    tokens_of,
    train_tokenizer,
)

SMALL = CorpusConfig(
    characters=120_000,
    weights={"agreement": 1, "biographies": 1, "calendar": 1, "requests": 1, "stories": 1, "quiz": 1},
)
STRANGE = [
    "",
    " ",
    "\n\n\t x",
    "naïve café",
    "数字 один",
    "a\x00b",
    "don't  stop -- 3.14159",
    "twenty-one-hundred",
    "🙂",
]


@pytest.fixture(scope="module")
def trained():
    return microworld_tokenizer(SMALL)


def test_the_same_texts_give_the_same_bytes(trained):
    assert microworld_tokenizer(SMALL).to_str() == trained.to_str()


def test_words_that_studies_look_at_are_single_tokens(trained):
    assert len(single_words()) > 1000
    assert {
        " Monday",
        "Monday",
        " twenty-four",
        "Twenty-four",
        " A",
        " Sorry",
        " Sure",
        " nurse",
        " geese",
        " she",
    } <= set(single_words())
    numbers = [trained.encode(word, add_special_tokens=False).ids for word in single_words()]
    assert {len(some) for some in numbers} == {1}
    assert len({some[0] for some in numbers}) == len(single_words())
    assert trained.get_vocab_size() <= VOCABULARY_SIZE


def test_every_text_comes_back(trained):
    for text in [*STRANGE, *(document.text for document in block(SMALL, "train", 0)[:200])]:
        encoded = trained.encode(text)
        assert encoded.tokens[0] == END
        assert trained.decode(encoded.ids) == text


def test_prompts_and_answers_meet_between_tokens(trained):
    for strand in (agreement, biographies, calendar, quiz, induction):
        for one in strand.examples("test", 0, 30):
            prompt = trained.encode(one.prompt).ids
            answer = trained.encode(one.answer, add_special_tokens=False).ids
            whole = trained.encode(one.prompt + one.answer).ids
            assert prompt + answer == whole
            assert len(answer) == 1 or strand is quiz
    for one in requests.examples("train", 0, 30):
        assert trained.encode(one.prompt).ids == trained.encode(one.text).ids[: len(trained.encode(one.prompt).ids)]
    for one in stories.examples("train", 0, 30):
        assert trained.encode(one.prompt).ids == trained.encode(one.text).ids[: len(trained.encode(one.prompt).ids)]


def test_wrong_answers_are_single_tokens_as_well(trained):
    for one in agreement.examples("train", 0, 40):
        assert len(trained.encode(one.wrong, add_special_tokens=False).ids) == 1
        assert len(trained.encode(one.pair_prompt).ids) == len(trained.encode(one.prompt).ids)


def test_spans_find_their_tokens(trained):
    for one in calendar.examples("train", 0, 20):
        encoded = trained.encode(one.text)
        for span in one.spans:
            if span.label in ("start", "answer", "offset"):
                (place,) = tokens_of(span, encoded.offsets)
                assert trained.decode([encoded.ids[place]]).strip() == one.text[span.start : span.stop]
    with pytest.raises(BadInput, match="span 'word': got characters 90:95"):
        tokens_of(Span("word", 90, 95), [(0, 0), (0, 3)])


def test_added_words_change_no_word_that_was_whole():
    texts = ["the cat sat on the mat " * 20, "a dog and a log in the fog " * 20]
    plain = train_tokenizer(texts, vocabulary_size=400, singles=[])
    more = train_tokenizer(texts, vocabulary_size=400, singles=[" xyzzy", " plugh", " catdog", "thethe"])
    for word in ("xyzzy", "plugh", "catdog"):
        assert len(more.encode(f" {word}", add_special_tokens=False).ids) == 1
    assert len(more.encode("thethe", add_special_tokens=False).ids) == 1
    for word in (" cat", " the", " dog", " fog"):
        assert len(plain.encode(word, add_special_tokens=False).ids) == 1
        assert len(more.encode(word, add_special_tokens=False).ids) == 1


def test_rare_merges_make_room_for_single_words():
    texts = [" ".join(f"{left}{right}" for left in "abcdefghij" for right in ("one", "two", "three"))]
    small = train_tokenizer(texts, vocabulary_size=275, singles=[" zzzz"])
    assert small.get_vocab_size() <= 275
    assert len(small.encode(" zzzz", add_special_tokens=False).ids) == 1


def test_it_is_saved_as_transformers_reads_it(trained, tmp_path: Path):
    from transformers import AutoTokenizer

    save_tokenizer(trained, tmp_path / "model", length=64)
    for loaded in (load_tokenizer(tmp_path / "model"), AutoTokenizer.from_pretrained(tmp_path / "model")):
        assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == (END, END, PAD)
        assert loaded.model_max_length == 64
        assert len(loaded) == trained.get_vocab_size()
        batch = loaded(["Two days", "Two days after Monday is"], padding=True, return_offsets_mapping=True)
        assert batch["input_ids"][0][-1] == loaded.pad_token_id
        assert batch["attention_mask"][0].count(0) == 3
        assert batch["input_ids"][1] == trained.encode("Two days after Monday is").ids
        assert loaded.decode(batch["input_ids"][1], skip_special_tokens=True) == "Two days after Monday is"
    before = (tmp_path / "model" / tokenizer.TOKENIZER_FILE).read_bytes()
    save_tokenizer(trained, tmp_path / "model", length=64)
    assert (tmp_path / "model" / tokenizer.TOKENIZER_FILE).read_bytes() == before


def test_wrong_requests_are_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"tokenizer_config\.json is missing"):
        load_tokenizer(tmp_path)
    with pytest.raises(BadInput, match="texts for a tokenizer: got none"):
        train_tokenizer([])
    with pytest.raises(BadInput, match="vocabulary_size: got 200; wanted more than 258"):
        train_tokenizer(["a"], vocabulary_size=200)
    with pytest.raises(BadInput, match="room for 1 single words"):
        train_tokenizer(["a"], vocabulary_size=259, singles=[" abcdef"])
    with pytest.raises(BadInput, match="single word: got two words"):
        train_tokenizer(["a"], vocabulary_size=300, singles=["two words"])


def test_a_damaged_tokenizer_is_refused(trained, tmp_path: Path):
    save_tokenizer(trained, tmp_path)
    (tmp_path / tokenizer.TOKENIZER_FILE).write_text('{"version": "1.0"}')
    with pytest.raises(BadInput, match="wanted one that save_tokenizer wrote"):
        load_tokenizer(tmp_path)
