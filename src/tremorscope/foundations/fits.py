"""Power laws `value = coefficient * size^exponent`: where in a curve they hold, and how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy
from numpy.typing import ArrayLike, NDArray

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.foundations.seeds import numpy_generator

MIN_POINTS = 4  # a line takes two, its scatter and a bend one each
CLEARANCE = 10.0  # values this close to a known floor already bend
DRIFT = 0.05  # a slope that changes by less than this share of itself counts as one slope
_SIGNIFICANCE = 0.01
_MEDIAN_OF_NORMAL = 0.6745  # of the magnitude of a standard normal number
_RESAMPLES = 1999
_EXACT = 1e-12  # scatter of logarithms that is rounding
_BLOCK = 256  # resamples that share one draw of random numbers

Curve = NDArray[numpy.float64]


@final
@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A straight piece of a log-log curve.

    `exponent` is its slope with a bootstrapped interval, which takes the window as given. `window` holds the
    smallest and largest size inside, `used` the places of its points in the sorted sizes. `scatter` is the
    residual standard deviation of the natural logarithms: 0.1 means that values lie within about 10 %.
    """

    exponent: Estimate
    coefficient: float
    window: tuple[float, float]
    used: tuple[int, ...]
    scatter: float
    flags: tuple[str, ...] = ()

    def predict(self, sizes: ArrayLike) -> Curve:
        """The law's values, inside its window or not."""
        predicted: Curve = self.coefficient * numpy.asarray(sizes, dtype=numpy.float64) ** self.exponent.value
        return predicted

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "exponent": self.exponent.to_dict(),
            "coefficient": self.coefficient,
            "window": list(self.window),
            "used": list(self.used),
            "scatter": self.scatter,
            "flags": list(self.flags),
        }

    @classmethod
    def of(cls, plain: dict[str, Any]) -> PowerLaw:
        """The inverse of `to_plain`."""
        low, high = plain["window"]
        return cls(
            exponent=Estimate.from_dict(plain["exponent"]),
            coefficient=plain["coefficient"],
            window=(low, high),
            used=tuple(plain["used"]),
            scatter=plain["scatter"],
            flags=tuple(plain["flags"]),
        )


def fit_power_law(
    sizes: ArrayLike,
    values: ArrayLike,
    *,
    window: tuple[float, float] | None = None,
    floor: ArrayLike = 0.0,
    min_points: int = MIN_POINTS,
    seed: int = 0,
    level: float = LEVEL,
) -> PowerLaw:
    """With which power of the size does a value fall or rise, and over which sizes?

    Args:
        sizes: Positive and different, in any order.
        values: Positive, one for each size.
        window: Smallest and largest size to fit. None finds the longest run of neighbouring sizes (in decades;
            among equals the one at larger sizes) whose slope does not drift: neither a bend nor either end point
            may be significant at 1 % and also move the slope by more than a twentieth of itself.
        floor: What the values cannot fall below (rounding, noise), one number or one for each size. Values under
            ten times it are left out.
        min_points: Fewest points of a window.
        seed: Names the stream of resamples.
        level: Of the interval.

    The interval is the studentised residual bootstrap (Efron and Tibshirani 1993, chapter 9 and section 12.5):
    residuals are divided by the square root of one minus their leverage and drawn anew, and each draw's slope is
    measured in its own standard errors. It takes the window as given, so it does not know that the window was
    chosen. Over members (seeds), average their exponents with `Estimate.mean` instead.

    >>> sizes = [8, 16, 32, 64, 128]
    >>> law = fit_power_law(sizes, [3 * size**-2.0 for size in sizes])
    >>> round(law.exponent.value, 6), round(law.coefficient, 6), law.window
    (-2.0, 3.0, (8.0, 128.0))

    Raises:
        BadInput: If sizes or values are not positive and finite, sizes repeat, or too few points are left.
    """
    x, y, floors = _curve(sizes, values, floor)
    allowed = y > CLEARANCE * floors
    if window is not None:
        allowed &= (window[0] <= x) & (x <= window[1])
    least = max(min_points, 3)
    if allowed.sum() < least:
        raise BadInput(
            "points of a power law",
            got=f"{int(allowed.sum())} of {len(x)} inside the window and above {CLEARANCE:g} times the floor",
            wanted=f"at least {least}",
            remedy="Add sizes where the value still changes.",
        )
    log_x, log_y = numpy.log(x), numpy.log(y)
    flags: tuple[str, ...] = ()
    if window is not None:
        used = numpy.flatnonzero(allowed)
    else:
        found = _straight_piece(log_x, log_y, allowed, least)
        if found is None:
            # the largest sizes are the nearest to an asymptotic law
            found = numpy.flatnonzero(allowed)[-least:]
            flags = (f"no {least} neighbouring sizes share one slope: the largest {least} are fitted",)
        used = found
    slope, intercept, residuals, error = _line(log_x[used], log_y[used])
    return PowerLaw(
        exponent=_bootstrapped(log_x[used], slope, residuals, error, seed, level),
        coefficient=math.exp(intercept),
        window=(float(x[used[0]]), float(x[used[-1]])),
        used=tuple(int(place) for place in used),
        scatter=math.sqrt(float(residuals @ residuals) / (len(used) - 2)),
        flags=flags,
    )


