"""What can be done along a fitted direction, each as one affine map: so all of them fold, and can be baked.

With rh = r/|r|, P(v) = rh rh^T v, mu- the mean without the concept and beta the coordinate (0 at mu-, 1 at mu+):

| edit | v becomes | coordinate after it |
|---|---|---|
| `add` (CAA) | v + alpha r | beta + alpha: another one for every input |
| `ablate` | v - P(v) | that of the origin, wherever it is |
| `ablate_then_add` | v - P(v) + alpha r | the origin's + alpha |
| `ace` | v - P(v) + P(mu-) + alpha r | alpha, for every input |
| `oblique` | v - r w^T (v - mu-) / (w^T r) + alpha r | 0 + alpha as w reads it |
| `erase` (LEACE) | x - S^1/2 U U^T S^-1/2 (x - mean) | nothing linear can be read |

With k directions r becomes a matrix of k columns, and alpha one number for each.

Sources: arXiv:2411.09003 (ACE), arXiv:2306.03819 (LEACE), arXiv:2406.11717 (ablation), arXiv:2312.06681 (addition).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.instruments.activations import named_edits
from tremorscope.instruments.activations.gated_edits import Gated
from tremorscope.instruments.edit import Affine, Edit
from tremorscope.methods.activations.concept_editing.direction import ConceptFit

Alpha = float | Sequence[float] | Tensor
RIDGE = 1e-3  # of the mean eigenvalue
TINY = 1e-6  # eigenvalues below this part of the largest are noise


def add(fit: ConceptFit, alpha: Alpha = 1.0) -> Affine:
    """Add alpha times the direction: contrastive activation addition.

    Raises:
        BadInput: If alpha is not finite, or not one number for each concept.
    """
    shift = fit.directions @ _alphas(fit, alpha)
    nothing = shift.new_zeros(len(shift), 0)
    return _narrow(nothing, nothing, None, shift)


def ablate(fit: ConceptFit) -> Affine:
    """Remove the component along the direction: every activation gets the coordinate of the origin."""
    return named_edits.directional_ablate(fit.directions.float())


def ablate_then_add(fit: ConceptFit, alpha: Alpha = 1.0) -> Affine:
    """Remove the component and add alpha times the direction: ACE without its reference point.

    Raises:
        BadInput: If alpha is not finite, or not one number for each concept.
    """
    origin = torch.zeros_like(fit.negative.mean)
    return named_edits.ace(fit.directions.float(), origin.float(), _alphas(fit, alpha).tolist())


def ace(fit: ConceptFit, alpha: Alpha = 0.0) -> Affine:
    """Affine concept editing: set the coordinate to alpha, 0 the typical negative and 1 the typical positive.

    >>> from tremorscope.methods.activations.concept_editing.streaming import fit_rows
    >>> fit = fit_rows(torch.tensor([[1.0, 0.0]] * 9), torch.tensor([[3.0, 0.0]] * 9), site="acts:layer")
    >>> ace(fit, 0.5).apply(torch.tensor([[9.0, 9.0]]))
    tensor([[2., 9.]])

    Raises:
        BadInput: If alpha is not finite, or not one number for each concept.
    """
    return named_edits.ace(fit.directions.float(), fit.negative.mean.float(), _alphas(fit, alpha).tolist())


def oblique(fit: ConceptFit, alpha: Alpha = 0.0, *, ridge: float = RIDGE) -> Affine:
    """Set the coordinate that the best linear read-out sees, w = (S + ridge * mean eigenvalue)^-1 r, S within classes.

    It moves activations along r as ACE does, by less where other directions vary more with r. A large ridge is ACE,
    a small one LEACE's projection about mu-: sweep it to trade one for the other.

    Raises:
        BadInput: If alpha is not finite, or the ridge is not a positive number.
    """
    w = oblique_read_out(fit, ridge=ridge)
    if torch.equal(w, fit.directions):
        return ace(fit, alpha)
    mean = fit.negative.mean
    return named_edits.ace(fit.directions.float(), mean.float(), _alphas(fit, alpha).tolist(), read_out=w.float())


def oblique_read_out(fit: ConceptFit, *, ridge: float = RIDGE) -> Float[Tensor, "d k"]:
    """What `oblique` reads activations with: w = (1 + ridge) (S + ridge)^-1 r, S in mean eigenvalues; r itself at inf.

    Raises:
        BadInput: If the ridge is not a positive number.
    """
    if not (ridge > 0 and not math.isnan(ridge)):
        raise BadInput("ridge", got=ridge, wanted="a positive number, in mean eigenvalues of the covariance")
    r = fit.directions
    within = fit.within()
    # Divided by 1 + ridge, so that a large one tends to a multiple of the identity.
    scale = within.trace() / len(within)
    if math.isinf(ridge) or scale <= 0:
        return r  # the same in all directions, or classes without any spread: nothing to correct for
    identity = torch.eye(len(within), dtype=within.dtype, device=within.device)
    found: Tensor = torch.linalg.solve((within / scale + ridge * identity) / (1 + ridge), r)
    return found


def erase(fit: ConceptFit, *, tolerance: float = TINY) -> Affine:
    """LEACE: afterwards no linear read-out tells the classes apart better than a constant, at least possible change.

    Fitted about the mean of all examples. Directions in which the examples vary less than `tolerance` of the most are
    left alone: with fewer examples than entries, everything could be told apart by those.

    Raises:
        BadInput: If the tolerance is not between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise BadInput("tolerance", got=tolerance, wanted="between 0 and 1, a part of the largest eigenvalue")
    every = fit.overall
    values, vectors = torch.linalg.eigh(every.covariance())
    kept = values > tolerance * values[-1]
    roots, axes = values[kept].sqrt(), vectors[:, kept]
    # Columns: covariance of the activation with the indicator of each class, which sum to zero.
    across = torch.stack(
        [(one.mean - every.mean) * (one.count / every.count) for one in (fit.negative, *fit.positives)], 1
    )
    whitened = (axes.mT @ across) / roots[:, None]
    u, sizes, _ = torch.linalg.svd(whitened, full_matrices=False)
    u = u[:, sizes > tolerance * sizes[0]]
    return _narrow(-axes @ (roots[:, None] * u), axes @ (u / roots[:, None]), every.mean, None)


