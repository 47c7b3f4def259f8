"""The language models of the microworld: how each is made, and how it is written and read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from jaxtyping import Float, UInt16
from torch import Tensor, nn

import tremorscope
from tremorscope.foundations.arrays import read_arrays, write_arrays
from tremorscope.foundations.cache import cache_root
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.files import read_json, write_atomically, write_json
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.language.answers import DueAnswers
from tremorscope.instruments.microworld.calendar import NAMES, UNITS
from tremorscope.instruments.microworld.corpus import CorpusConfig, documents
from tremorscope.instruments.microworld.induction import WORDS
from tremorscope.instruments.microworld.packing import sequences, sequences_and_answers, shuffled
from tremorscope.instruments.microworld.recipes import (
    MicroworldRecipe,
    Stage,
    full_name,
    recipe_document,
    recipe_of,
    twin_of,
)
from tremorscope.instruments.microworld.requests import STARTERS
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.microworld.tokenizer import (
    SPECIAL,
    load_tokenizer,
    microworld_tokenizer,
    save_tokenizer,
    wrapped,
)
from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import MODEL_TYPE, RecurrentConfig, RecurrentLanguageModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel

WEIGHTS_FILE, CONFIG_FILE, RECIPE_FILE, CARD_FILE = "model.safetensors", "config.json", "recipe.json", "README.md"
# Words that answer the calendar's statements, with which a reply begins, and with which a copy does.
ANSWER_GROUPS = (
    *(tuple(f" {name}" for name in NAMES[unit]) for unit in UNITS),
    STARTERS,
    tuple(f" {word}" for word in WORDS),
)
MATRIX_SD = 0.05
POSITION_AMPLITUDE = 0.1
LONGEST_WAVE = 1000.0  # of the sinusoids from which the position embedding starts, over 2 pi


def initial_module(recipe: MicroworldRecipe, vocabulary_size: int) -> nn.Module:
    """The model before training, in evaluation mode; the draw depends on the recipe's seed and sizes alone.

    Matrices are normal with standard deviation 0.05, those that write into the residual stream divided by
    `sqrt(2 layers)`; the position embedding starts from sinusoids, with which a small model learns sooner to look
    at a word that it has seen before. Recurrent weights are uniform, as in `nn.GRU`.
    """
    with torch.random.fork_rng(devices=[]):  # constructors draw weights of their own, which are thrown away
        module = (
            _transformer(recipe, vocabulary_size)
            if recipe.architecture == "transformer"
            else _recurrent(recipe, vocabulary_size)
        )
    draws = generator(recipe.init_seed, "microworld", recipe.architecture)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(_initial(name, parameter, recipe, draws))
    return module.eval()


def training_text(
    recipe: MicroworldRecipe, tokenizer: Tokenizer, stage: Stage | None = None
) -> tuple[UInt16[numpy.ndarray, "rows length"], DueAnswers | None]:
    """The text of a stage (the first by default) as rows of tokens, shuffled where the recipe says so.

    Beside it the answers that are due in it, if its training asks for them: days, months, and first words of
    replies and of copies. Half a minute for a hundred million characters.

    Raises:
        BadInput: If the text is shorter than a row, answers are due in a shuffled one, or one is no single token.
    """
    corpus, training = (recipe.corpus, recipe.training) if stage is None else (stage.corpus, stage.training)
    if not training.answer_weight:
        return text_rows(corpus, "train", tokenizer, recipe.length, is_shuffled=recipe.is_shuffled), None
    if recipe.is_shuffled:
        raise BadInput("answer_weight", got=training.answer_weight, wanted="0 in a text whose tokens are shuffled")
    words = [word for group in ANSWER_GROUPS for word in group]
    numbers = {word: tokenizer.encode(word, add_special_tokens=False).ids for word in words}
    in_pieces = [word for word, tokens in numbers.items() if len(tokens) != 1]
    if in_pieces:
        raise BadInput(f"tokens of {in_pieces[0]!r}", got=len(numbers[in_pieces[0]]), wanted="1, as it is an answer")
    pieces = list(sequences_and_answers(documents(corpus, "train"), tokenizer, recipe.length, words))
    if not pieces:
        raise _too_short("train", recipe.length)
    return numpy.concatenate([tokens for tokens, _ in pieces]), DueAnswers(
        groups=tuple(tuple(numbers[word][0] for word in group) for group in ANSWER_GROUPS),
        wanted=numpy.concatenate([wanted for _, wanted in pieces]),
    )


def text_rows(
    corpus: CorpusConfig, split: Split, tokenizer: Tokenizer, length: int, *, is_shuffled: bool = False
) -> UInt16[numpy.ndarray, "rows length"]:
    """A split of a corpus as rows of tokens.

    Raises:
        BadInput: If the text is shorter than a row.
    """
    pieces = list(sequences(documents(corpus, split), tokenizer, length))
    if not pieces:
        raise _too_short(split, length)
    rows = numpy.concatenate(pieces)
    return shuffled(rows, corpus.seed, keep=range(len(SPECIAL))) if is_shuffled else rows


def _too_short(split: Split, length: int) -> BadInput:
    return BadInput(
        f"{split} text", got="less than one row", wanted=f"at least {length} tokens", remedy="Use more characters."
    )


def fresh_tokenizer(recipe: MicroworldRecipe) -> Tokenizer:
    """The tokenizer that the recipe's text gives (some seconds)."""
    return microworld_tokenizer(recipe.corpus, vocabulary_size=recipe.vocabulary_size)


