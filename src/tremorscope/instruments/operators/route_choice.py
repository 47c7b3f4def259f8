"""The first way of multiplying that works here and that another way confirms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput, TremorscopeError
from tremorscope.foundations.seeds import generator
from tremorscope.instruments.operators.second_order import BUILDERS, BlockProduct, Route

AskedRoute = Literal["auto", "tune", "linearize", "double_backward", "finite_difference"]
ORDER: tuple[Route, ...] = ("linearize", "double_backward", "finite_difference")
SMALL_ORDER: tuple[Route, ...] = ("double_backward", "linearize", "finite_difference")
SMALL_BYTES = 4 * 2**20
"""Activations of a pass up to which `auto` keeps the graph of the gradient: a product takes milliseconds, and what
recording saves of it (a third) has to make up for the second that the first recording of a process takes."""

_TIMED_SECONDS = 0.025
"""For each of the two routes that `tune` compares."""

Build = Callable[[Route], BlockProduct]


@final
@dataclass(frozen=True, kw_only=True)
class Choice:
    """A route, its product, and why no earlier one."""

    route: Route
    product: BlockProduct
    one_at_a_time: bool
    flags: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One product in several ways: `build` for many uses, `rebuild` for one.

    `slope` is the norm of the gradient: rounding in a product is relative to it where the curvature is all
    but zero. `is_small`: products are so cheap that a trace does not pay.
    """

    what: str
    build: Build
    rebuild: Build
    theta: Tensor
    slope: float
    is_small: bool = False


def choose(asked: AskedRoute, candidate: Candidate) -> Choice:
    """The route asked for; for `"auto"` the first that works; for `"tune"` the faster of the exact ones.

    Raises:
        BadInput: If no route works, or the one that was asked for does not.
    """
    if asked not in ("auto", "tune", *BUILDERS):
        raise BadInput("route", got=asked, wanted=f"auto, tune or one of {', '.join(BUILDERS)}")
    if asked != "tune":
        if asked == "auto":
            return _first_that_works(SMALL_ORDER if candidate.is_small else ORDER, candidate, fall_back=True)
        return _first_that_works((asked,), candidate, fall_back=False)
    first = _first_that_works(ORDER, candidate, fall_back=True)
    if first.route != "linearize":
        return first
    try:
        second = _first_that_works(("double_backward",), candidate, fall_back=False)
    except BadInput:
        return first
    seconds = [_seconds(choice.product, candidate.theta) for choice in (first, second)]
    best = first if seconds[0] <= seconds[1] else second
    timed = f"{best.route} chosen by timing: linearize {seconds[0]:.2g} s, double_backward {seconds[1]:.2g} s a product"
    return Choice(route=best.route, product=best.product, one_at_a_time=best.one_at_a_time, flags=(*best.flags, timed))


def _seconds(product: BlockProduct, theta: Tensor) -> float:
    """The best time of one product, within a fixed time."""
    vector = (theta / theta.norm().clamp_min(torch.finfo(theta.dtype).tiny))[:, None]
    best, start = float("inf"), time.perf_counter()
    while True:
        before = time.perf_counter()
        float(product(vector)[0, 0])  # waits for an accelerator too
        now = time.perf_counter()
        best = min(best, now - before)
        if now - start > _TIMED_SECONDS:
            return best


def _first_that_works(routes: tuple[Route, ...], candidate: Candidate, *, fall_back: bool) -> Choice:
    flags: tuple[str, ...] = ()
    for route in routes:
        try:
            product, one_at_a_time = _checked(route, candidate, confirm=fall_back)
        except TremorscopeError:
            raise
        except Exception as error:  # torch raises many kinds for "no such derivative"
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            if route == routes[-1]:
                raise BadInput(
                    f"{candidate.what} by {route}",
                    got=reason,
                    wanted="a loss that can be differentiated this way",
                    remedy=None if fall_back else "Use route='auto'.",
                ) from error
            flags += (f"{route} does not work here: {reason}",)
            continue
        if one_at_a_time:
            flags += (f"{route} cannot be vmapped here: one vector at a time",)
        if route == "finite_difference":
            flags += ("finite differences: products are not exact",)
        return Choice(route=route, product=product, one_at_a_time=one_at_a_time, flags=flags)
    raise AssertionError("the last route either works or raises")


