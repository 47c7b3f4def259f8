"""How far outputs move when a network is disturbed by more and more."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.instruments.divergence import kl_from
from tremorscope.instruments.edit import PlacedEdit
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import saved_bytes
from tremorscope.instruments.recipe import check_recipe, run_recipe
from tremorscope.instruments.task import Batch
from tremorscope.instruments.trainer import Trainer

Measure = Literal["kl", "l2", "loss"]
MEASURES: tuple[Measure, ...] = ("kl", "l2", "loss")
CHUNK_BYTES = 256 * 2**20  # memory that one vmapped chunk of sizes may take, by estimate


@final
@dataclass(frozen=True, kw_only=True)
class Response:
    """Response of every example at every size, in float64.

    Summaries read the part of the curve with sizes >= 0. `flags` names what did not go as planned.
    """

    sizes: Float[Tensor, " sizes"]
    values: Float[Tensor, "sizes batch"]
    measure: str
    place: str
    flags: tuple[str, ...] = ()

    def mean(self, *, level: float = LEVEL) -> list[Estimate]:
        """Mean over examples at each size, with Student's t interval over examples."""
        return [Estimate.mean(row, level=level) for row in self.values.numpy()]

    def threshold(self, reach: float, *, level: float = LEVEL) -> Estimate | None:
        """Smallest size at which the mean response reaches `reach`; None if it never does.

        Between two sizes the curve is a straight line on log-log axes (a plain straight line where a value
        or the size is not positive). The interval comes from reading both edges of the pointwise band of
        the mean; its upper end is infinite when the lower edge never gets there.
        """
        sizes, means = self._curve(level)
        value = _crossing(sizes, [mean.value for mean in means], reach)
        if value is None:
            return None
        if len(self.values[0]) == 1:
            return Estimate.one_seed(value)
        low, high = (_crossing(sizes, [getattr(mean, end) for mean in means], reach) for end in ("high", "low"))
        return Estimate(
            value=value,
            low=value if low is None else low,
            high=math.inf if high is None else high,
            level=level,
            n=self.values.shape[1],
            method="t band",
        )

    def plateau_width(self, share: float = 0.5, *, level: float = LEVEL) -> Estimate | None:
        """Size at which the mean reaches a share of its own largest value; None if it never moves.

        Unlike `threshold` it asks for no absolute level, so networks with outputs of different scales can
        be compared. A quadratic response reaches half its end at 0.71 of the way, a plateau later.

        Raises:
            BadInput: If the share is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise BadInput("share of the largest response", got=share, wanted="a number between 0 and 1")
        largest = max(mean.value for mean in self._curve(level)[1])
        return self.threshold(share * largest, level=level) if largest > 0 else None

    def slope(self, *, num_sizes: int = 3, level: float = LEVEL) -> Estimate:
        """Log-log slope of the mean at the smallest positive sizes; 2 for KL in its quadratic regime.

        Least squares through the first `num_sizes` of them; t interval over the examples' influences on the fit.

        Raises:
            BadInput: If fewer than two positive sizes have a positive mean response.
        """
        rows = [row for row, size in enumerate(self.sizes.tolist()) if size > 0]
        rows = [row for row in rows if float(self.values[row].mean()) > 0][:num_sizes]
        if len(rows) < 2:
            raise BadInput(
                "slope of a response", got=f"{len(rows)} sizes with a positive response", wanted="at least 2"
            )
        offsets, values = self.sizes[rows].log(), self.values[rows]
        offsets = (offsets - offsets.mean()) / (offsets - offsets.mean()).square().sum()
        means = values.mean(dim=1, keepdim=True)
        slope = float(offsets @ means[:, 0].log())
        # Each example's influence on the slope: their mean is 0, so the estimate is centred on the fit.
        return Estimate.mean((slope + offsets @ (values / means - 1)).numpy(), level=level)

    def _curve(self, level: float) -> tuple[list[float], list[Estimate]]:
        pairs = [(s, m) for s, m in zip(self.sizes.tolist(), self.mean(level=level), strict=True) if s >= 0]
        if not pairs:
            raise BadInput("curve of a response", got="negative sizes only", wanted="a size >= 0")
        return [size for size, _ in pairs], [mean for _, mean in pairs]


def respond(
    network: Network,
    batch: Batch,
    placed: PlacedEdit,
    *,
    sizes: Sequence[float] | Tensor,
    measure: Measure = "kl",
    chunk: int | None = None,
) -> Response:
    """How far does the output of each example move, clean against edited, along a size axis?

    | measure | of one example |
    |---|---|
    | `"kl"` | `KL(clean || edited)` of the softmaxed outputs in nats, mean over positions if there are any |
    | `"l2"` | Euclidean norm of the difference of the outputs |
    | `"loss"` | the task's loss of that example alone, edited minus clean |

    Differences are formed in float64 from outputs in the network's dtype. Edits of weights, activations and inputs
    are vmapped over sizes; a module that cannot be vmapped is run one size at a time and flagged. At
    `train.init` the recipe is run once for every size, and once for the clean end.

    Args:
        network: The network; at `train.init` its recipe is used.
        batch: Examples to look at.
        placed: An edit with a size, at `weights:GLOB`, `acts:NAME`, `input` or `train.init`.
        sizes: A list or vector, strictly increasing; each replaces the edit's own size. Negative ones are allowed.
        measure: See above.
        chunk: Sizes at a time. None: as many as fit 256 MiB, by the tensors a forward pass saves.

    Cost: `len(sizes) + 1` forward passes (and two to size the chunk); `train.init`: as many trainings too.

    Raises:
        BadInput: If the edit has no size, the site or measure does not fit, or an output is not finite.
        SiteNotFound: If the site names no weights of this network.

    >>> from torch import nn
    >>> from tremorscope.instruments.edit import Add
    >>> network, batch = Network(nn.Linear(2, 1)), Batch((torch.zeros(1, 2),), {}, None)
    >>> shift = Add(torch.ones(1)).at("weights:bias")
    >>> respond(network, batch, shift, sizes=[1.0, 2.0], measure="l2").values.round(decimals=6)
    tensor([[1.],
            [2.]], dtype=torch.float64)
    """
    distances = _checked_sizes(sizes)
    if measure not in MEASURES:
        raise BadInput("measure", got=repr(measure), wanted=" or ".join(repr(name) for name in MEASURES))
    if chunk is not None and chunk < 1:
        raise BadInput("chunk", got=chunk, wanted="at least 1")
    placed.scaled(float(distances[0]))  # an edit without a size is refused before anything is computed
    with torch.no_grad():
        curve = _curve_of(network, batch, placed)
        clean = curve.clean()
        if not clean.isfinite().all():
            raise BadInput(f"output of {network.name!r}", got="entries that are not finite", wanted="finite outputs")
        compare = _comparison(network, batch, clean, measure)
        rows, flags = [], []
        for part in torch.split(distances, chunk or _affordable(network, batch, clean)):
            outputs, notes = _mapped(curve.output, curve.prepared(part))
            flags += notes
            rows += [compare(output).cpu() for output in outputs]
    values = torch.stack(rows)
    lost = ~values.isfinite().all(dim=1)
    if lost.any():
        raise BadInput(
            f"response to {placed}",
            got=f"outputs that are not finite at size {float(distances[lost][0]):.4g}",
            wanted="finite outputs",
            remedy="Use smaller sizes.",
        )
    return Response(
        sizes=distances, values=values, measure=measure, place=str(placed), flags=tuple(dict.fromkeys(flags))
    )


@final
@dataclass(frozen=True)
class _Curve:
    """The output as a function of one tensor per size, which `prepared` makes from the sizes."""

    clean: Callable[[], Tensor]
    prepared: Callable[[Tensor], Tensor]
    output: Callable[[Tensor], Tensor]


def _curve_of(network: Network, batch: Batch, placed: PlacedEdit) -> _Curve:
    theta = network.theta

    def as_numbers(sizes: Tensor) -> Tensor:
        # At least float32: a size rounded to bfloat16 would be off by up to 0.4 %.
        return sizes.to(network.device, torch.promote_types(network.dtype, torch.float32))

    def clean() -> Tensor:
        return network.apply(theta, batch)

    if placed.site.kind == "input":
        return _Curve(clean, as_numbers, lambda size: network.apply(theta, placed.scaled(size).applied_to_batch(batch)))
    if placed.site.kind == "acts":
        network.with_edits(placed)  # finds the place, before anything is mapped
        return _Curve(clean, as_numbers, lambda size: network.with_edits(placed.scaled(size)).apply(theta, batch))
    if placed.site.kind != "train.init":
        return _Curve(
            clean,
            as_numbers,
            lambda size: network.apply(placed.scaled(size).applied_to_weights(network.layout, theta), batch),
        )
    given = network.recipe
    recipe = given.bind(network) if isinstance(given, Trainer) else check_recipe(given)
    start = network.start

    def retrained(sizes: Tensor) -> Tensor:
        edited = (placed.scaled(size).applied_to_start(start) for size in sizes.tolist())
        return torch.stack([run_recipe(recipe, each) for each in edited])

    # The clean end is trained here as well: the network's own weights may come from another machine's run.
    return _Curve(
        lambda: network.apply(run_recipe(recipe, start), batch), retrained, lambda last: network.apply(last, batch)
    )


def _mapped(output: Callable[[Tensor], Tensor], prepared: Tensor) -> tuple[Tensor, list[str]]:
    try:
        with warnings.catch_warnings():
            # Fused layers are mapped one by one inside torch, which tells its own developers.
            warnings.filterwarnings("ignore", message="There is a performance drop", category=UserWarning)
            return vmap(output)(prepared), []
    except RuntimeError as error:
        # Modules that branch on data, draw random numbers or write in place cannot be vmapped. If the
        # module itself is broken, the loop meets the same error and lets it through.
        outputs = torch.stack([output(one) for one in prepared])
        return outputs, [f"one size at a time: {str(error).strip().splitlines()[0]}"]


def _comparison(network: Network, batch: Batch, clean: Tensor, measure: Measure) -> Callable[[Tensor], Tensor]:
    before = clean.double()
    if measure == "l2":
        return lambda output: (output.double() - before).reshape(len(before), -1).norm(dim=1)
    if measure == "loss":
        losses = _losses(network, batch, before)
        return lambda output: _losses(network, batch, output.double()) - losses
    if before.ndim < 2 or before.shape[-1] < 2:
        raise BadInput(
            f"measure 'kl' of {network.name!r}",
            got=f"outputs of shape {tuple(before.shape)}",
            wanted="logits of at least two classes",
            remedy="Use measure='l2'.",
        )
    return kl_from(clean)


def _losses(network: Network, batch: Batch, output: Tensor) -> Tensor:
    if network.task is None or batch.target is None:
        raise BadInput(
            f"measure 'loss' of {network.name!r}",
            got="no task or no targets",
            wanted="a loss and targets",
            remedy="Use measure='l2', or give the network a task.",
        )
    loss, target = network.task.loss, batch.target
    target = target.double() if target.is_floating_point() else target

    def alone(row: Tensor, wanted: Tensor) -> Tensor:
        return loss(row[None], wanted[None])

    try:
        return vmap(alone)(output, target)
    except RuntimeError:  # a loss that branches on data
        return torch.stack([alone(row, wanted) for row, wanted in zip(output, target, strict=True)])


def _affordable(network: Network, batch: Batch, clean: Tensor) -> int:
    """Sizes that fit the memory bound, by what autograd would keep of one forward pass."""
    with torch.enable_grad():
        kept = saved_bytes(lambda theta: network.apply(theta, batch), network.theta)
    weights = network.layout.size * network.theta.element_size()
    return max(1, CHUNK_BYTES // (kept + 2 * weights + 24 * clean.numel()))


def _checked_sizes(sizes: Sequence[float] | Tensor) -> Tensor:
    distances = torch.as_tensor(sizes, dtype=torch.float64).detach().cpu()
    if distances.ndim != 1 or len(distances) == 0:
        raise BadInput("sizes", got=f"shape {tuple(distances.shape)}", wanted="a list of at least one number")
    if not distances.isfinite().all() or not (distances.diff() > 0).all():
        raise BadInput("sizes", got=[float(f"{size:.4g}") for size in distances], wanted="finite, strictly increasing")
    return distances


def _crossing(sizes: Sequence[float], values: Sequence[float], reach: float) -> float | None:
    above = next((place for place, value in enumerate(values) if value >= reach), None)
    if above is None or above == 0:
        return None if above is None else sizes[0]
    ends = (sizes[above - 1], sizes[above], values[above - 1], values[above], reach)
    logs = min(ends) > 0
    near, far, low, high, level = (math.log(end) if logs else end for end in ends)
    size = near + (far - near) * (level - low) / (high - low)
    return math.exp(size) if logs else size