def write_model(
    folder: Path, module: nn.Module, recipe: MicroworldRecipe, tokenizer: Tokenizer, *, card: str = ""
) -> None:
    """Write a model in the Hugging Face layout, weights as bfloat16, with its tokenizer, recipe and card.

    Raises:
        BadInput: If the folder cannot be written.
    """
    config = module.config
    write_json(folder / CONFIG_FILE, config.to_dict() if isinstance(config, RecurrentConfig) else _plain_config(config))
    write_arrays(
        folder / WEIGHTS_FILE,
        {name: parameter.detach().to(torch.bfloat16) for name, parameter in module.named_parameters()},
        metadata={"format": "pt"},
    )
    save_tokenizer(tokenizer, folder, length=recipe.length)
    write_json(folder / RECIPE_FILE, recipe_document(recipe))
    if card:
        write_atomically(folder / CARD_FILE, lambda path: path.write_text(card, encoding="utf-8"))


def read_model(folder: Path, name: str) -> Network:
    """A model that `write_model` wrote, in float32, with its tokenizer; nothing is looked up elsewhere.

    Raises:
        BadInput: If a file is missing or damaged, or weights do not fit the configuration.
    """
    settings = read_json(folder / CONFIG_FILE)
    with torch.random.fork_rng(devices=[]):
        module: nn.Module
        if settings.get("model_type") == MODEL_TYPE:
            sizes = {key: settings[key] for key in ("vocab_size", "width", "hidden_size", "num_layers")}
            module = RecurrentLanguageModel(RecurrentConfig(**sizes))
        else:
            module = _gpt2(settings)
    stored = read_arrays(folder / WEIGHTS_FILE)
    expected = {key: tuple(value.shape) for key, value in module.named_parameters()}
    if {key: tuple(value.shape) for key, value in stored.items()} != expected:
        raise BadInput(
            f"weights in {folder}",
            got="names or shapes that its configuration does not have",
            wanted=f"{len(expected)} tensors as in {CONFIG_FILE}",
            remedy="Build the model again.",
        )
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(stored[key])
    return Network(module.eval(), tokenizer=load_tokenizer(folder), name=name)


def load_microworld(name: str) -> Network:
    """A model of the microworld by its name, in float32, with its tokenizer. Touches no network.

    Raises:
        BadInput: If there is no such model, or it has to be built first.
    """
    twin = twin_of(name)
    if twin == "init":
        tokenizer = load_tokenizer(folder_of(""))
        return Network(initial_module(recipe_of(twin), len(tokenizer)), tokenizer=tokenizer, name=full_name(twin))
    return read_model(folder_of(twin), full_name(twin))