def _curve(sizes: ArrayLike, values: ArrayLike, floor: ArrayLike) -> tuple[Curve, Curve, Curve]:
    x, y = (numpy.asarray(part, dtype=numpy.float64).reshape(-1) for part in (sizes, values))
    if len(x) != len(y):
        raise BadInput("curve", got=f"{len(x)} sizes and {len(y)} values", wanted="as many of each")
    for name, part in (("sizes", x), ("values", y)):
        bad = ~(numpy.isfinite(part) & (part > 0))
        if bad.any():
            raise BadInput(
                f"{name} of a power law",
                got=f"{int(bad.sum())} of {len(part)} not positive and finite",
                wanted="positive numbers",
                remedy="Leave those points out, and fit magnitudes.",
            )
    if len(numpy.unique(x)) < len(x):
        raise BadInput(
            "sizes of a power law",
            got=f"{len(x) - len(numpy.unique(x))} repeated",
            wanted="different sizes",
            remedy="Average the values of equal sizes first.",
        )
    floors = numpy.broadcast_to(numpy.asarray(floor, dtype=numpy.float64), x.shape)
    order = numpy.argsort(x)
    return x[order], y[order], floors[order]


def _line(x: Curve, y: Curve) -> tuple[float, float, Curve, float]:
    """Slope, intercept, residuals and the slope's standard error."""
    away = x - x.mean()
    spread = float(away @ away)
    slope = float(away @ y) / spread
    residuals = y - y.mean() - slope * away
    error = math.sqrt(float(residuals @ residuals) / max(len(x) - 2, 1) / spread)
    return slope, float(y.mean() - slope * x.mean()), residuals, error


def _straight_piece(x: Curve, y: Curve, allowed: NDArray[numpy.bool_], least: int) -> NDArray[numpy.intp] | None:
    pieces = [
        numpy.arange(start, stop)
        for start in range(len(x))
        for stop in range(start + least, len(x) + 1)
        if allowed[start:stop].all()
    ]
    # lengths of equal spacing differ by rounding: compare them as rounded numbers
    pieces.sort(key=lambda piece: (round(float(x[piece[-1]] - x[piece[0]]), 9), piece[-1]), reverse=True)
    local = _local_noise(x[allowed], y[allowed])
    return next((piece for piece in pieces if _is_straight(x[piece], y[piece], local)), None)


def _local_noise(x: Curve, y: Curve) -> float:
    """Scatter as neighbours show it: the median miss of a point from the line through those beside it.

    The scatter around one line over a whole window would count a kink as noise, and so excuse it.
    """
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    misses = y[1:-1] - (1 - share) * y[:-2] - share * y[2:]
    return float(numpy.median(numpy.abs(misses) / numpy.sqrt(1 + share**2 + (1 - share) ** 2))) / _MEDIAN_OF_NORMAL


def _is_straight(x: Curve, y: Curve, local: float) -> bool:
    slope, _, residuals, _ = _line(x, y)
    if float(numpy.abs(residuals).max()) < _EXACT:
        return True
    away = x - x.mean()
    bend = numpy.linalg.qr(numpy.stack([numpy.ones_like(away), away, away**2], axis=1))[0][:, 2]
    size = float(bend @ residuals)
    left = float(residuals @ residuals) - size**2
    curvature = size / float(bend @ away**2)
    moves_slope = abs(curvature * (x[-1] - x[0])) > DRIFT * abs(slope)  # from the middle to an end
    if moves_slope and _is_significant(size, left, len(x) - 3, local):
        return False
    return not any(_end_drifts(x, y, slope, rest, local) for rest in (slice(1, None), slice(None, -1)))


def _end_drifts(x: Curve, y: Curve, slope: float, rest: slice, local: float) -> bool:
    """Does the end that `rest` leaves out lie off the line through the others, and turn it?"""
    end = 0 if rest.start == 1 else -1
    inner, intercept, residuals, _ = _line(x[rest], y[rest])
    if abs(inner - slope) <= DRIFT * abs(slope):
        return False
    away = x[rest] - x[rest].mean()
    widening = 1 + 1 / len(away) + float(x[end] - x[rest].mean()) ** 2 / float(away @ away)
    miss = float(y[end] - intercept - inner * x[end]) / math.sqrt(widening)
    return _is_significant(miss, float(residuals @ residuals), len(away) - 2, local)


def _is_significant(size: float, left: float, freedom: int, local: float) -> bool:
    """Is one contrast of unit weight larger than the scatter explains, the window's or that of neighbours?"""
    from scipy.special import stdtr

    if freedom < 1:
        return False
    noise = min(math.sqrt(max(left, 0.0) / freedom), local)
    return noise <= _EXACT or 2 * float(stdtr(freedom, -abs(size) / noise)) < _SIGNIFICANCE


def _bootstrapped(x: Curve, slope: float, residuals: Curve, error: float, seed: int, level: float) -> Estimate:
    num_points = len(x)
    if float(numpy.abs(residuals).max()) < _EXACT:
        return Estimate(
            value=slope, low=slope, high=slope, level=level, n=num_points, method="bootstrap-t of residuals"
        )
    away = x - x.mean()
    spread = float(away @ away)
    pool = residuals / numpy.sqrt(1 - 1 / num_points - away**2 / spread)
    pool = pool - pool.mean()
    random = numpy_generator(seed, "power law")
    scores: list[Curve] = []
    missing = _RESAMPLES
    while missing > 0:
        noise = random.choice(pool, size=(_BLOCK, num_points))
        slopes = noise @ away / spread
        left = noise - noise.mean(axis=1, keepdims=True) - slopes[:, None] * away
        errors = numpy.sqrt((left**2).sum(axis=1) / (num_points - 2) / spread)
        # a draw of one residual repeated has neither slope nor scatter, hence no score
        scores.append((slopes[errors > _EXACT] / errors[errors > _EXACT])[:missing])
        missing -= len(scores[-1])
    tail = (1 - level) / 2
    low, high = numpy.quantile(numpy.concatenate(scores), [tail, 1 - tail])
    return Estimate(
        value=slope,
        low=slope - float(high) * error,
        high=slope - float(low) * error,
        level=level,
        n=num_points,
        method="bootstrap-t of residuals",
    )
