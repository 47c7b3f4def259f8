"""How each model of the microworld is made: its sizes, texts and trainings, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.language.training import LanguageTraining
from tremorscope.instruments.microworld.corpus import CorpusConfig
from tremorscope.instruments.microworld.tokenizer import VOCABULARY_SIZE

NAME = "builtin:microworld"


class Stage(BaseModel):
    """One training on one text."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    corpus: CorpusConfig = Field(description="Its text.")
    training: LanguageTraining = Field(description="How to learn it.")
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Of its weights in the mean with those before it: less than 1 keeps what was known.",
    )
    texts: int = Field(
        default=1,
        ge=1,
        description="Trainings, each from the weights before and on a text of its own, whose mean is taken.",
    )

    def trainings(self) -> list[Stage]:
        """Each of them, as a stage of one text: text and order are those of the next seeds."""
        return [
            Stage(
                corpus=replace(self.corpus, seed=self.corpus.seed + place),
                training=replace(self.training, seed=self.training.seed + place),
                share=self.share,
            )
            for place in range(self.texts)
        ]


class MicroworldRecipe(BaseModel):
    """Everything that a model of the microworld depends on, besides this code and (for prose) the installed Python."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    architecture: Literal["transformer", "recurrent"] = Field(
        "transformer", description="GPT-2, or layers of gated recurrent units."
    )
    num_layers: int = Field(4, ge=1, description="Blocks of the transformer, or layers of the recurrent model.")
    width: int = Field(256, ge=2, description="Size of an embedding and, in the transformer, of the residual stream.")
    num_heads: int = Field(8, ge=1, description="Attention heads of a block.")
    hidden_size: int = Field(512, ge=1, description="State of a recurrent layer.")
    length: int = Field(128, ge=2, description="Tokens of a training row, and positions of the transformer.")
    vocabulary_size: int = Field(VOCABULARY_SIZE, description="Upper bound on the tokens of the tokenizer.")
    init_seed: int = Field(0, description="Names the draw of the first weights.")
    is_shuffled: bool = Field(False, description="Shuffle the tokens of each row: the null of the text.")
    stop_after: float = Field(1.0, gt=0, le=1, description="Share of the steps after which to stop: a checkpoint.")
    corpus: CorpusConfig = Field(default_factory=CorpusConfig, description="The text.")
    training: LanguageTraining = Field(
        default_factory=lambda: LanguageTraining(batch_rows=8, learning_rate=5e-4, warmup_steps=500),
        description="How to learn it.",
    )
    later: Mapping[str, Stage] = Field(
        {}, description="Further stages by name, each from the weights that the one before would have left on disk."
    )

    @field_validator("later", mode="before")
    @classmethod
    def _without_none(cls, given: Mapping[str, Any] | None) -> dict[str, Any]:
        return {name: stage for name, stage in (given or {}).items() if stage is not None}

    def stages(self) -> dict[str, Stage]:
        """All stages, in order; the name of the first is empty."""
        return {"": Stage(corpus=self.corpus, training=self.training), **self.later}

    def stop_at(self, num_steps: int) -> int:
        """The step of the first stage after which it is finished."""
        return max(1, round(self.stop_after * num_steps))


# After the first text the model knows near offsets of the calendar and has wordings by heart. The second stage has far
# offsets as often as near ones, wordings by the thousand, and more of what is hard; the third, at a lower rate, brings
# back what was forgotten meanwhile. The fourth strews words that tell nothing over the wordings, and asks for the
# answer behind each of them: no word is then needed to know that an answer is due. The mean of the weights before and
# after it has learnt that and forgotten nothing (Wortsman et al. 2022, arXiv:2109.01903). The fifth leaves nothing but
# what tells; the sixth has verbs that tell, second subjects and questions, in float32, as not every machine computes
# in bfloat16.
HARD = Stage(
    corpus=CorpusConfig(
        seed=1,
        characters=60_000_000,
        weights={
            **{"agreement": 0.08, "biographies": 0.09, "calendar": 0.38, "requests": 0.20},
            **{"stories": 0.04, "quiz": 0.03, "induction": 0.13, "prose": 0.05},
        },
        composed=0.65,
        near=False,
    ),
    training=LanguageTraining(batch_rows=8, learning_rate=5e-4, warmup_steps=500),
)
BALANCED = Stage(
    corpus=CorpusConfig(
        seed=2,
        characters=42_000_000,
        weights={
            **{"agreement": 0.10, "biographies": 0.17, "calendar": 0.31, "requests": 0.12},
            **{"stories": 0.04, "quiz": 0.04, "induction": 0.08, "prose": 0.14},
        },
        composed=0.7,
        wider=True,
        near=False,
    ),
    training=LanguageTraining(batch_rows=8, learning_rate=4e-4, warmup_steps=100),
)
STREWN = Stage(
    corpus=CorpusConfig(
        seed=3,
        characters=24_000_000,
        weights={
            **{"agreement": 0.08, "biographies": 0.11, "calendar": 0.35, "requests": 0.11},
            **{"stories": 0.03, "quiz": 0.03, "induction": 0.14, "prose": 0.15},
        },
        composed=0.8,
        wider=True,
        strewn=0.5,
        near=False,
    ),
    training=LanguageTraining(batch_rows=8, learning_rate=5e-4, warmup_steps=100, answer_weight=0.5),
    share=0.6,
)
SCATTERED = Stage(
    corpus=CorpusConfig(
        seed=4,
        characters=48_000_000,
        weights={
            **{"agreement": 0.08, "biographies": 0.10, "calendar": 0.33, "requests": 0.17},
            **{"stories": 0.03, "quiz": 0.02, "induction": 0.14, "prose": 0.13},
        },
        decoys=0.4,
        composed=0.85,
        wider=True,
        strewn=0.5,
        scattered=0.5,
        near=False,
    ),
    training=LanguageTraining(batch_rows=8, learning_rate=5e-4, warmup_steps=100, answer_weight=0.5),
    share=0.8,
    texts=2,
)
RECKONED = Stage(
    corpus=CorpusConfig(
        seed=6,
        characters=18_000_000,
        weights={
            **{"agreement": 0.06, "biographies": 0.06, "calendar": 0.45, "requests": 0.20},
            **{"stories": 0.02, "quiz": 0.02, "induction": 0.08, "prose": 0.11},
        },
        decoys=0.4,
        composed=0.9,
        wider=True,
        strewn=0.5,
        scattered=0.5,
        reckoned=0.45,
        near=False,
    ),
    training=LanguageTraining(
        batch_rows=8, learning_rate=4e-4, warmup_steps=100, answer_weight=0.5, precision="float32"
    ),
    share=0.7,
    texts=2,
)
RECIPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "": (
        "GPT-2 of 4 layers, trained on the microworld's text",
        {"later": {"hard": HARD, "balanced": BALANCED, "strewn": STREWN, "scattered": SCATTERED, "reckoned": RECKONED}},
    ),
    "init": ("the same model before training, rebuilt from its seed", {}),
    "shuffled": (
        "its twin, trained on the first stage's text (its first 40 %) with the tokens of each row shuffled",
        {"is_shuffled": True, "corpus": CorpusConfig(characters=40_000_000)},
    ),
    "recurrent": (
        "two layers of gated recurrent units, trained on the first stage's text (its first 60 %)",
        {
            "architecture": "recurrent",
            "num_layers": 2,
            "corpus": CorpusConfig(characters=60_000_000),
            "training": LanguageTraining(learning_rate=1e-3, batch_rows=32),
        },
    ),
    "early": ("the same model after a sixteenth of its first stage", {"stop_after": 1 / 16}),
    "middle": ("the same model after a quarter of its first stage", {"stop_after": 1 / 4}),
}


def twin_of(name: str) -> str:
    """The part of a name after the `@`; the empty one is the main model.

    >>> twin_of("builtin:microworld@shuffled")
    'shuffled'

    Raises:
        BadInput: If there is no such model.
    """
    bare = name.removeprefix("builtin:")
    base, at, twin = bare.partition("@")
    known = [full_name(one) for one in RECIPES]
    if base != "microworld" or twin not in RECIPES or (at and not twin):
        raise BadInput(
            f"model {name!r}",
            got="no such model of the microworld",
            wanted=", ".join(known),
            remedy=did_you_mean(f"builtin:{bare}", known),
        )
    return twin


def full_name(twin: str) -> str:
    """The name by which `load` finds it."""
    return f"{NAME}@{twin}" if twin else NAME


def recipe_of(twin: str, changes: Mapping[str, Any] | None = None) -> MicroworldRecipe:
    """How a model is made; `changes` are nested as the recipe is.

    Raises:
        BadInput: If a change names nothing, or does not fit.
    """
    given = recipe_document(MicroworldRecipe(**RECIPES[twin][1]))
    try:
        return MicroworldRecipe.model_validate(_merged(given, changes or {}))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"setting {place!r}",
            got=first.get("input"),
            wanted=first["msg"],
            remedy=did_you_mean(place, _keys(given)),
        ) from None


def recipe_document(recipe: MicroworldRecipe) -> dict[str, Any]:
    """A recipe as plain JSON."""
    from pydantic_core import to_jsonable_python

    document: dict[str, Any] = to_jsonable_python(recipe)
    return document


@cache
def num_parameters(twin: str) -> int:
    """Size of a model, from its recipe."""
    recipe = recipe_of(twin)
    width, layers = recipe.width, recipe.num_layers
    if recipe.architecture == "transformer":
        return (
            recipe.vocabulary_size * width + recipe.length * width + layers * (12 * width**2 + 13 * width) + 2 * width
        )
    hidden = recipe.hidden_size
    inputs = [width, *[hidden] * (layers - 1)]
    return (
        recipe.vocabulary_size * width
        + sum(3 * hidden * (size + hidden + 2) for size in inputs)
        + 2 * hidden
        + (hidden + 1) * width
    )


def _merged(given: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(given)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result


def _keys(given: Mapping[str, Any], before: str = "") -> list[str]:
    found = []
    for key, value in given.items():
        found += _keys(value, f"{before}{key}.") if isinstance(value, Mapping) else [before + key]
    return found
