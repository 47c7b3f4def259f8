"""Laws of edits: register once, meet every law; and each law catches the bug planted for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.func import jvp, vmap

from tremorscope.instruments.activations.gated_edits import Beyond, Clamp, Gated, NormPreserving
from tremorscope.instruments.activations.named_edits import ace, directional_ablate, leace, rotate
from tremorscope.instruments.edit import Add, Affine, Edit, Noise, Project, Replace, Rotate
from tremorscope.instruments.subspace import Subspace

D = 6


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SUBSPACE = Subspace.span(_draw(D, 2, seed=1), offset=_draw(D, seed=2))
LEFT, RIGHT = _draw(D, 2, seed=3), _draw(D, 2, seed=4)


@dataclass(frozen=True)
class Case:
    """An edit, and the matrix L with f(x) - f(y) = L (x - y); None where the edit is not affine."""

    edit: Edit
    linear: Tensor | None

    def __str__(self) -> str:
        return type(self.edit).__name__


CASES = [
    Case(Add(_draw(D), size=0.7), torch.eye(D, dtype=torch.float64)),
    Case(Noise(0.3, seed=5), torch.eye(D, dtype=torch.float64)),
    Case(Rotate(_draw(D, seed=6), angle=0.4), None),
    Case(Replace(_draw(D, seed=7)), torch.zeros(D, D, dtype=torch.float64)),
    Case(Project(SUBSPACE), SUBSPACE.basis @ SUBSPACE.basis.T),
    Case(
        Affine(LEFT, RIGHT, offset=_draw(D, seed=8), shift=_draw(D, seed=9)),
        torch.eye(D, dtype=torch.float64) + LEFT @ RIGHT.T,
    ),
    Case(Gated(Add(_draw(D), size=0.7), gate=Beyond(_draw(D, seed=20), above=0.1)), None),
    Case(Gated(Rotate(_draw(D, seed=6), angle=0.4), gate=lambda x: torch.sigmoid(x[..., 0])), None),
    Case(Clamp(-0.5, 0.5, _draw(D, seed=21), _draw(D, seed=22)), None),
    Case(Clamp(low=-0.3), None),
    Case(NormPreserving(Add(_draw(D), size=0.7)), None),
]


def _identity() -> Tensor:
    return torch.eye(D, dtype=torch.float64)


def _activation_cases() -> list[Case]:
    """The affine edits of the literature, with their matrices from the formulas."""
    r, w, mean, spread = _draw(D, seed=23), _draw(D, seed=24), _draw(D, seed=25), _draw(D, 2 * D, seed=26)
    covariance = spread @ spread.T
    solved = torch.linalg.solve(covariance, r)
    u, v = torch.linalg.qr(torch.stack([r, w], 1)).Q.T
    turned = (torch.outer(u, u) + torch.outer(v, v)) * (math.cos(0.7) - 1)
    away = (torch.outer(v, u) - torch.outer(u, v)) * math.sin(0.7)
    handed = torch.sign((r @ u) * (w @ v))
    return [
        Case(directional_ablate(r, origin=mean), _identity() - torch.outer(r, r) / r.square().sum()),
        Case(ace(r, mean, 0.4, read_out=w, strength=0.8), _identity() - 0.8 * torch.outer(r, w) / (w @ r)),
        Case(leace(r, covariance, mean), _identity() - torch.outer(r, solved) / (solved @ r)),
        Case(rotate(r, w, 0.7), _identity() + turned + handed * away),
    ]


CASES += _activation_cases()


def shape_and_dtype_are_kept_and_the_argument_too(case: Case) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        for shape in ((D,), (3, D), (2, 3, D)):
            x = _draw(*shape, seed=10).to(dtype)
            before = x.clone()
            after = case.edit.apply(x)
            assert (after.dtype, after.shape) == (dtype, x.shape)
            assert torch.equal(x, before)
            assert after.data_ptr() != x.data_ptr()


def the_same_every_time_whatever_the_random_state(case: Case) -> None:
    x = _draw(4, D, seed=11)
    first = case.edit.apply(x)
    state = torch.random.get_rng_state()
    torch.rand(3)
    try:
        before = torch.random.get_rng_state()
        assert torch.equal(case.edit.apply(x), first)
        assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        torch.random.set_rng_state(state)


def difference_is_the_linear_part(case: Case) -> None:
    if case.linear is None:
        return
    x, y = _draw(4, D, seed=12), _draw(4, D, seed=13)
    gap = case.edit.apply(x) - case.edit.apply(y)
    torch.testing.assert_close(gap, (x - y) @ case.linear.T, rtol=0, atol=1e-12)


def first_rows_do_not_see_the_others(case: Case) -> None:
    # 40 rows of 6: torch's normal numbers change their order at 16 entries.
    x = _draw(40, D, seed=14)
    for count in (1, 2, 3, 39):
        torch.testing.assert_close(case.edit.apply(x[:count]), case.edit.apply(x)[:count], rtol=0, atol=1e-14)


def a_batch_is_a_loop(case: Case) -> None:
    if isinstance(case.edit, Noise):
        return  # a row's noise depends on its place; `first_rows_do_not_see_the_others` holds it
    x = _draw(2, 3, D, seed=15)
    loop = torch.stack([torch.stack([case.edit.apply(row) for row in rows]) for rows in x])
    torch.testing.assert_close(case.edit.apply(x), loop, rtol=0, atol=1e-14)
    torch.testing.assert_close(vmap(vmap(case.edit.apply))(x), loop, rtol=0, atol=1e-14)


def single_precision_is_near_double(case: Case) -> None:
    x = _draw(4, D, seed=16)
    # 6 entries of size 1-3: a few units of 1.2e-7 each.
    torch.testing.assert_close(case.edit.apply(x.float()).double(), case.edit.apply(x), rtol=0, atol=5e-6)


def derivative_is_the_central_difference(case: Case) -> None:
    x, v, step = _draw(4, D, seed=17), _draw(4, D, seed=18), 1e-5
    _, tangent = jvp(case.edit.apply, (x,), (v,))
    quotient = (case.edit.apply(x + step * v) - case.edit.apply(x - step * v)) / (2 * step)
    torch.testing.assert_close(tangent, quotient, rtol=0, atol=1e-8)  # step^2 and eps / step, with margin


def sizes_map_like_a_loop_from_the_identity(case: Case) -> None:
    if case.edit.size_field is None:
        return
    x, sizes = _draw(4, D, seed=19), torch.linspace(0, 1.5, 4, dtype=torch.float64)
    loop = torch.stack([case.edit.scaled(float(size)).apply(x) for size in sizes])
    torch.testing.assert_close(vmap(lambda size: case.edit.scaled(size).apply(x))(sizes), loop, rtol=0, atol=1e-14)
    torch.testing.assert_close(loop[0], x, rtol=0, atol=1e-14)
    assert not torch.allclose(loop[1], loop[2])


LAWS: list[Callable[[Case], None]] = [
    shape_and_dtype_are_kept_and_the_argument_too,
    the_same_every_time_whatever_the_random_state,
    difference_is_the_linear_part,
    first_rows_do_not_see_the_others,
    a_batch_is_a_loop,
    single_precision_is_near_double,
    derivative_is_the_central_difference,
    sizes_map_like_a_loop_from_the_identity,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_edit_meets_every_law(case, law):
    law(case)


def test_every_edit_is_registered():
    # Values for the rows of one batch are no map of vectors: sweeps and whole layers have theirs, tested with them.
    others = (".sweep_routes", ".whole_values")
    of_vectors = {kind for kind in Edit.__subclasses__() if not kind.__module__.endswith(others)}
    assert {type(case.edit) for case in CASES} == of_vectors - {Planted}


@dataclass(frozen=True, eq=False)
class Planted(Edit):
    """An edit with a bug of the tester's choice: `bug(x, size)`."""

    bug: Callable[[Tensor, Any], Tensor]
    size: Any = 1.0
    size_field: ClassVar[str | None] = "size"

    @property
    def width(self) -> int | None:
        return None

    def _edited(self, x: Tensor) -> Tensor:
        return self.bug(x, self.size)

    def apply(self, x: Tensor) -> Tensor:
        return self._edited(x)  # without the cast back that every sound edit gets


