"""The house's recurrent model, advanced by hand from the states that come before the edited position."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.sweep_batch import Prompts, Unavailable
from tremorscope.instruments.activations.sweep_routes import Back, Head, Late, with_weights_of
from tremorscope.instruments.network import Network
from tremorscope.instruments.recurrent import GatedLayer, RecurrentLanguageModel
from tremorscope.instruments.task import Batch


@final
class RecurrentReplay:
    """Level 2 of a recurrent network: the prefix of a prompt is a state, which every point copies and advances.

    Layers below the edit are not computed at all; those from the edit on start from their clean state before the edited
    position, and take as many steps as there are positions up to the read-out.

    Raises:
        Unavailable: If the module is another, or the site or the read-out lies beside the layers.
    """

    level = 2

    def __init__(self, network: Network, prompts: Prompts, place: Place, readout: Place | None) -> None:
        module = network.module
        if not isinstance(module, RecurrentLanguageModel):
            raise Unavailable(f"{type(module).__name__} is not the house's recurrent model")
        if network.edits:
            raise Unavailable("the view has edits of activations of its own")
        self.module, num_layers = module, len(module.layers)
        self.first = _first_layer(place, num_layers)
        self.late_is = {("norm", "out.0"): "norm", (f"layers.{num_layers - 1}", "out.0"): "state"}.get(
            ("", "") if readout is None else (readout.module, readout.port), "" if readout is None else "none"
        )
        if self.late_is == "none":
            raise Unavailable("the read-out is neither the norm nor the last layer's state")
        self.name = f"copied states of layers {self.first} to {num_layers - 1}"
        self.head: Head | None = None  # between the norm and the logits there is a second linear layer
        self.run = prompts.shared.once("weights", lambda: with_weights_of(network))
        sites = ["acts:embedding:out.0", *(f"acts:layers.{index}:out.0" for index in range(num_layers))]
        with torch.no_grad():
            found = prompts.shared.once(
                "streams", lambda: network.record_all(sites, Batch((prompts.tokens,), {}, None))
            )
        # The stream that enters the first replayed layer, and each replayed layer's state before the edit.
        streams = [found[site] for site in sites]
        self.entering, self.states, self.prompts = streams[self.first], streams[self.first + 1 :], prompts
        self.row_bytes = 12 * (module.config.vocab_size + 8 * module.config.hidden_size * prompts.num_recomputed)

    def late(
        self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"], *, logits: bool = True, back: Back = (0,)
    ) -> Late:
        """Late activations and logits of points."""
        late: Late = self.run(self._late, points, rows, back)
        return late

    def _late(self, points: Tensor, rows: Tensor, back: Back) -> Late:
        module, edited = self.module, self.prompts.edited[rows]
        x = torch.cat([points[:, None], self.entering[rows[:, None], self.prompts.window[rows][:, 1:]]], dim=1)
        for states, layer in zip(self.states, list(module.layers)[self.first :], strict=True):
            assert isinstance(layer, GatedLayer)
            weights: list[Tensor] = [layer.input_weight, layer.hidden_weight, layer.input_bias, layer.hidden_bias]
            state = states[rows, (edited - 1).clamp_min(0)] * (edited > 0)[:, None]
            x = torch.gru(x, state[None], weights, True, 1, 0.0, False, False, True)[0]
        state = torch.cat([x[:, -1 - one] for one in back])
        normed = module.norm(state)
        logits = torch.nn.functional.linear(module.readout(normed), module.embedding.weight)
        return Late({"norm": normed, "state": state, "": logits}[self.late_is], logits)


def _first_layer(place: Place, num_layers: int) -> int:
    """The layer whose input is replaced; as many as there are layers for the last one's output."""
    name, _, number = place.module.partition(".")
    if place.columns is None:
        if place.module == "embedding" and place.port == "out.0":
            return 0
        if name == "layers" and number.isdigit() and place.port in ("in.0", "out.0"):
            return int(number) + (place.port == "out.0")
        if place.module == "norm" and place.port == "in.0":
            return num_layers
    raise Unavailable(f"{place} is not on the way from layer to layer")
