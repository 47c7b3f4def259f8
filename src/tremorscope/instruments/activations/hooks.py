"""Edits and recordings inside one forward pass: hooks that live as long as a `with`, and nothing written in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.containers import tensor_at, with_tensor
from tremorscope.instruments.activations.feature_axes import dimensions
from tremorscope.instruments.activations.places import Place
from tremorscope.instruments.activations.positions import Where, Window, choose
from tremorscope.instruments.site import Position

if TYPE_CHECKING:
    from tremorscope.instruments.edit import Edit


@final
@dataclass(frozen=True, kw_only=True)
class Tap:
    """What is done at a place: an edit, or (without one) a recording. `what` names it in errors."""

    place: Place
    what: str
    edit: Edit | None = None
    position: Position | None = None
    where: Where | None = None


@contextmanager
def tapped(module: nn.Module, taps: Sequence[Tap], window: Window) -> Iterator[list[Tensor | None]]:
    """Inside the `with`, calls of the module are edited and recorded; afterwards, also by exception, it is as it was.

    Taps at one tensor act in their order. Yields the recordings, in the order of the taps; None for edits.

    Raises:
        BadInput: At the end, if a module with a tap was not called, or was called more than once where its value is
            recorded.
    """
    found: list[Tensor | None] = [None] * len(taps)
    hooks: dict[str, _Hooks] = {}
    for index, tap in enumerate(taps):
        for path in (tap.place.module, tap.place.carry):
            if path is not None and path not in hooks:
                hooks[path] = _Hooks(module.get_submodule(path), window, found)
        hooks[tap.place.module].taps.append((index, tap))
        if tap.edit is not None and tap.place.carry is not None:
            hooks[tap.place.carry].carried_from.append(hooks[tap.place.module])
    handles: list[Any] = []
    try:
        for hook in hooks.values():
            handles.append(hook.module.register_forward_pre_hook(_Ours(hook.before), with_kwargs=True))
            handles.append(hook.module.register_forward_hook(_Ours(hook.after), with_kwargs=True))
        yield found
    finally:
        for handle in handles:
            handle.remove()
    for name, called in hooks.items():
        called.check_calls(name)


def leftover_hooks(module: nn.Module) -> int:
    """How many hooks of ours a module and its parts still have; those of others are not counted."""
    return sum(
        isinstance(hook, _Ours)
        for part in module.modules()
        for hook in [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
    )


def assert_clean(module: nn.Module) -> None:
    """Make sure that no hook of ours is left.

    Raises:
        BadInput: If one is: a bug of ours, or a call from inside a forward pass.
    """
    count = leftover_hooks(module)
    if count:
        raise BadInput(f"hooks on {type(module).__name__}", got=count, wanted="none outside a forward pass")


@final
class _Ours:
    """A hook that is known as ours."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


