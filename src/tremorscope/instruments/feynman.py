"""Equations of the Feynman lectures, with ranges of their variables, as targets for fitting.

The numbers are those of the lectures' chapters, as in Udrescu and Tegmark 2020 (arXiv:1905.11481), whose ranges these
follow: physical constants are variables too, and ranges keep clear of poles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from numpy import arcsin, cos, exp, log, ndarray, pi, sin, sqrt

Range = tuple[float, float]


@final
@dataclass(frozen=True, kw_only=True)
class Equation:
    """One formula: its text, its variables with their ranges, and the function of them in that order."""

    formula: str
    ranges: Mapping[str, Range]
    call: Callable[..., ndarray]


def _equation(formula: str, call: Callable[..., Any], **ranges: Range) -> Equation:
    return Equation(formula=formula, ranges=ranges, call=call)


_WIDE, _SMALL, _FAR = (1.0, 5.0), (1.0, 2.0), (3.0, 10.0)

FEYNMAN: Mapping[str, Equation] = {
    "I.6.2a": _equation("exp(-t^2/2) / sqrt(2 pi)", lambda t: exp(-(t**2) / 2) / sqrt(2 * pi), t=(1.0, 3.0)),
    "I.6.2": _equation(
        "exp(-(t/s)^2/2) / (sqrt(2 pi) s)",
        lambda s, t: exp(-((t / s) ** 2) / 2) / (sqrt(2 * pi) * s),
        s=(1.0, 3.0),
        t=(1.0, 3.0),
    ),
    "I.6.2b": _equation(
        "exp(-((t-t1)/s)^2/2) / (sqrt(2 pi) s)",
        lambda s, t, t1: exp(-(((t - t1) / s) ** 2) / 2) / (sqrt(2 * pi) * s),
        s=(1.0, 3.0),
        t=(1.0, 3.0),
        t1=(1.0, 3.0),
    ),
    "I.8.14": _equation(
        "sqrt((x2-x1)^2 + (y2-y1)^2)",
        lambda x1, x2, y1, y2: sqrt((x2 - x1) ** 2 + (y2 - y1) ** 2),
        x1=_WIDE,
        x2=_WIDE,
        y1=_WIDE,
        y2=_WIDE,
    ),
    "I.9.18": _equation(
        "G m1 m2 / ((x2-x1)^2 + (y2-y1)^2 + (z2-z1)^2)",
        lambda m1, m2, g, x1, x2, y1, y2, z1, z2: g * m1 * m2 / ((x2 - x1) ** 2 + (y2 - y1) ** 2 + (z2 - z1) ** 2),
        m1=_SMALL,
        m2=_SMALL,
        G=_SMALL,
        x1=(3.0, 4.0),
        x2=_SMALL,
        y1=(3.0, 4.0),
        y2=_SMALL,
        z1=(3.0, 4.0),
        z2=_SMALL,
    ),
    "I.10.7": _equation(
        "m0 / sqrt(1 - v^2/c^2)", lambda m0, v, c: m0 / sqrt(1 - (v / c) ** 2), m0=_WIDE, v=_SMALL, c=_FAR
    ),
    "I.11.19": _equation(
        "x1 y1 + x2 y2 + x3 y3",
        lambda x1, y1, x2, y2, x3, y3: x1 * y1 + x2 * y2 + x3 * y3,
        x1=_WIDE,
        y1=_WIDE,
        x2=_WIDE,
        y2=_WIDE,
        x3=_WIDE,
        y3=_WIDE,
    ),
    "I.12.1": _equation("mu N", lambda mu, n: mu * n, mu=_WIDE, N=_WIDE),
    "I.12.2": _equation(
        "q1 q2 / (4 pi e r^2)",
        lambda q1, q2, e, r: q1 * q2 / (4 * pi * e * r**2),
        q1=_WIDE,
        q2=_WIDE,
        e=_WIDE,
        r=_WIDE,
    ),
    "I.12.11": _equation(
        "q (E + B v sin(t))",
        lambda q, e, b, v, t: q * (e + b * v * sin(t)),
        q=_WIDE,
        E=_WIDE,
        B=_WIDE,
        v=_WIDE,
        t=_WIDE,
    ),
    "I.13.4": _equation(
        "m (v^2 + u^2 + w^2) / 2",
        lambda m, v, u, w: m * (v**2 + u**2 + w**2) / 2,
        m=_WIDE,
        v=_WIDE,
        u=_WIDE,
        w=_WIDE,
    ),
    "I.13.12": _equation(
        "G m1 m2 (1/r2 - 1/r1)",
        lambda g, m1, m2, r1, r2: g * m1 * m2 * (1 / r2 - 1 / r1),
        G=_WIDE,
        m1=_WIDE,
        m2=_WIDE,
        r1=_WIDE,
        r2=_WIDE,
    ),
    "I.14.3": _equation("m g z", lambda m, g, z: m * g * z, m=_WIDE, g=_WIDE, z=_WIDE),
    "I.14.4": _equation("k x^2 / 2", lambda k, x: k * x**2 / 2, k=_WIDE, x=_WIDE),
    "I.15.3x": _equation(
        "(x - u t) / sqrt(1 - u^2/c^2)",
        lambda x, u, c, t: (x - u * t) / sqrt(1 - (u / c) ** 2),
        x=(5.0, 10.0),
        u=_SMALL,
        c=(3.0, 20.0),
        t=_SMALL,
    ),
    "I.16.6": _equation(
        "(u + v) / (1 + u v / c^2)", lambda c, u, v: (u + v) / (1 + u * v / c**2), c=_WIDE, u=_WIDE, v=_WIDE
    ),
    "I.18.4": _equation(
        "(m1 r1 + m2 r2) / (m1 + m2)",
        lambda m1, m2, r1, r2: (m1 * r1 + m2 * r2) / (m1 + m2),
        m1=_WIDE,
        m2=_WIDE,
        r1=_WIDE,
        r2=_WIDE,
    ),
    "I.24.6": _equation(
        "m (w^2 + w0^2) x^2 / 4",
        lambda m, w, w0, x: m * (w**2 + w0**2) * x**2 / 4,
        m=(1.0, 3.0),
        w=(1.0, 3.0),
        w0=(1.0, 3.0),
        x=(1.0, 3.0),
    ),
    "I.26.2": _equation("arcsin(n sin(t))", lambda n, t: arcsin(n * sin(t)), n=(0.0, 1.0), t=_WIDE),
    "I.27.6": _equation("1 / (1/d1 + n/d2)", lambda d1, d2, n: 1 / (1 / d1 + n / d2), d1=_WIDE, d2=_WIDE, n=_WIDE),
    "I.29.16": _equation(
        "sqrt(x1^2 + x2^2 - 2 x1 x2 cos(t1 - t2))",
        lambda x1, x2, t1, t2: sqrt(x1**2 + x2**2 - 2 * x1 * x2 * cos(t1 - t2)),
        x1=_WIDE,
        x2=_WIDE,
        t1=_WIDE,
        t2=_WIDE,
    ),
    "I.30.3": _equation(
        "I sin(n t/2)^2 / sin(t/2)^2",
        lambda i, t, n: i * sin(n * t / 2) ** 2 / sin(t / 2) ** 2,
        I=_WIDE,
        t=_WIDE,
        n=_WIDE,
    ),
    "I.34.8": _equation("q v B / p", lambda q, v, b, p: q * v * b / p, q=_WIDE, v=_WIDE, B=_WIDE, p=_WIDE),
    "I.37.4": _equation(
        "I1 + I2 + 2 sqrt(I1 I2) cos(d)",
        lambda i1, i2, d: i1 + i2 + 2 * sqrt(i1 * i2) * cos(d),
        I1=_WIDE,
        I2=_WIDE,
        d=_WIDE,
    ),
    "I.39.22": _equation("n k T / V", lambda n, k, t, v: n * k * t / v, n=_WIDE, k=_WIDE, T=_WIDE, V=_WIDE),
    "I.40.1": _equation(
        "n0 exp(-m g x / (k T))",
        lambda n0, m, x, t, g, k: n0 * exp(-m * g * x / (k * t)),
        n0=_WIDE,
        m=_WIDE,
        x=_WIDE,
        T=_WIDE,
        g=_WIDE,
        k=_WIDE,
    ),
    "I.44.4": _equation(
        "n k T ln(V2/V1)",
        lambda n, k, t, v1, v2: n * k * t * log(v2 / v1),
        n=_WIDE,
        k=_WIDE,
        T=_WIDE,
        V1=_WIDE,
        V2=_WIDE,
    ),
    "I.50.26": _equation(
        "x1 (cos(w t) + a cos(w t)^2)",
        lambda x1, w, t, a: x1 * (cos(w * t) + a * cos(w * t) ** 2),
        x1=(1.0, 3.0),
        w=(1.0, 3.0),
        t=(1.0, 3.0),
        a=(1.0, 3.0),
    ),
    "II.35.18": _equation(
        "n0 / (exp(m B / (k T)) + exp(-m B / (k T)))",
        lambda n0, k, t, m, b: n0 / (exp(m * b / (k * t)) + exp(-m * b / (k * t))),
        n0=(1.0, 3.0),
        k=(1.0, 3.0),
        T=(1.0, 3.0),
        m=(1.0, 3.0),
        B=(1.0, 3.0),
    ),
    "II.36.38": _equation(
        "m H / (k T) + m a M / (e c^2 k T)",
        lambda m, h, k, t, a, e, c, big_m: m * h / (k * t) + m * a * big_m / (e * c**2 * k * t),
        m=(1.0, 3.0),
        H=(1.0, 3.0),
        k=(1.0, 3.0),
        T=(1.0, 3.0),
        a=(1.0, 3.0),
        e=(1.0, 3.0),
        c=(1.0, 3.0),
        M=(1.0, 3.0),
    ),
    "III.10.19": _equation(
        "m sqrt(Bx^2 + By^2 + Bz^2)",
        lambda m, bx, by, bz: m * sqrt(bx**2 + by**2 + bz**2),
        m=_WIDE,
        Bx=_WIDE,
        By=_WIDE,
        Bz=_WIDE,
    ),
    "III.17.37": _equation("b (1 + a cos(t))", lambda b, a, t: b * (1 + a * cos(t)), b=_WIDE, a=_WIDE, t=_WIDE),
}