METHODS: Mapping[str, Callable[[ConceptFit, Alpha], Affine]] = {
    "add": add,
    "ablate": lambda fit, alpha: ablate(fit),
    "ablate then add": ablate_then_add,
    "ace": ace,
    "oblique": oblique,
    "erase": lambda fit, alpha: erase(fit),
}
WITHOUT_ALPHA = ("ablate", "erase")


def edit_of(method: str, fit: ConceptFit, alpha: Alpha = 0.0) -> Affine:
    """The edit of that name; `ablate` and `erase` have no level and take no notice of alpha.

    Raises:
        BadInput: If there is no such method, or alpha does not fit.
    """
    if method not in METHODS:
        raise BadInput("method of editing", got=method, wanted=", ".join(METHODS), remedy=did_you_mean(method, METHODS))
    return METHODS[method](fit, alpha)


def conditional(fit: ConceptFit, edit: Edit, *, beyond: float = 0.5) -> Gated:
    """An edit only of activations whose coordinate beta is above a value; for a fit of one concept.

    It is not affine: it does not fold and cannot be baked.

    Raises:
        BadInput: If the fit has several concepts, or the bound is not finite.
    """
    if len(fit.names) != 1:
        raise BadInput("conditional edit", got=f"{len(fit.names)} concepts", wanted="one")
    if not math.isfinite(beyond):
        raise BadInput("bound of a conditional edit", got=beyond, wanted="a finite number")
    r = fit.directions[:, 0]
    return named_edits.when_beyond(edit, r.float(), above=beyond * float(r.norm()), origin=fit.negative.mean.float())


def _alphas(fit: ConceptFit, alpha: Alpha) -> Float[Tensor, " k"]:
    mean = fit.negative.mean
    found = torch.as_tensor(alpha, dtype=mean.dtype, device=mean.device).reshape(-1)
    if len(found) == 1:
        found = found.expand(len(fit.names))
    if len(found) != len(fit.names):
        raise BadInput("alpha", got=f"{len(found)} numbers", wanted=f"one, or one for each of {', '.join(fit.names)}")
    if not bool(found.isfinite().all()):
        raise BadInput("alpha", got=found.tolist() if len(found) > 1 else float(found[0]), wanted="a finite number")
    return found


def _narrow(left: Tensor, right: Tensor, offset: Tensor | None, shift: Tensor | None) -> Affine:
    """Fitted in float64, kept in float32: the width of what is edited, or wider."""
    return Affine(
        left.float(),
        right.float(),
        None if offset is None else offset.float(),
        None if shift is None else shift.float(),
    )
