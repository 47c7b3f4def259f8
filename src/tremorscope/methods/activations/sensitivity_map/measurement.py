"""The sensitivity map of one prompt: every cell, what chance would give there, and which cells stand out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.results import Table
from tremorscope.foundations.statistics import holm
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.sensitivity_map.cells import CellResponses, block_inputs, respond_cells
from tremorscope.methods.activations.sensitivity_map.figures import NOTHING_MARKED, cells_figure, map_figure, quoted
from tremorscope.methods.activations.sensitivity_map.marks import Marks, mark_cells
from tremorscope.methods.activations.sensitivity_map.references import Reference, read_references

# A tenth of the way to another real activation: small enough that KL still grows with the square of the size nearly
# everywhere, so that the map shows what the pullback metric is about, and large enough to be far above rounding.
FRACTION = 0.1
NUM_DIRECTIONS = 32

Twin = Callable[[], Network]
Say = Callable[[str], Any]


@final
@dataclass(frozen=True, kw_only=True)
class SensitivityMap:
    """Every block input and token of one prompt, disturbed.

    `own` holds the network's responses to matched and to isotropic directions, `twins` those of untrained networks of
    the same shape to directions that are matched to *their* activations (empty where no twin could be built).
    """

    network: str
    prompt: str
    tokens: tuple[str, ...]
    fraction: float
    source: str  # of the reference texts
    references: dict[str, Reference]
    own: CellResponses
    twins: tuple[CellResponses, ...]
    marks: Marks
    flags: tuple[str, ...]

    @property
    def num_layers(self) -> int:
        """Block inputs."""
        return len(self.own.sites)

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.tokens)

    def estimate(self, layer: int, token: int, *, read: str = "last", kind: str = "matched") -> Estimate:
        """Mean KL of a cell over directions, with its t interval, cut off at 0."""
        values = getattr(self.own, read)[kind][layer, token]
        found = Estimate.mean(values.numpy())
        return replace(found, low=max(0.0, found.low), method=f"{found.method}, cut off at 0")

    def twin_means(self, read: str = "last") -> Float[Tensor, "twins layers tokens"]:
        """Mean KL of each twin, cell by cell."""
        if not self.twins:
            return torch.zeros(0, self.num_layers, self.num_tokens, dtype=torch.float64)
        return torch.stack([getattr(twin, read)["matched"].mean(dim=-1) for twin in self.twins])

    @property
    def above_twins(self) -> Bool[Tensor, "layers tokens"]:
        """Cells above the untrained twins, whatever isotropic directions do; none without twins."""
        p_values = self.marks.p_twins
        if p_values is None:
            return torch.zeros(self.num_layers, self.num_tokens, dtype=torch.bool)
        return torch.tensor(holm(p_values.flatten().tolist())).reshape(p_values.shape) < self.marks.level

    def most_sensitive(self, count: int = 3) -> list[tuple[int, int]]:
        """(layer, token) of the cells with the largest KL at the last token, largest first."""
        means = self.own.last["matched"].mean(dim=-1)
        order = means.flatten().argsort(descending=True, stable=True)[:count]
        return [divmod(int(index), self.num_tokens) for index in order]

    def label(self, layer: int, token: int) -> str:
        """A cell in words: `block 2, token 5 '␣the'`."""
        return f"block {layer}, token {token} {quoted(self.tokens[token])}"

    def sentence(self) -> str:
        """What a reader wants first."""
        layer, token = self.most_sensitive(1)[0]
        num_marked, num_cells = int(self.marks.marked.sum()), self.marks.marked.numel()
        first = (
            f"A disturbance of {self.fraction:g} of the distance between two real activations moves the prediction "
            f"after the prompt most at {self.label(layer, token)}: KL {self.estimate(layer, token)} nats; isotropic "
            f"directions of equal norm give {self.estimate(layer, token, kind='isotropic')}"
        )
        means = self.twin_means()[:, layer, token].tolist()
        if means:
            first += f", untrained twins {min(means):.3g} to {max(means):.3g}"
        counted = f"{num_marked} of {num_cells} cells lie above {self.marks.against}"
        if self.marks.p_twins is not None:
            counted += f", {int(self.above_twins.sum())} above the twins"
        meaning = "" if num_marked else f" Nothing is marked: {NOTHING_MARKED}."
        return f"{first}. {counted} (Holm, {self.marks.level:g}).{meaning}"

    def tables(self) -> list[Table]:
        """One row for each cell."""
        means = self.twin_means()
        rows = [
            {
                "block input": layer,
                "token": token,
                "text": self.tokens[token],
                "KL at the last token": self.estimate(layer, token),
                "isotropic, equal norm": self.estimate(layer, token, kind="isotropic"),
                "twins, lowest": float(means[:, layer, token].min()) if len(means) else None,
                "twins, highest": float(means[:, layer, token].max()) if len(means) else None,
                "KL at the token's own next word": self.estimate(layer, token, read="own"),
                "adjusted p": float(self.marks.adjusted[layer, token]),
                "marked": bool(self.marks.marked[layer, token]),
                "size of the disturbance": float(self.own.steps[layer]),
                "norm of the activation": float(self.own.clean[layer, token]),
            }
            for layer in range(self.num_layers)
            for token in range(self.num_tokens)
        ]
        return [
            Table.of_rows(
                rows,
                name="sensitivity_map",
                title="Every cell of the map beside its nulls",
                caption=f"KL in nats between the clean prediction and the one after adding a random direction of "
                f"{self.fraction:g} of the typical distance between two real activations ({self.source}), drawn with "
                f"their covariance; mean over {self.own.last['matched'].shape[-1]} directions with its interval. A "
                f"cell is marked where it lies above {self.marks.against}, Holm's correction over all cells.",
            )
        ]

    def figures(self) -> list[Figure]:
        """The heat map, and cells beside their nulls."""
        return [map_figure(self), cells_figure(self)]


def measure_sensitivity_map(
    network: Network,
    prompt: str,
    texts: Sequence[str],
    *,
    source: str,
    twins: Sequence[Twin] = (),
    fraction: float = FRACTION,
    num_directions: int = NUM_DIRECTIONS,
    seed: int = 0,
    say: Say | None = None,
) -> SensitivityMap:
    """Where in this forward pass does a small disturbance matter, compared with what chance would give?

    For every block input and token, `num_directions` random directions with the covariance of real activations there
    are added, each of length `fraction` of the typical distance between two of them. What the next-word prediction
    does is compared with isotropic directions of equal norm, and with untrained twins that are disturbed the same way,
    each to the measure of its own activations.

    Args:
        network: A causal language model with a tokenizer.
        prompt: Text of at least two tokens, no longer than the context.
        texts: Ordinary texts, for the covariance.
        source: What these texts are, for the report.
        twins: Functions that make untrained networks of the same shape, one at a time; at least two, or none.
        fraction: See above.
        num_directions: Of each kind, in each cell; at least four.
        seed: Of all directions.
        say: Told what is being done.

    Cost: `(2 + twins) * layers * tokens * num_directions` disturbed predictions, by cached sweeps.

    Raises:
        BadInput: If the prompt has one token or too many, there is no tokenizer, no logits or no block input, or an
            argument is out of range.
    """
    if not 0 < fraction <= 2:
        raise BadInput("fraction of the distance", got=fraction, wanted="above 0, at most 2")
    if num_directions < 4:
        raise BadInput("num_directions", got=num_directions, wanted="at least 4")
    batch = encode(network, [prompt])
    check_logits(network, batch)
    sites = block_inputs(network, batch)
    if say:
        say(f"Disturbing {len(sites)} block inputs at {batch.kwargs['input_ids'].shape[1]} tokens")
    references = read_references(network, texts, sites)
    options: dict[str, Any] = {"fraction": fraction, "num_directions": num_directions, "seed": seed}
    own = respond_cells(network, batch, references, kinds=("matched", "isotropic"), **options)
    found = []
    for place, make in enumerate(twins):
        if say:
            say(f"The same in untrained twin {place + 1} of {len(twins)}")
        twin = make()
        found.append(respond_cells(twin, batch, read_references(twin, texts, sites), **options))
    marks = mark_cells(
        own.last["matched"],
        own.last["isotropic"],
        torch.stack([one.last["matched"] for one in found]) if found else None,
        noise=own.noise,
    )
    flags = [*own.flags, *(flag for reference in references.values() for flag in reference.flags)]
    flags += [f"untrained twin: {flag}" for one in found for flag in one.flags]
    return SensitivityMap(
        network=network.name,
        prompt=prompt,
        tokens=token_texts(network, batch),
        fraction=fraction,
        source=source,
        references=references,
        own=own,
        twins=tuple(found),
        marks=marks,
        flags=tuple(dict.fromkeys(flags)),
    )


def token_texts(network: Network, batch: Batch) -> tuple[str, ...]:
    """Each token of a prompt as text."""
    return tuple(network.tokenizer.decode([int(token)]) for token in batch.kwargs["input_ids"][0])


def check_logits(network: Network, batch: Batch) -> None:
    """Refuse a network that predicts no next word.

    Raises:
        BadInput: If its output is no logits over the vocabulary, one row for each token.
    """
    length = batch.kwargs["input_ids"].shape[1]
    with torch.no_grad():
        output = network.output(network.params, batch)
    logits = getattr(output, "logits", output)
    if isinstance(logits, Tensor) and logits.ndim == 3 and logits.shape[1] == length and logits.shape[2] > 1:
        num_tokens = getattr(network.tokenizer, "vocab_size", None)
        if output is not logits or num_tokens is None or logits.shape[2] >= num_tokens:
            return
    shape = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
    raise BadInput(
        f"predictions of {network.name!r}",
        got=f"no logits over the vocabulary, but {shape}",
        wanted="a language model, whose output holds logits for each token",
        remedy="Load it with its language-model head (hf:NAME reads the class that config.json names).",
    )
