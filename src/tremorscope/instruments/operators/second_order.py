"""Three ways to multiply by the Hessian of one scalar function at one point."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functionalize, grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from tremorscope.instruments.operators.operator import columnwise
from tremorscope.instruments.operators.tangent_replay import replayed_tangents

Route = Literal["linearize", "double_backward", "finite_difference"]
ScalarFunction = Callable[[Tensor], Tensor]
VectorFunction = Callable[[Tensor], Tensor]
BlockProduct = Callable[[Tensor], Tensor]
"""Takes `[n, k]`, gives `[n, k]`."""


@final
@dataclass(frozen=True)
class WithFixed:
    """A function of the parameters that move, with those that stand still as an argument of their own."""

    function: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    fixed: Mapping[str, Tensor]

    def __call__(self, theta: Float[Tensor, " params"]) -> Tensor:
        """The value."""
        return self.function(theta, self.fixed)

    def then(self, outer: VectorFunction) -> WithFixed:
        """`outer` of the value."""
        return WithFixed(lambda theta, fixed: outer(self.function(theta, fixed)), self.fixed)


def without_writes(transform: Callable[[VectorFunction], VectorFunction], function: VectorFunction) -> VectorFunction:
    """`transform(function)` without operations that write, wherever the module works in place (GRU cells do, and
    attention on weights that stand still): what is recorded of it can be repeated.

    functionalize does that for tensors that it is given, so the fixed ones are given to it as well.
    """  # noqa: D205
    if not isinstance(function, WithFixed):
        return functionalize(transform(function))

    def whole(theta: Tensor, fixed: Mapping[str, Tensor]) -> Tensor:
        return transform(lambda at: function.function(at, fixed))(theta)

    def traced(theta: Tensor) -> Tensor:
        result: Tensor = functionalize(whole)(theta, function.fixed)
        return result

    return traced


@contextmanager
def exact_derivatives(device: torch.device) -> Iterator[None]:
    """Conditions under which every module has as many derivatives as it can, and no trace is left behind.

    Fused attention and the fused transformer layer have no second derivative; their plain forms have. The
    random state is put back, should the forward pass draw from it.
    """
    with (
        _plain_transformer_layers(),
        torch.enable_grad(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        sdpa_kernel(SDPBackend.MATH),
        warnings.catch_warnings(),
    ):
        # pytorch #94374: the constant folding inside linearize warns about itself.
        warnings.filterwarnings("ignore", message="Attempted to insert a get_attr Node", category=UserWarning)
        # PyTorch deprecates what it uses itself; where warnings are errors that would look like a missing rule.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
        warnings.filterwarnings("ignore", message="There is a performance drop because we have not yet implemented")
        yield


@contextmanager
def _plain_transformer_layers() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def gradient_at(loss: ScalarFunction, theta: Float[Tensor, " params"]) -> Float[Tensor, " params"]:
    """Gradient by an ordinary backward pass: the least that a module must support."""
    point = theta.detach().clone().requires_grad_()
    value = loss(point)
    if not value.requires_grad:  # these parameters are not used
        return torch.zeros_like(theta)
    (gradient,) = torch.autograd.grad(value, point, materialize_grads=True)
    return gradient.detach()


def linearised(loss: ScalarFunction, theta: Float[Tensor, " params"]) -> BlockProduct:
    """Forward over reverse, traced once and replayed: nothing that does not depend on the vector is done again."""
    return batched(replayed_tangents(without_writes(grad, loss), theta))


def forward_over_reverse(loss: ScalarFunction, theta: Float[Tensor, " params"]) -> BlockProduct:
    """The same derivative with nothing kept between products: no memory, several times the work."""
    gradient = grad(loss)

    def one(vector: Tensor) -> Tensor:
        result: Tensor = jvp(gradient, (theta,), (vector,))[1]
        return result

    return batched(one)


def double_backward(loss: ScalarFunction, theta: Float[Tensor, " params"]) -> BlockProduct:
    """Reverse over reverse, with the graph of the gradient kept."""
    point = theta.detach().clone().requires_grad_()
    value = loss(point)
    if not value.requires_grad:  # these parameters are not used
        return torch.zeros_like
    (gradient,) = torch.autograd.grad(value, point, create_graph=True, materialize_grads=True)
    return pulled_back(gradient, point)


def pulled_back(value: Float[Tensor, " rows"], point: Float[Tensor, " columns"]) -> BlockProduct:
    """`J^T U` of `value` with respect to `point`, from the graph between them, which is kept."""
    if not value.requires_grad:  # constant in these parameters
        return lambda cotangents: torch.zeros(len(point), cotangents.shape[1]).to(point)

    def products(cotangents: Tensor, *, together: bool) -> Tensor:
        (result,) = torch.autograd.grad(
            value, point, cotangents, retain_graph=True, materialize_grads=True, is_grads_batched=together
        )
        return result.detach()

    def block(cotangents: Tensor) -> Tensor:
        if cotangents.shape[1] > 1:
            return products(cotangents.T.contiguous(), together=True).T
        return products(cotangents[:, 0], together=False)[:, None]

    return block


def central_differences(loss: ScalarFunction, theta: Float[Tensor, " params"]) -> BlockProduct:
    """Two gradients per vector; relative error about eps^(2/3), and far worse across a kink."""
    # The step that balances truncation against rounding of a central difference.
    step = torch.finfo(theta.dtype).eps ** (1 / 3) * max(float(theta.norm()), 1.0)

    def one(vector: Tensor) -> Tensor:
        norm = float(vector.norm())
        if norm == 0:
            return torch.zeros_like(vector)
        shift = vector * (step / norm)
        change: Tensor = gradient_at(loss, theta + shift) - gradient_at(loss, theta - shift)
        return change.mul_(norm / (2 * step))

    return lambda vectors: columnwise(one, vectors)


BUILDERS: dict[Route, Callable[[ScalarFunction, Tensor], BlockProduct]] = {
    "linearize": linearised,
    "double_backward": double_backward,
    "finite_difference": central_differences,
}


def batched(one: Callable[[Tensor], Tensor]) -> BlockProduct:
    """A product with one vector as a product with a block; a single column pays nothing for vmap."""

    def block(vectors: Tensor) -> Tensor:
        if vectors.shape[1] > 1:
            result: Tensor = vmap(one, in_dims=1, out_dims=1)(vectors)
            return result
        return one(vectors[:, 0])[:, None]

    return block


def saved_bytes(function: VectorFunction, theta: Float[Tensor, " params"]) -> int:
    """Bytes that one forward pass keeps for its backward: the unit in which blocks and batches are budgeted."""
    return _counted(function, theta)[1]


def value_and_saved_bytes(loss: ScalarFunction, theta: Float[Tensor, " params"]) -> tuple[float, int]:
    """The loss, and the bytes that its forward pass keeps for its backward."""
    value, saved = _counted(loss, theta)
    return float(value), saved


def _counted(function: VectorFunction, theta: Tensor) -> tuple[Tensor, int]:
    held: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> int:
        # Detached: an output that its own node saves by way of a hook would keep itself alive for ever. Held until
        # the end, so that no address is used twice.
        plain = tensor.detach()
        held[plain.untyped_storage().data_ptr()] = plain
        return 0

    with torch.autograd.graph.saved_tensors_hooks(note, _never_unpacked):
        value = function(theta.detach().clone().requires_grad_()).detach()
    return value, sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def _never_unpacked(_: int) -> Tensor:
    raise AssertionError("nothing goes backwards here")