BUGS: dict[str, Callable[[Tensor, Any], Tensor]] = {
    "shape_and_dtype_are_kept_and_the_argument_too": lambda x, size: x.add_(size),
    "the_same_every_time_whatever_the_random_state": lambda x, size: x + size * torch.rand_like(x),
    "difference_is_the_linear_part": lambda x, size: 2 * x,
    "first_rows_do_not_see_the_others": lambda x, size: x + size * x.reshape(-1, D).mean(dim=0),
    "a_batch_is_a_loop": lambda x, size: x + size * x.reshape(-1, D)[0],
    "single_precision_is_near_double": lambda x, size: x + size * 1e6 - size * 1e6,
    "derivative_is_the_central_difference": lambda x, size: x * x.detach(),
    "sizes_map_like_a_loop_from_the_identity": lambda x, size: x + size + 1e-9,
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_law_catches_its_planted_bug(law):
    case = Case(Planted(BUGS[law.__name__]), torch.eye(D, dtype=torch.float64))
    with pytest.raises(AssertionError):
        law(case)


def test_a_wrong_registration_is_caught():
    wrong = replace(CASES[4], linear=torch.eye(D, dtype=torch.float64) - CASES[4].linear)
    with pytest.raises(AssertionError, match="not close"):
        difference_is_the_linear_part(wrong)
