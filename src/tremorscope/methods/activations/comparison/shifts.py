"""How activations and predictions on the same texts differ between two networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line
from tremorscope.foundations.results import Table
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.network import Network

NUM_AXES = 10  # main directions whose angles are measured


@final
@dataclass(frozen=True, kw_only=True)
class Shift:
    """Between two sets of activations at one site, in the first one's units.

    `mean` is the distance of the means over the typical distance of two activations, `covariance` the relative change
    in Frobenius norm, `angle` the largest principal angle (degrees) between the spans of the ten main directions.
    """

    mean: float
    covariance: float
    angle: float


@final
@dataclass(frozen=True, kw_only=True)
class ActivationShift:
    """By site: the shift from one network to the other, and in the first from every second token to the others."""

    sites: tuple[str, ...]
    shifts: tuple[Shift, ...]
    halves: tuple[Shift, ...]
    divergence: Estimate

    def sentence(self) -> str:
        """What a reader wants first."""
        return (
            f"On ordinary texts the predictions differ by {self.divergence} nats for each token, in KL (mean over "
            "texts)."
        )

    def tables(self) -> list[Table]:
        """One row for each site."""
        rows = [
            {
                "site": site,
                "shift of the mean": own.mean,
                "chance: every second token": half.mean,
                "change of the covariance": own.covariance,
                "chance, covariance": half.covariance,
                "largest angle (degrees)": own.angle,
                "chance, angle": half.angle,
            }
            for site, own, half in zip(self.sites, self.shifts, self.halves, strict=True)
        ]
        return [
            Table.of_rows(
                rows,
                name="activation_shift",
                title="What moved in the activations, in numbers",
                caption="The same texts in both networks: distance of the means (in typical distances between two "
                "activations), relative change of the covariance, and the largest principal angle between the ten main "
                "directions. Chance is what every second token shows against the others in the first network alone.",
            )
        ]

    def figures(self) -> list[Figure]:
        """Shift of mean and covariance by block."""
        places = list(range(len(self.sites)))
        traces = []
        for label, part, colour in (("mean", "mean", PALETTE[0]), ("covariance", "covariance", PALETTE[1])):
            values = [getattr(one, part) for one in self.shifts]
            traces.append(line(places, values, label, colour=colour, markers=True))
            null = [getattr(one, part) for one in self.halves]
            dash = "dot" if part == "mean" else "dash"
            traces.append(line(places, null, f"{label}, by chance", colour=NULL_COLOUR, dash=dash))
        seen = [value for trace in traces for value in trace["y"] if value is not None]
        is_wide = bool(seen) and min(seen) > 0 and max(seen) > 30 * min(seen)
        return [
            Figure(
                name="activation_shift",
                title="What moved in the activations",
                caption="Shift of the mean (in typical distances between two activations) and change of the covariance "
                "(relative to its norm), from the first network to the second, of the activations at each block input; "
                "grey is chance, what every second token shows against the others in the first network.",
                traces=traces,
                x=Axis(title="input of block"),
                y=Axis(title="shift (relative)", log=is_wide),
                layout={"xaxis": {"title": {"text": "input of block"}, "dtick": 1}},
            )
        ]


def measure_activation_shift(
    before: Mapping[str, Float[Tensor, "n d"]],
    after: Mapping[str, Float[Tensor, "n d"]],
    divergence: Estimate,
) -> ActivationShift:
    """How did mean, covariance and main directions move, site by site?

    Args:
        before: Activations of the first network at each site.
        after: Those of the second, of the same tokens.
        divergence: Of the predictions.
    """
    shifts, halves = [], []
    for site, rows in before.items():
        own, other = rows.detach().double(), after[site].detach().double()
        shifts.append(_shift(own, other))
        halves.append(_shift(own[::2], own[1::2]))
    return ActivationShift(sites=tuple(before), shifts=tuple(shifts), halves=tuple(halves), divergence=divergence)


def prediction_divergence(first: Network, second: Network, texts: Sequence[str], *, most_tokens: int = 64) -> Estimate:
    """Mean KL(first || second) of next-token predictions, in nats: the mean of each text, then over texts.

    Raises:
        BadInput: As `encode`.
    """
    means = []
    for start in range(0, len(texts), 16):
        batch = encode(first, texts[start : start + 16])
        kwargs = {key: value[:, :most_tokens] for key, value in batch.kwargs.items()}
        batch = batch._replace(kwargs=kwargs)
        with torch.no_grad():
            logs = [one.apply(one.params, batch).double().log_softmax(dim=-1) for one in (first, second)]
        kl = (logs[0].exp() * (logs[0] - logs[1])).sum(dim=-1)
        mask = kwargs["attention_mask"].double()
        means += ((kl * mask).sum(dim=1) / mask.sum(dim=1)).tolist()
    return Estimate.mean(means)


def _shift(own: Tensor, other: Tensor) -> Shift:
    means = own.mean(dim=0), other.mean(dim=0)
    centred = own - means[0], other - means[1]
    covariances = [one.T @ one / max(len(one) - 1, 1) for one in centred]
    distance = float((2 * covariances[0].trace()).sqrt())
    scale = float(covariances[0].norm())
    return Shift(
        mean=float((means[1] - means[0]).norm()) / distance,
        covariance=float((covariances[1] - covariances[0]).norm()) / scale,
        angle=_largest_angle(*(torch.linalg.eigh(one).eigenvectors[:, -NUM_AXES:] for one in covariances)),
    )


def _largest_angle(first: Tensor, second: Tensor) -> float:
    """Degrees; from the sine, which is exact where the spans are the same."""
    if torch.equal(first, second):
        return 0.0
    rest = second - first @ (first.T @ second)
    return float(torch.linalg.matrix_norm(rest, ord=2).clamp(max=1.0).asin().rad2deg())
