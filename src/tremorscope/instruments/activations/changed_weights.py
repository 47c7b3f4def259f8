"""Weights that edits are being written into: float64 copies of those that change, and room for what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.folding import AffineMap
from tremorscope.instruments.activations.roomier_copy import is_tied_to_the_head, room_for, with_room

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network


@final
class ChangedWeights:
    """What becomes of the weights of one view; nothing is changed before `view` makes another one."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.values: dict[str, Tensor] = {}  # by the parameter's name, in its own orientation
        self.unties = self.maps_tables = False

    def weight(self, path: str) -> Tensor:
        """Weight [out, in] of a linear layer."""
        found = self._value(f"{path}.weight")
        return found if _is_upright(self._part(path)) else found.mT

    def bias(self, path: str) -> Tensor:
        """Bias of a linear layer; zeros where there is none."""
        name = f"{path}.bias"
        if name in self.values or name in self.network.params:
            return self._value(name)
        weight = self.weight(path)
        return weight.new_zeros(len(weight))

    def put(self, path: str, weight: Tensor, bias: Tensor) -> None:
        """Other weights for a linear layer."""
        self.values[f"{path}.weight"] = weight if _is_upright(self._part(path)) else weight.mT
        if f"{path}.bias" in self.network.params or bool(bias.any()):
            self.values[f"{path}.bias"] = bias

    def shift_norm(self, path: str, shift: Tensor) -> None:
        """Add to the bias of a normalisation."""
        self.values[f"{path}.bias"] = self._value(f"{path}.bias") + shift

    def map_table(self, path: str, made: AffineMap, *, keeps_shift: bool = True) -> None:
        """Put every row of an embedding through a map; without its shift where that is not asked for.

        Raises:
            BadInput: If the rows serve elsewhere too, and it is not the output layer, from which they can be untied.
        """
        self.maps_tables = True
        names = shared_names(self.network.module, f"{path}.weight")
        if len(names) > 1:
            if not is_tied_to_the_head(self.network.module, path):
                raise BadInput(
                    f"edits to bake into {path}",
                    got=f"weights that are shared ({', '.join(names)})",
                    wanted="an embedding with weights of its own, or one that the configuration ties to the output",
                )
            self.unties = True
        rows = self._value(f"{path}.weight")
        left, right, shift = (one.to(rows) for one in made[:3])
        moved = rows + (rows @ right) @ left.mT if made.keeps else rows.new_zeros(rows.shape)
        self.values[f"{path}.weight"] = moved + shift if keeps_shift else moved

    def view(self) -> Network:
        """The view with the new weights; of a copy of the module with more room, where there was none for them.

        Raises:
            BadInput: If a layer would need a bias that its family's configuration does not know.
        """
        network, lacking = self.network, self._lacking()
        base = with_room(network, lacking, unties=self.unties) if lacking or self.unties else network
        params = dict(base.params)
        for name, value in self.values.items():
            if name in params:
                params[name] = value.to(params[name].dtype).contiguous()
        return base._view(params, network.name)

    def check_room(self) -> None:
        """Refuse what `view` would refuse, without making one.

        Raises:
            BadInput: As `view`.
        """
        if lacking := self._lacking():
            room_for(self.network, lacking)

    def _lacking(self) -> list[str]:
        params = self.network.params
        return [name for name, value in self.values.items() if name not in params and bool(value.any())]

    def _value(self, name: str) -> Tensor:
        return self.values[name] if name in self.values else self.network.params[name].double()

    def _part(self, path: str) -> nn.Module:
        return self.network.module.get_submodule(path)


def is_linear(module: Any) -> bool:
    """Also transformers' Conv1D, a linear layer with its weight the other way round."""
    is_turned = type(module).__name__ == "Conv1D" and hasattr(module, "nf")
    return is_turned or isinstance(module, nn.Linear)


def shared_names(module: nn.Module, name: str) -> list[str]:
    """All names of one parameter."""
    everywhere = dict(module.named_parameters(remove_duplicate=False))
    return [other for other, one in everywhere.items() if one is everywhere[name]]


def _is_upright(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear)
