"""Single numbers read from a curve: what claims are judged on, and nulls in the same way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from tremorscope.methods.weights.goldilocks.measurement import GoldilocksMeasurement
from tremorscope.methods.weights.goldilocks.zone import prominence

Reading = Callable[[GoldilocksMeasurement], float]
INSIDE = {"weights": 0.2, "temperature": 0.1}
OUTSIDE = {"weights": 20.0, "temperature": 1e4}
"""Scales up to which, and from which on, a curve is taken to be on either side of the shell."""


def peak(measured: GoldilocksMeasurement) -> float:
    """Largest mean kappa at scales between 1/2 and 10, where a shell is looked for."""
    return largest(measured, 0.5, 10)


def flat_peak(measured: GoldilocksMeasurement) -> float:
    """The same of a sphere's curvature without its own bending."""
    return largest(measured, 0.5, 10, quantity="flat_kappa")


def largest(measured: GoldilocksMeasurement, low: float, high: float, *, quantity: str = "kappa") -> float:
    """Largest of a mean curve over scales from `low` to `high`."""
    return float(over(measured, low, high, quantity).max())


def over(measured: GoldilocksMeasurement, low: float, high: float, quantity: str = "kappa") -> torch.Tensor:
    """The mean curve at scales from `low` to `high`."""
    chosen = [low <= scale <= high for scale in measured.scales]
    return measured.mean(quantity)[torch.tensor(chosen)]


def peak_scale(measured: GoldilocksMeasurement) -> float:
    """`log10` of the scale at which mean kappa is largest."""
    return math.log10(measured.scales[int(measured.mean().nan_to_num(-math.inf).argmax())])


def share_at_peak(measured: GoldilocksMeasurement) -> float:
    """Share of positive curvature where mean kappa is largest."""
    return float(measured.mean("positive_share")[int(measured.mean().nan_to_num(-math.inf).argmax())])


def far_share(measured: GoldilocksMeasurement) -> float:
    """Largest distance of the share of positive curvature from 1/2 at scales from 20."""
    return float((over(measured, OUTSIDE["weights"], math.inf, "positive_share") - 0.5).abs().max())


def ratio_at_peak(measured: GoldilocksMeasurement) -> float:
    """`log10` of the Gauss-Newton part over the rest where mean kappa is largest."""
    return _log_ratio(measured, int(measured.mean().nan_to_num(-math.inf).argmax()))


def ratio_at(scale: float) -> Reading:
    """`log10` of the Gauss-Newton part over the rest at one scale."""
    return lambda measured: _log_ratio(measured, measured.scales.index(scale))


def shell(measured: GoldilocksMeasurement) -> float:
    """How far the peak stands out, for either knob."""
    knob = measured.scaling
    return prominence(measured.scales, measured.mean().tolist(), inside=INSIDE[knob], outside=OUTSIDE[knob])


def _log_ratio(measured: GoldilocksMeasurement, place: int) -> float:
    ratios = measured.curves["gauss_newton_ratio"][:, place]
    # A saturated softmax has no Gauss-Newton part at all; beyond rounding ratios say no more.
    return float(ratios[~ratios.isnan()].clamp(1e-16, 1e16).log10().mean())
