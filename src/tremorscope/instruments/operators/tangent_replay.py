"""A derivative at one point as the list of operations that depend on the vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

_FORBIDDEN = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class NotReplayable(RuntimeError):
    """A derivative whose operations cannot be made again with another vector."""


@final
@dataclass(frozen=True)
class _Slot:
    """Stands in the arguments of a step for a value that an earlier step has made; the vector is number 0."""

    number: int


@final
@dataclass(frozen=True)
class _Constant:
    """Stands in the arguments of a step, while it is recorded, for a tensor that does not depend on the vector."""

    number: int


@final
@dataclass(frozen=True)
class _Step:
    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    made: tuple[int | None, ...]  # slots of the results, None for a result that is no tensor
    is_sequence: bool
    writes: bool


def replayed_tangents(
    function: Callable[[Tensor], Tensor], at: Float[Tensor, " columns"]
) -> Callable[[Tensor], Tensor]:
    """`v -> J v` of `function` at one point, differentiated forward once and replayed.

    During one forward-mode pass every operation is seen below autograd. Those that depend on the vector are kept, in
    order; all else has been computed by then and is held as what it was. `torch.func.linearize` does the same by
    tracing everything and folding constants afterwards, which takes as long as ten products, and its folding stops
    at operations that write, so that second derivatives of activations are computed anew in every product.

    Cost: one forward-mode pass; a product is the operations that depend on the vector. Memory: the constants that
    they take.

    >>> product = replayed_tangents(lambda x: (x * x).sum()[None], torch.tensor([1.0, 3.0]))
    >>> product(torch.tensor([1.0, 1.0]))
    tensor([8.])

    Raises:
        NotReplayable: If a number or a random draw depends on the vector, or the vector is written into a constant.
        Exception: Whatever torch raises where an operation has no forward rule.
    """
    # Which one does not matter, a derivative is linear, but no two entries are alike: what is linear shows.
    vector = torch.arange(1, at.numel() + 1, device=at.device, dtype=torch.float64).sin().to(at).reshape(at.shape)
    recorder = _Recorder(vector)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(at, vector)  # type: ignore[no-untyped-call]
        with recorder:
            result = function(dual)
        tangent = forward_ad.unpack_dual(result).tangent  # type: ignore[no-untyped-call]
        shape, place = result.shape, None if tangent is None else recorder.slots.get(tangent)  # type: ignore[no-untyped-call]
    if place is None:  # a function that does not depend on the point
        zeros = torch.zeros(shape, dtype=result.dtype, device=result.device)
        return lambda _: zeros.clone()
    return _Replay(recorder, place)


@final
class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operation and keeps those that take the vector or what was made of it."""

    def __init__(self, vector: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[_Step] = []
        self.constants: list[Tensor] = []
        self.slots = WeakTensorKeyDictionary({vector: 0})
        self.num_slots = 1
        self._vector_storage = _storage(vector)
        self._held: dict[int, list[int]] = {}  # constants by where their entries lie

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        written = _written(operation, args, kwargs)
        if not any(tensor in self.slots for tensor in _tensors((args, kwargs))):
            for tensor in written:
                self._keep_as_it_was(tensor)
            return operation(*args, **kwargs)
        if not _FORBIDDEN.isdisjoint(operation.tags):
            raise NotReplayable(f"{operation} of a tangent would have to be decided anew for another one")
        for tensor in written:
            place = _storage(tensor)
            if tensor not in self.slots or place == self._vector_storage or place in self._held:
                raise NotReplayable(f"{operation} writes a tangent into what does not depend on it")
        kept_args, kept_kwargs = self._planned(args), self._planned(kwargs)
        result = operation(*args, **kwargs)
        is_sequence = isinstance(result, list | tuple)
        made = tuple(self._slot(part) for part in (result if is_sequence else (result,)))
        if all(number is None for number in made):  # a question about shapes, already answered
            return result
        step = _Step(operation, kept_args, kept_kwargs, made, is_sequence, bool(written))
        simpler = self._as_factor(operation, args, kwargs, result, made) or self._as_expansion(
            operation, args, result, made
        )
        self.steps.append(simpler or step)
        return result

    def _as_expansion(
        self, operation: Any, args: tuple[Any, ...], result: Any, made: tuple[int | None, ...]
    ) -> _Step | None:
        """A tangent of a bias, to which the zero tangent of something larger is added, as a view; None otherwise."""
        if operation is not torch.ops.aten.add.Tensor or not isinstance(args[1], Tensor) or args[1] in self.slots:
            return None
        moving, constant = args
        if moving.shape == result.shape or moving.dtype != result.dtype or bool(constant.any()):
            return None
        taken = (_Slot(self.slots[moving]), list(result.shape))
        return _Step(torch.ops.aten.expand.default, taken, {}, made, is_sequence=False, writes=False)

    def _as_factor(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        result: Any,
        made: tuple[int | None, ...],
    ) -> _Step | None:
        """A tangent through an activation as one multiplication; None where it is something else.

        The derivative of an activation costs as much as the activation in every product, and is the same each time.
        """
        name = operation.overloadpacket.__name__
        if (
            not name.endswith("_backward")
            or torch.Tag.pointwise not in operation.tags
            or not isinstance(result, Tensor)
        ):
            return None
        if not args or not isinstance(moving := args[0], Tensor) or moving not in self.slots:
            return None
        if sum(tensor in self.slots for tensor in _tensors((args, kwargs))) != 1:
            return None
        if result.shape != moving.shape or result.dtype != moving.dtype:
            return None
        factor = operation(torch.ones_like(moving), *args[1:], **kwargs)
        gap = (moving * factor - result).abs().max() if result.numel() else result.new_zeros(())
        if not bool(gap <= 32 * torch.finfo(result.dtype).eps * result.abs().max()):
            return None
        taken = (_Slot(self.slots[moving]), self._constant(factor))
        return _Step(torch.ops.aten.mul.Tensor, taken, {}, made, is_sequence=False, writes=False)

    def _slot(self, part: object) -> int | None:
        if not isinstance(part, Tensor):
            return None
        number = self.num_slots
        self.slots[part] = number
        self.num_slots += 1
        return number

    def _planned(self, argument: Any) -> Any:
        """The same with tensors replaced by where they come from."""
        if isinstance(argument, Tensor):
            number = self.slots.get(argument)  # type: ignore[no-untyped-call]
            return _Slot(number) if number is not None else self._constant(argument)
        if isinstance(argument, list | tuple):
            return type(argument)(self._planned(part) for part in argument)
        if isinstance(argument, dict):
            return {name: self._planned(part) for name, part in argument.items()}
        return argument

    def _constant(self, tensor: Tensor) -> _Constant:
        self.constants.append(tensor.detach())
        number = len(self.constants) - 1
        self._held.setdefault(_storage(tensor), []).append(number)
        return _Constant(number)

    def _keep_as_it_was(self, tensor: Tensor) -> None:
        """Before a constant is overwritten: steps that took it must find what they took."""
        for number in self._held.pop(_storage(tensor), ()):
            self.constants[number] = self.constants[number].clone()


@final
class _Replay:
    """The steps that the result needs, with their constants in place."""

    def __init__(self, recorder: _Recorder, result: int) -> None:
        self._num_slots, self._result = recorder.num_slots, result
        self._steps: list[tuple[_Step, tuple[int, ...]]] = []
        wanted = {result}
        needed: list[tuple[_Step, tuple[int, ...]]] = []
        for step in reversed(recorder.steps):
            # A step that writes may change what a later one sees by another name.
            if not step.writes and wanted.isdisjoint(step.made):
                continue
            taken = set(_numbers((step.args, step.kwargs)))
            # Going backwards, what was not wanted before is used here for the last time.
            last = (taken | {number for number in step.made if number is not None}) - wanted
            wanted |= taken
            needed.append((step, tuple(last - {0})))
        for step, unused in reversed(needed):
            filled = _Step(
                step.operation,
                _filled(step.args, _Constant, recorder.constants),
                _filled(step.kwargs, _Constant, recorder.constants),
                step.made,
                step.is_sequence,
                step.writes,
            )
            self._steps.append((filled, unused))

    def __call__(self, vector: Float[Tensor, " columns"]) -> Float[Tensor, " rows"]:
        """`J v`."""
        values: list[Any] = [None] * self._num_slots
        values[0] = vector
        for step, last in self._steps:
            made = step.operation(*_filled(step.args, _Slot, values), **_filled(step.kwargs, _Slot, values))
            for number, part in zip(step.made, made if step.is_sequence else (made,), strict=True):
                if number is not None:
                    values[number] = part
            for number in last:
                values[number] = None
        result: Tensor = values[self._result]
        return result


def _filled(argument: Any, kind: type[_Slot] | type[_Constant], values: Sequence[Any]) -> Any:
    """The same with numbers of one kind replaced by their values."""
    if isinstance(argument, kind):
        return values[argument.number]
    if isinstance(argument, list | tuple):
        return type(argument)([_filled(part, kind, values) for part in argument])
    if isinstance(argument, dict):
        return {name: _filled(part, kind, values) for name, part in argument.items()}
    return argument


def _numbers(argument: Any) -> Iterator[int]:
    if isinstance(argument, _Slot):
        yield argument.number
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from _numbers(part)
    elif isinstance(argument, dict):
        yield from _numbers(list(argument.values()))


def _tensors(argument: Any) -> Iterator[Tensor]:
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, list | tuple):
        for part in argument:
            yield from _tensors(part)
    elif isinstance(argument, dict):
        yield from _tensors(list(argument.values()))


def _written(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Tensors among the arguments that the operation overwrites."""
    if not operation._schema.is_mutable:
        return []
    found: list[Tensor] = []
    for place, argument in enumerate(operation._schema.arguments):
        if argument.is_write:
            found += _tensors(args[place] if place < len(args) else kwargs.get(argument.name))
    return found


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