def folder_of(twin: str) -> Path:
    """Where a model lies: beside the package if it is shipped, else in the cache.

    Raises:
        BadInput: If it is at neither place.
    """
    for folder in (shipped_folder(twin), built_folder(twin)):
        if (folder / WEIGHTS_FILE).is_file():
            return folder
    raise BadInput(
        f"model {full_name(twin)!r}",
        got="not built yet",
        wanted="weights",
        remedy=f"Build it with: tremorscope train {full_name(twin).removeprefix('builtin:')}",
    )


def shipped_folder(twin: str) -> Path:
    """Where the package keeps a model."""
    return Path(tremorscope.__file__).parent / "models" / ("microworld" + (f"-{twin}" if twin else ""))


def built_folder(twin: str) -> Path:
    """Where `tremorscope train` leaves a model for `load`."""
    return cache_root() / "models" / ("microworld" + (f"-{twin}" if twin else ""))


def is_built(twin: str) -> bool:
    """Whether it can be loaded at once."""
    return twin == "init" or any((folder(twin) / WEIGHTS_FILE).is_file() for folder in (shipped_folder, built_folder))


def _transformer(recipe: MicroworldRecipe, vocabulary_size: int) -> GPT2LMHeadModel:
    if recipe.width % recipe.num_heads or recipe.width % 2:
        raise BadInput(
            "width", got=recipe.width, wanted=f"an even multiple of the {recipe.num_heads} heads", remedy="Try 256."
        )
    return _gpt2(
        {
            "vocab_size": vocabulary_size,
            "n_positions": recipe.length,
            "n_embd": recipe.width,
            "n_layer": recipe.num_layers,
            "n_head": recipe.num_heads,
            # The same function as GPT-2's own, in one kernel.
            "activation_function": "gelu_pytorch_tanh",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 1,
            "initializer_range": MATRIX_SD,
        }
    )


def _gpt2(settings: Mapping[str, Any]) -> GPT2LMHeadModel:
    """Attention is written out: on a CPU it trains faster, and forward-mode derivatives go through it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config.from_dict({**settings})
    config._attn_implementation = "eager"
    return GPT2LMHeadModel(config)


def _recurrent(recipe: MicroworldRecipe, vocabulary_size: int) -> RecurrentLanguageModel:
    return RecurrentLanguageModel(
        RecurrentConfig(
            vocab_size=vocabulary_size,
            width=recipe.width,
            hidden_size=recipe.hidden_size,
            num_layers=recipe.num_layers,
        )
    )


def _initial(name: str, parameter: Tensor, recipe: MicroworldRecipe, draws: torch.Generator) -> Tensor:
    if name.endswith("wpe.weight"):
        return sinusoids(*parameter.shape)
    if parameter.ndim < 2:
        is_gain = name.endswith("weight")  # of a normalisation
        return torch.full_like(parameter, float(is_gain))
    if name.startswith("layers."):
        bound = recipe.hidden_size**-0.5
        return torch.empty_like(parameter).uniform_(-bound, bound, generator=draws)
    sd = MATRIX_SD / math.sqrt(2 * recipe.num_layers) if name.endswith("c_proj.weight") else MATRIX_SD
    return sd * torch.randn(parameter.shape, generator=draws)


def sinusoids(positions: int, width: int) -> Float[Tensor, "positions width"]:
    """Sines and cosines of each position, at rates from 1 down to 1 / 1000.

    Source: arXiv:1706.03762, section 3.5, with another longest wave.
    """
    rates = torch.exp(-math.log(LONGEST_WAVE) * torch.arange(width // 2) / (width // 2))
    angles = torch.arange(positions)[:, None] * rates[None]
    return POSITION_AMPLITUDE * torch.cat([angles.sin(), angles.cos()], 1)


def _plain_config(config: Any) -> dict[str, Any]:
    document: dict[str, Any] = config.to_diff_dict()
    return document | {"architectures": ["GPT2LMHeadModel"], "dtype": "bfloat16"}


def wrapped_tokenizer(tokenizer: Tokenizer, recipe: MicroworldRecipe) -> Any:
    """The tokenizer as transformers has it, for this recipe's length."""
    return wrapped(tokenizer, length=recipe.length)
