"""One look at a forward pass: what every module took and returned, on a few tokens or examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.task import Batch

if TYPE_CHECKING:
    from tremorscope.instruments.network import Network

ROWS, LENGTH = 2, 6
SLACK = 8  # units of rounding by which two sides of an identity may differ


@final
@dataclass
class Seen:
    """The last call of one module."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    calls: int = 0

    @property
    def taken(self) -> tuple[str, Tensor] | None:
        """The hidden states that went in, and the port they came through."""
        if self.args and _is_real(self.args[0]):
            return "in.0", self.args[0]
        for name in ("hidden_states", "x", "input", "inputs", "hidden", "src"):
            if _is_real(self.kwargs.get(name)):
                return f"kwarg.{name}", self.kwargs[name]
        return None

    @property
    def given(self) -> Tensor | None:
        """What came out first."""
        first = self.output
        if isinstance(first, tuple | list) and first:
            first = first[0]
        return first if _is_real(first) else None


def watch(network: Network, batch: Batch, paths: Iterable[str]) -> tuple[dict[str, Seen], Any]:
    """What the modules at the paths saw in one forward pass, and what the network returned; values are copies."""
    seen = {path: Seen() for path in paths}
    with _watched(network.module, seen), torch.no_grad():
        output = network.output(network.params, batch)
    return {path: one for path, one in seen.items() if one.calls}, output


@contextmanager
def _watched(module: nn.Module, seen: dict[str, Seen]) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for path, one in seen.items():
            part = module.get_submodule(path)

            def before(_: Any, args: Any, kwargs: Any, one: Seen = one) -> None:
                one.args, one.kwargs = _copied(args), _copied(kwargs)

            def after(_: Any, __: Any, output: Any, one: Seen = one) -> None:
                one.output, one.calls = _copied(output), one.calls + 1

            handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(part.register_forward_hook(after))
        yield
    finally:
        for handle in handles:
            handle.remove()


def made_up_batch(network: Network, *, length: int = LENGTH) -> Batch | None:
    """A few tokens for a module that takes them, else a few examples of the task; None where neither is known.

    Tokens are the same ones every time, without padding.
    """
    config = getattr(network.module, "config", None)
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is None and network.tokenizer is not None and hasattr(network.tokenizer, "__len__"):
        vocabulary = len(network.tokenizer)
    if isinstance(vocabulary, int) and vocabulary > 0:
        tokens = (torch.arange(ROWS * length, device=network.device) * 7 + 3).reshape(ROWS, length) % vocabulary
        kwargs: dict[str, Any] = {"input_ids": tokens}
        if getattr(config, "is_encoder_decoder", False):
            kwargs["decoder_input_ids"] = tokens.flip(1)
        return Batch((), kwargs, None)
    if network.task is not None:
        inputs = network.task.inputs
        return Batch((inputs[:ROWS],), {}, None)
    return None


def required_batch(network: Network, batch: Batch | None) -> Batch:
    """The batch to look at.

    Raises:
        BadInput: If there is none and none can be made up.
    """
    found = batch or made_up_batch(network)
    if found is None:
        raise BadInput(
            f"sites of {network.name!r}",
            got="no batch to verify names with",
            wanted="some input",
            remedy="Call network.site_map(batch) first.",
        )
    return found


def differ(one: Tensor, other: Tensor) -> float:
    """Largest difference, in units of what rounding may do at this size; over 1 they are not the same."""
    if one.shape != other.shape:
        return float("inf")
    size = float(torch.maximum(one.abs().max(), other.abs().max()))
    rounding = SLACK * torch.finfo(one.dtype).eps * size
    gap = float((one.double() - other.double()).abs().max())
    return gap / rounding if rounding else (0.0 if gap == 0 else float("inf"))


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two values agree up to rounding."""
    return one is not None and other is not None and differ(one, other) <= 1


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return tuple(_copied(one) for one in value)
    if type(value) is dict:
        return {name: _copied(one) for name, one in value.items()}
    return value
