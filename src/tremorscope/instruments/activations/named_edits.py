"""Edits by the names that the literature gives them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.activations.gated_edits import Beyond, Clamp, Gate, Gated, NormPreserving
from tremorscope.instruments.edit import Add, Affine, Edit, Replace
from tremorscope.instruments.vectors import Size, check_direction, check_number, check_vector


def add(direction: Float[Tensor, " d"], size: Size = 1.0) -> Add:
    """Add `size * direction`, as given."""
    return Add(direction, size)


def replace(value: Float[Tensor, "*rows d"]) -> Replace:
    """Put a value in its place: one vector for all, or a value recorded elsewhere, row by row (patching)."""
    return Replace(value)


def zero_ablate(width: int) -> Replace:
    """Put zeros in its place."""
    return Replace(torch.zeros(width))


def mean_ablate(values: Float[Tensor, "*rows d"]) -> Replace:
    """Put the mean of recorded values in its place."""
    return Replace(values.double().flatten(0, -2).mean(0).to(values.dtype))


def resample_ablate(values: Float[Tensor, "rows *more d"], *, seed: int) -> Replace:
    """Give every row the value that another row had: a permutation that leaves none in its place.

    >>> resample_ablate(torch.tensor([[1.0], [2.0]]), seed=0).value.tolist()
    [[2.0], [1.0]]

    Raises:
        BadInput: If there is one row only.
    """
    if len(values) < 2:
        raise BadInput("values to resample", got=f"{len(values)} rows", wanted="at least 2")
    # A cycle through the rows in a random order: nobody keeps his own.
    order = torch.randperm(len(values), generator=generator(seed, "resample"))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return Replace(values[other.to(values.device)])


def directional_ablate(
    directions: Float[Tensor, " d"] | Float[Tensor, "d k"], *, origin: Float[Tensor, " d"] | None = None
) -> Affine:
    """Remove the component along one or several directions, from `x` or (with an origin) from `x - origin`.

    >>> directional_ablate(torch.tensor([2.0, 0.0])).apply(torch.tensor([3.0, 4.0]))
    tensor([0., 4.])
    """
    columns = _columns(directions)
    return _affine(-columns, torch.linalg.pinv(columns.double()).mT, origin, None, directions.dtype)


def caa(positive: Float[Tensor, " d"], negative: Float[Tensor, " d"], size: Size = 1.0) -> Add:
    """Contrastive activation addition: add `size` times the difference of two means."""
    return Add(positive - negative, size)


def ace(
    directions: Float[Tensor, " d"] | Float[Tensor, "d k"],
    reference: Float[Tensor, " d"],
    alpha: float | Sequence[float],
    *,
    read_out: Float[Tensor, ...] | None = None,
    strength: float = 1.0,
) -> Affine:
    """Affine concept editing: `x - strength R (W^T R)^-1 W^T (x - reference) + R alpha`.

    Afterwards (at strength 1) the coordinates of `x - reference` along the directions R, as W reads them, are alpha.
    W is R where no other read-out is given.

    >>> ace(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), 0.5).apply(torch.tensor([9.0, 9.0]))
    tensor([2., 9.])

    Raises:
        BadInput: If a number is not finite, shapes do not fit, or the read-outs do not see the directions.
    """
    columns = _columns(directions).double()
    check_number("strength of ace", strength)
    wanted = torch.as_tensor(alpha, dtype=torch.float64, device=columns.device).reshape(-1)
    if wanted.shape != columns.shape[1:] or not wanted.isfinite().all():
        raise BadInput("alpha", got=alpha, wanted=f"{columns.shape[1]} finite numbers, one for each direction")
    seen_by = columns if read_out is None else _columns(read_out).double()
    if seen_by.shape != columns.shape:
        raise BadInput(
            "read-out", got=tuple(seen_by.shape), wanted=f"the shape of the directions, {tuple(columns.shape)}"
        )
    crossing = seen_by.mT @ columns
    scale = seen_by.norm(dim=0)[:, None] * columns.norm(dim=0)
    if float(torch.linalg.svdvals(crossing / scale).min()) < torch.finfo(torch.float64).eps ** 0.5:
        raise BadInput("read-out", got="one that does not see every direction", wanted="W^T R that can be inverted")
    return _affine(
        -strength * columns @ torch.linalg.inv(crossing), seen_by, reference, columns @ wanted, directions.dtype
    )


def leace(
    crossed: Float[Tensor, " d"] | Float[Tensor, "d k"],
    covariance: Float[Tensor, "rows columns"],
    mean: Float[Tensor, " d"],
    *,
    ridge: float = 0.0,
) -> Affine:
    """Least-squares concept erasure (arXiv:2306.03819): afterwards no linear read-out of the concept is left.

    `crossed` is the covariance of x with the concept (for two classes, the difference of the means), `covariance` that
    of x; `ridge` times its mean eigenvalue is added.

    Raises:
        BadInput: If the covariance cannot be inverted, or shapes do not fit.
    """
    columns, whole = _columns(crossed).double(), covariance.double()
    if whole.shape != (len(columns), len(columns)):
        raise BadInput("covariance", got=tuple(whole.shape), wanted=(len(columns), len(columns)))
    whole = whole + ridge * whole.trace() / len(whole) * torch.eye(len(whole), dtype=whole.dtype, device=whole.device)
    sizes = torch.linalg.eigvalsh(whole)
    if float(sizes[0]) <= len(whole) * torch.finfo(torch.float64).eps * float(sizes[-1]):
        raise BadInput(
            "covariance", got=f"eigenvalues from {float(sizes[0]):.2g}", wanted="positive ones", remedy="Give a ridge."
        )
    edit = ace(columns, mean.double(), [0.0] * columns.shape[1], read_out=torch.linalg.solve(whole, columns))
    return _affine(edit.left, edit.right, mean, None, crossed.dtype)


def rotate(first: Float[Tensor, " d"], second: Float[Tensor, " d"], angle: float) -> Affine:
    """Turn the plane of two vectors by an angle (radians), from the first towards the second; the rest stays.

    >>> import math
    >>> rotate(torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]), math.pi / 2).apply(torch.ones(3)).round(decimals=6)
    tensor([-1.,  1.,  1.])

    Raises:
        BadInput: If the two span no plane, or the angle is not finite.
    """
    check_number("angle of rotate", angle)
    columns = _columns(torch.stack([first, second], dim=1)).double()
    plane, triangle = torch.linalg.qr(columns)
    if float(triangle[1, 1].abs()) <= torch.finfo(first.dtype).eps * 8 * float(columns[:, 1].norm()):
        raise BadInput("plane of rotate", got="parallel vectors", wanted="two that span a plane")
    plane = plane * triangle.diagonal().sign()  # both axes on the side of their vectors
    turn = torch.as_tensor(angle, dtype=torch.float64)
    matrix = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    change = matrix.to(plane.device) - torch.eye(2, dtype=torch.float64, device=plane.device)
    return _affine(plane @ change, plane, None, None, first.dtype)


def clamp(
    *,
    low: float | None = None,
    high: float | None = None,
    direction: Float[Tensor, " d"] | None = None,
    origin: Float[Tensor, " d"] | None = None,
) -> Clamp:
    """Hold a coordinate (or, without a direction, every entry) within bounds."""
    return Clamp(low, high, direction, origin)


def norm_preserving(edit: Edit) -> NormPreserving:
    """Another edit, with the norm of every vector kept."""
    return NormPreserving(edit)


def when(edit: Edit, gate: Gate) -> Gated:
    """Another edit, where (or as far as) a function of the vector says so."""
    return Gated(edit, gate)


def when_beyond(
    edit: Edit,
    direction: Float[Tensor, " d"],
    *,
    above: float | None = None,
    below: float | None = None,
    origin: Float[Tensor, " d"] | None = None,
) -> Gated:
    """Another edit, where the coordinate along a direction is beyond a bound."""
    return Gated(edit, Beyond(direction, above, below, origin))


def in_part(edit: Edit, strength: Size) -> Gated:
    """Another edit, made in part: 0 leaves everything as it is, 1 is the edit."""
    return Gated(edit, None, strength)


def _columns(directions: Tensor) -> Tensor:
    columns = directions[:, None] if directions.ndim == 1 else directions
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise BadInput(
            "directions", got=f"shape {tuple(directions.shape)}", wanted="[d], or [d, k] with one in each column"
        )
    for column in columns.mT:
        check_direction("direction", column)
    return columns


def _affine(left: Tensor, right: Tensor, offset: Tensor | None, shift: Tensor | None, dtype: torch.dtype) -> Affine:
    """Worked out in double precision, kept at least in single."""
    dtype = torch.promote_types(dtype, torch.float32)
    if offset is not None:
        check_vector("reference", offset)
    origin, constant = (None if part is None else part.to(dtype) for part in (offset, shift))
    return Affine(left.to(dtype), right.to(dtype), origin, constant)