class _Mismatch(RuntimeError):
    """A product that another way of computing it does not confirm."""


def _checked(route: Route, candidate: Candidate, *, confirm: bool) -> tuple[BlockProduct, bool]:
    """Build one route and hold its products against a second opinion, on two fixed random vectors.

    A product by itself, two together and one by other means: a check that costs more would be felt where a whole
    spectrum takes sixty.
    """
    theta, slope = candidate.theta, candidate.slope
    product = candidate.build(route)
    probes = torch.randn(theta.numel(), 2, generator=generator(0, "hessian check"), dtype=torch.float64)
    probes = (probes / probes.norm(dim=0)).to(theta)
    alone = product(probes[:, 1:])
    if not alone.isfinite().all():
        raise BadInput(
            f"product with the {candidate.what}",
            got="entries that are not finite",
            wanted="a loss that is twice differentiable at these weights",
        )
    eps = torch.finfo(theta.dtype).eps
    if route == "linearize":
        _confirm_trace(alone, probes[:, 1:], candidate)
    elif route == "double_backward" and confirm:
        _confirm_double_backward(alone, probes[:, 1:], candidate)
    if route == "finite_difference":
        _must_repeat(product, probes[:, 1:], alone)
        return product, False
    try:
        _agree(product(probes)[:, 1:], alone, eps**0.5, 10 * eps * slope, "a single product")
    except Exception:  # either no batching rule, which is a matter of speed only, or no function of the vector at all
        _must_repeat(product, probes[:, 1:], alone)
        return product, True
    return product, False


def _must_repeat(product: BlockProduct, probe: Tensor, before: Tensor) -> None:
    if not torch.equal(product(probe), before):
        raise _Mismatch("the same product twice gave two results")


def _confirm_trace(got: Tensor, probe: Tensor, candidate: Candidate) -> None:
    """Against backward over backward, which is cheaper; where that has no rule or is another, against no trace."""
    eps = torch.finfo(candidate.theta.dtype).eps
    try:
        _agree(got, candidate.rebuild("double_backward")(probe), eps**0.5, 10 * eps * candidate.slope, "two backwards")
    except Exception:  # torch raises many kinds for "no such derivative", and a wrong one raises none
        untraced = candidate.rebuild("linearize")(probe)
        _agree(got, untraced, eps**0.5, 10 * eps * candidate.slope, "an untraced product")


def _confirm_double_backward(got: Tensor, probe: Tensor, candidate: Candidate) -> None:
    """Against forward mode; where it has no rule, against differences.

    An operation without forward rule may be a custom function whose backward hides from autograd; it then gives a
    wrong second derivative and no error. Differences are coarse, but not that coarse.
    """
    eps = torch.finfo(candidate.theta.dtype).eps
    try:
        forward = candidate.rebuild("linearize")(probe)
    except Exception:  # torch raises many kinds for "no such derivative"
        coarse = 0.1 if candidate.theta.dtype == torch.float64 else 0.3
        floor = 10 * eps ** (2 / 3) * candidate.slope
        _agree(got, candidate.build("finite_difference")(probe), coarse, floor, "central differences")
    else:
        _agree(got, forward, eps**0.5, 10 * eps * candidate.slope, "forward over reverse")


def _agree(got: Tensor, wanted: Tensor, tolerance: float, floor: float, other: str) -> None:
    gap, scale = float((got - wanted).norm()), float(wanted.norm())
    if gap > tolerance * scale + floor:
        raise _Mismatch(f"its product differs from {other} by {gap:.2g} of {scale:.2g}")