@final
class _Hooks:
    """The taps of one module."""

    def __init__(self, module: nn.Module, window: Window, found: list[Tensor | None]) -> None:
        self.module, self.window, self.found = module, window, found
        self.taps: list[tuple[int, Tap]] = []
        self.carried_from: list[_Hooks] = []
        self.change: Tensor | None = None  # what was done to a value that goes on beside this module
        self.num_calls = 0

    def before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self.num_calls += 1
        self.change = None
        for index, tap in self.taps:
            kind, name = tap.place.port.split(".", 1)
            if kind == "kwarg":
                value = kwargs.get(name)
                if not isinstance(value, Tensor):
                    raise BadInput(tap.what, got=_call(args, kwargs), wanted=f"a tensor as keyword {name}")
                kwargs = {**kwargs, name: self._through(index, tap, value)}
            elif kind == "in":
                if tap.place.path[0] >= len(args):
                    raise BadInput(
                        tap.what,
                        got=_call(args, kwargs),
                        wanted=f"at least {tap.place.path[0] + 1} without keywords",
                        remedy=f"Write kwarg.{next(iter(kwargs))} for in.{tap.place.path[0]}." if kwargs else None,
                    )
                value = tensor_at(args, tap.place.path, tap.what)
                args = with_tensor(args, tap.place.path, self._through(index, tap, value))
        return args, kwargs

    def after(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        for index, tap in self.taps:
            if tap.place.port.startswith("out."):
                value = tensor_at(output, tap.place.path, tap.what)
                output = with_tensor(output, tap.place.path, self._through(index, tap, value))
        for origin in self.carried_from:
            if origin.change is not None:
                output = with_tensor(output, (0,), tensor_at(output, (0,), "output") + origin.change)
        return output

    def check_calls(self, path: str) -> None:
        for _, tap in self.taps:
            if self.num_calls == 0:
                raise BadInput(
                    tap.what,
                    got=f"a forward pass that never calls {path!r}",
                    wanted="a module that this pass goes through",
                    remedy="Fused layers and branches not taken leave modules out: choose the module around it.",
                )
            if tap.edit is None and self.num_calls > 1:
                raise BadInput(
                    tap.what,
                    got=f"{self.num_calls} calls of {path!r} in one forward pass",
                    wanted="one value to record",
                    remedy="Choose a module that is called once.",
                )

    def _through(self, index: int, tap: Tap, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            raise BadInput(
                tap.what,
                got=f"a tensor of {value.dtype}",
                wanted="real numbers",
                remedy="Token numbers and quantised weights cannot be moved by degrees: take the output of a layer.",
            )
        x = self._by_position(tap, value)
        columns = slice(*tap.place.columns) if tap.place.columns else slice(None)
        part = x[..., columns]
        chosen = choose(tap.position, tap.where, self.window, part, tap.what)
        if tap.edit is None:
            self.found[index] = part.clone() if chosen is None else chosen.take(part)
            return value
        taken = part if chosen is None else chosen.take(part)
        if tap.edit.width not in (None, taken.shape[-1]):
            raise BadInput(
                tap.what,
                got=f"{tap.edit.width} entries in the edit",
                wanted=f"{taken.shape[-1]}, the width of the value there",
            )
        new = tap.edit.apply(taken) if taken.numel() else taken
        new = new if chosen is None else chosen.put(part, new)
        if tap.place.columns is not None:
            new = torch.cat([x[..., : columns.start], new, x[..., columns.stop :]], dim=-1)
        if tap.place.carry is not None:
            self.change = new - x if self.change is None else self.change + (new - x)
        return self._as_given(tap, value, new)

    def _by_position(self, tap: Tap, value: Tensor) -> Tensor:
        """The value as [rows, positions, ..., features]: of a map, [rows, pixels, channels]."""
        if tap.place.features == "unknown" and (
            tap.edit is not None or tap.position is not None or tap.where is not None
        ):
            raise BadInput(
                tap.what,
                got=f"a value of shape {tuple(value.shape)}, of which nothing tells where its features lie",
                wanted="the output of a convolution, a pooling or their normalisation (channels), or of a linear layer",
                remedy="Choose the module that makes this value, or the one that reads it (with :in.0).",
            )
        if tap.place.features == "channels" and value.ndim > 2:
            axes = dimensions(self.module)
            if axes is not None and value.ndim != axes:
                raise BadInput(
                    tap.what,
                    got=f"a map of shape {tuple(value.shape)}",
                    wanted=f"{axes} axes: rows, channels, and those of the pixels",
                    remedy="Give the network a batch.",
                )
            return value.movedim(1, -1).flatten(1, -2)
        return value.transpose(0, 1) if self._is_time_first(tap, value) else value

    def _as_given(self, tap: Tap, value: Tensor, new: Tensor) -> Tensor:
        """What `_by_position` made, in the shape of the value again."""
        if tap.place.features == "channels" and value.ndim > 2:
            # In one piece: what comes next may be a `view`.
            return new.movedim(-1, 1).reshape(value.shape).contiguous()
        return new.transpose(0, 1) if self._is_time_first(tap, value) else new

    def _is_time_first(self, tap: Tap, value: Tensor) -> bool:
        """PyTorch's own recurrent layers have positions before rows, unless told otherwise."""
        is_sequence = tap.place.path == (0,) and value.ndim == 3
        return is_sequence and isinstance(self.module, nn.RNNBase) and not self.module.batch_first


def _call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    words = f"a call with {len(args)} arguments"
    return f"{words} and the keywords {', '.join(kwargs)}" if kwargs else words
