"""How far the weights of one network are from another's of the same shape, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.figures import PALETTE, Axis, Figure, numbers
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.network import Network

_SHOWN = 24  # tensors in the figure


@final
@dataclass(frozen=True, kw_only=True)
class TensorChange:
    """One tensor: norm of the change, absolute and relative to the first network's, and how it is spread.

    `effective_rank` is the exponential of the entropy of the squared singular values' shares, of a matrix; `by_chance`
    that of a normal random matrix of the shape. `stiff_share` is the share of the squared change that lies in the stiff
    subspace, `stiff_by_chance` that of a random change of this tensor.
    """

    name: str
    size: int
    norm: float
    relative: float
    effective_rank: float | None
    by_chance: float | None
    stiff_share: float | None = None
    stiff_by_chance: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class WeightChange:
    """Every tensor, the one that moved most (relative to its norm) first."""

    tensors: tuple[TensorChange, ...]
    num_stiff: int  # dimensions of the stiff subspace; 0: not looked at

    @property
    def is_zero(self) -> bool:
        """Whether nothing moved."""
        return not any(one.norm for one in self.tensors)

    def sentence(self) -> str:
        """What a reader wants first."""
        if self.is_zero:
            return "The weights are the same, bit for bit."
        first = self.tensors[0]
        moved = sum(one.norm > 0 for one in self.tensors)
        return (
            f"{moved} of {len(self.tensors)} tensors differ; relative to its norm {first.name} moved most, by "
            f"{first.relative:.3g}."
        )

    def tables(self) -> list[Table]:
        """One row for each tensor."""
        rows = [
            {
                "tensor": one.name,
                "entries": one.size,
                "norm of the change": one.norm,
                "relative": one.relative,
                "effective rank": one.effective_rank,
                "of a random change": one.by_chance,
            }
            | (
                {"share in the stiff subspace": one.stiff_share, "by chance": one.stiff_by_chance}
                if self.num_stiff
                else {}
            )
            for one in self.tensors
        ]
        stiff = f" The stiff subspace: {self.num_stiff} leading directions of the first network's Hessian."
        return [
            Table.of_rows(
                rows,
                name="weight_change",
                title="What moved in the weights, tensor by tensor",
                caption="Norm of the difference of each tensor, relative to the first network's; the effective rank "
                "says in how many directions a matrix moved." + (stiff if self.num_stiff else ""),
            )
        ]

    def figures(self) -> list[Figure]:
        """Relative change of the tensors that moved most."""
        shown = [one for one in self.tensors if one.relative > 0][:_SHOWN]
        if not shown:
            return []
        trace = {
            "type": "bar",
            "orientation": "h",
            "x": numbers([one.relative for one in shown]),
            "y": _short([one.name for one in shown]),
            "name": "change",
            "marker": {"color": PALETTE[0]},
        }
        return [
            Figure(
                name="weight_change",
                title="What moved in the weights",
                caption="Norm of each tensor's change relative to its norm in the first network, the largest first: at "
                f"1 it has moved as far as it is long. {_of_all(len(shown), len(self.tensors))}",
                traces=[trace],
                x=Axis(title="norm of the change / norm in the first network"),
                y=Axis(title=""),
                layout={
                    "yaxis": {"autorange": "reversed", "tickfont": {"size": 11}, "showgrid": False},
                    "height": 110 + 21 * len(shown),
                },
            )
        ]


def _short(names: Sequence[str]) -> list[str]:
    """Names without what all of them begin with."""
    heads = {name.partition(".")[0] for name in names}
    return [name.partition(".")[2] or name for name in names] if len(heads) == 1 else list(names)


def _of_all(num_shown: int, num_tensors: int) -> str:
    return "All tensors that moved." if num_shown < _SHOWN else f"The first {num_shown} of {num_tensors} tensors."


def measure_weight_change(
    first: Network, second: Network, *, stiff: Float[Tensor, "params k"] | None = None, seed: int = 0
) -> WeightChange:
    """How far did each tensor move, and in how many directions?

    Args:
        first: One network.
        second: Another, with parameters of the same names and shapes.
        stiff: Orthonormal columns over all weights of the first: its stiffest directions.
        seed: Of the random matrices that ranks are compared with.

    Cost: one eigendecomposition of a square matrix as wide as the shorter side of each tensor, and a random one's.

    Raises:
        BadInput: If the networks differ in shape; the message names the first difference.
    """
    check_same_shape(first, second)
    pieces = {} if stiff is None else _by_tensor(first, stiff)
    found = []
    for name, before in first.params.items():
        change = (second.params[name].to(before.device) - before).detach().double()
        norm = float(change.norm())
        scale = float(before.double().norm())
        matrix = change.reshape(len(change), -1) if change.ndim >= 2 else None
        random = None
        if matrix is not None and norm:
            draws = generator(seed, "random change", name)
            random = torch.randn(matrix.shape, generator=draws, dtype=torch.float64).to(matrix)
        basis = pieces.get(name)
        found.append(
            TensorChange(
                name=name,
                size=change.numel(),
                norm=norm,
                relative=norm / scale if scale else (0.0 if norm == 0 else math.inf),
                effective_rank=None if random is None or matrix is None else _effective_rank(matrix),
                by_chance=None if random is None else _effective_rank(random),
                stiff_share=None if basis is None else _share(basis, change.reshape(-1), norm),
                stiff_by_chance=None if basis is None else float(basis.square().sum()) / change.numel(),
            )
        )
    found.sort(key=lambda one: -one.relative)
    return WeightChange(tensors=tuple(found), num_stiff=0 if stiff is None else stiff.shape[1])


def check_same_shape(first: Network, second: Network) -> None:
    """Refuse two networks whose parameters differ in name or shape.

    Raises:
        BadInput: Naming the first difference.
    """
    mine, theirs = first.params, second.params
    for name in dict.fromkeys([*mine, *theirs]):
        shapes = [tuple(side[name].shape) if name in side else None for side in (mine, theirs)]
        if shapes[0] != shapes[1]:
            told = [f"{shape}" if shape is not None else "nothing of that name" for shape in shapes]
            raise BadInput(
                f"networks to compare, at {name}",
                got=f"{told[0]} in {first.name!r} and {told[1]} in {second.name!r}",
                wanted="the same parameters in both",
                remedy="Compare a network with its fine-tune, or two checkpoints of one training.",
            )


def _by_tensor(network: Network, stiff: Tensor) -> Mapping[str, Tensor]:
    return dict(zip(network.layout.names, torch.split(stiff.double(), list(network.layout.sizes)), strict=True))


def _share(basis: Tensor, change: Tensor, norm: float) -> float:
    return 0.0 if norm == 0 else float((basis.T @ change).square().sum()) / norm**2


def _effective_rank(matrix: Float[Tensor, "rows columns"]) -> float:
    """`exp(-sum p log p)` with p the shares of the squared singular values (Roy and Vetterli 2007, with squares)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares = torch.linalg.eigvalsh(wide @ wide.T).clamp_min(0.0)
    shares = squares / squares.sum()
    return float(torch.special.entr(shares).sum().exp())
