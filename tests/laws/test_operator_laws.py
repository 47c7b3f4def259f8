"""Every registered operator meets every law, and every law catches the bug that was planted for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.laws.operator_cases import CASES, ONCE, Case, Maker, dense, filled, matrix
from tests.laws.operator_laws import LAWS, NEEDS_FRESH
from tests.laws.training_cases import TRAINING_CASES
from tremorscope.instruments.operators import LinearOperator


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", CASES)
def test_law(case: str, law: str) -> None:
    LAWS[law]((CASES if law in NEEDS_FRESH else ONCE)[case])


class Planted(LinearOperator):
    """A dense matrix, honest until a subclass lies about one thing."""

    symmetric = False

    def __init__(self, dense: Tensor) -> None:
        self.dense_, self.num_calls = dense, 0
        with torch.random.fork_rng(devices=[]):
            self.module = filled(nn.Linear(2, 2), torch.float64)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.dense_.shape
        return rows, columns

    @property
    def dtype(self) -> torch.dtype:
        return self.dense_.dtype

    @property
    def device(self) -> torch.device:
        return self.dense_.device

    @property
    def is_symmetric(self) -> bool:
        return self.symmetric

    def forward_block(self, vectors: Tensor) -> Tensor:
        return self.dense_ @ vectors

    def adjoint_block(self, vectors: Tensor) -> Tensor:
        return self.dense_.T @ vectors


class WrongMatrix(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        return self.dense_ @ vectors + 1e-7 * vectors.sum()


class WrongAdjoint(Planted):
    def adjoint_block(self, vectors: Tensor) -> Tensor:
        return self.dense_ @ vectors


class NotLinear(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        return self.dense_ @ vectors + 1e-6 * vectors.square()


class BlockDiffers(Planted):
    """What a vmap that mixes its columns would do."""

    def forward_block(self, vectors: Tensor) -> Tensor:
        return self.dense_ @ vectors.roll(1, dims=1)


class ForgetsItsTranspose(Planted):
    """Right forwards; backwards, minus what it should be."""

    def adjoint_block(self, vectors: Tensor) -> Tensor:
        return -(self.dense_.T @ vectors)


class FalselySymmetric(Planted):
    symmetric = True


class DrownsInFloat32(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        large = 1e5 * vectors.abs().max()
        return self.dense_ @ ((vectors + large) - large)


class Forgetful(Planted):
    """The bug of a replayed linearisation that writes into its own constants."""

    def forward_block(self, vectors: Tensor) -> Tensor:
        self.num_calls += 1
        return self.dense_ @ vectors * (1 + 1e-12 * self.num_calls)


class TouchesTheModule(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        self.module.weight.grad = torch.zeros_like(self.module.weight)
        return self.dense_ @ vectors


class FlipsTheMode(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        self.module.eval()
        return self.dense_ @ vectors


class WritesToItsArgument(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        result = self.dense_ @ vectors
        vectors.mul_(1 + 1e-12)
        return result


class DrawsGlobally(Planted):
    def forward_block(self, vectors: Tensor) -> Tensor:
        torch.rand(1)
        return self.dense_ @ vectors


BUGS: list[tuple[str, type[Planted]]] = [
    ("agrees_with_the_dense_matrix", WrongMatrix),
    ("adjoint", WrongAdjoint),
    ("linear", NotLinear),
    ("block_equals_loop", BlockDiffers),
    ("transposes_twice", ForgetsItsTranspose),
    ("symmetric_as_promised", FalselySymmetric),
    ("composes", ForgetsItsTranspose),
    ("restricts", WrongMatrix),
    ("pieces_of_the_data_make_the_same_whole", WrongMatrix),
    ("float32_is_near_float64", DrownsInFloat32),
    ("repeats_itself", Forgetful),
    ("leaves_everything_as_it_was", TouchesTheModule),
    ("leaves_everything_as_it_was", FlipsTheMode),
    ("leaves_everything_as_it_was", WritesToItsArgument),
    ("leaves_everything_as_it_was", DrawsGlobally),
]


def planted(bug: type[Planted]) -> Maker:
    def make(dtype: torch.dtype) -> Case:
        operator = bug(matrix(6, 6, 0, dtype))
        return Case(operator, operator.dense_, operator.module, Planted(operator.dense_))

    return make


@pytest.mark.parametrize("law", LAWS)
def test_the_planted_operator_is_honest_without_its_bug(law: str) -> None:
    LAWS[law](planted(Planted))


@pytest.mark.parametrize(("law", "bug"), BUGS, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_the_law_catches_its_planted_bug(law: str, bug: type[Planted]) -> None:
    with pytest.raises(AssertionError):
        LAWS[law](planted(bug))


def test_training_is_among_the_operators() -> None:
    assert set(TRAINING_CASES) <= set(CASES)


def test_every_law_has_a_planted_bug() -> None:
    assert {law for law, _ in BUGS} == set(LAWS)


def test_the_registry_makes_the_same_numbers_in_every_dtype() -> None:
    torch.testing.assert_close(dense(torch.float32).dense.double(), dense(torch.float64).dense, rtol=1e-6, atol=0)
