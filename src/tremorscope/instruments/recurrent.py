"""A recurrent language model: gated recurrent units between an embedding and the same embedding read out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput

MODEL_TYPE = "tremorscope-gru"


@final
@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Sizes of a `RecurrentLanguageModel`."""

    vocab_size: int
    width: int
    hidden_size: int
    num_layers: int

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` holds it."""
        return {"model_type": MODEL_TYPE, "architectures": ["RecurrentLanguageModel"], **asdict(self)}


@final
@dataclass(frozen=True)
class RecurrentOutput:
    """Logits of the next token, and the states: the embeddings, then those of each layer.

    `cache_params` holds each layer's own state after the last token: all that it remembers of the text.
    """

    logits: Float[Tensor, "texts length vocabulary"]
    hidden_states: tuple[Float[Tensor, "texts length _"], ...]
    cache_params: tuple[Float[Tensor, "texts _"], ...]


@final
class RecurrentLanguageModel(nn.Module):
    """Layers of gated recurrent units (arXiv:1406.1078, in PyTorch's form), embedding and read-out tied.

    Texts of any length; the cost of a token does not depend on how many came before. Padding has to be on the right,
    where it changes no state that is looked at.

    >>> model = RecurrentLanguageModel(RecurrentConfig(vocab_size=10, width=4, hidden_size=6, num_layers=2))
    >>> tuple(model(torch.tensor([[1, 2, 3]])).logits.shape)
    (1, 3, 10)

    Raises:
        BadInput: If a size is less than 1.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        for name, size in asdict(config).items():
            if size < 1:
                raise BadInput(f"{name} of a recurrent model", got=size, wanted="at least 1")
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        sizes = [config.width, *[config.hidden_size] * (config.num_layers - 1)]
        self.layers = nn.ModuleList(GatedLayer(size, config.hidden_size) for size in sizes)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.readout = nn.Linear(config.hidden_size, config.width)

    def forward(
        self,
        input_ids: Int[Tensor, "texts length"],
        attention_mask: Int[Tensor, "texts length"] | None = None,
        output_hidden_states: bool = True,
        cache_params: tuple[Float[Tensor, "texts _"], ...] | None = None,
    ) -> RecurrentOutput:
        """Logits after every token. The mask is taken for the sake of others' calls, and does nothing.

        Args:
            input_ids: Tokens.
            attention_mask: Ignored.
            output_hidden_states: Ignored: they are always there.
            cache_params: What an output remembers of the texts before these tokens.
        """
        states, last = [self.embedding(input_ids)], list[Tensor]()
        for place, layer in enumerate(self.layers):
            states.append(layer(states[-1], None if cache_params is None else cache_params[place], last))
        logits = nn.functional.linear(self.readout(self.norm(states[-1])), self.embedding.weight)
        return RecurrentOutput(logits, tuple(states), tuple(last))


@final
class GatedLayer(nn.Module):
    """One layer of gated recurrent units, with its weights where `functional_call` finds them.

    `nn.GRU` keeps a list of its weights beside its parameters, which a functional call does not replace.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input_weight = nn.Parameter(torch.empty(3 * hidden, inputs))
        self.hidden_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.input_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(3 * hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights as `nn.GRU` draws them, biases zero: so the layer has an untrained twin."""
        bound = self.hidden_weight.shape[1] ** -0.5
        for weight in (self.input_weight, self.hidden_weight):
            nn.init.uniform_(weight, -bound, bound)
        for bias in (self.input_bias, self.hidden_bias):
            nn.init.zeros_(bias)

    def forward(
        self,
        inputs: Float[Tensor, "texts length inputs"],
        start: Float[Tensor, "texts hidden"] | None = None,
        last: list[Tensor] | None = None,
    ) -> Float[Tensor, "texts length hidden"]:
        """The state after each token, from `start` on.

        The last one is put into the list `last` as well: what is returned may be edited on its way to the next layer,
        what the layer itself remembers is not.
        """
        before = inputs.new_zeros(len(inputs), self.hidden_weight.shape[1]) if start is None else start
        weights: list[Tensor] = [self.input_weight, self.hidden_weight, self.input_bias, self.hidden_bias]
        states, end = torch.gru(inputs, before[None], weights, True, 1, 0.0, False, False, True)
        if last is not None:
            last.append(end[0])
        return states
