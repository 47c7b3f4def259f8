"""What plateaus are measured on: anything that answers for many replaced activations at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.readouts import log_sum_exp

Readout = str
READOUTS: tuple[Readout, ...] = ("kl", "l2", "cosine")
CHUNK = 1024  # points answered for at once, fewer when there are many classes
LOGITS = 1 << 22  # logits held at once


@final
@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a network gives for each point: logits of its predictions where it has them, and a late activation."""

    late: Float[Tensor, "n width"]
    logits: Float[Tensor, "n classes"] | None = None


@runtime_checkable
class Responder(Protocol):
    """A network as a function of the activation at one site, for one prompt (row) or several.

    `base` holds the clean activation of each row, shape (rows, d). `outputs(points, rows)` replaces the activation of
    row `rows[i]` by `points[i]` and gives what comes out; it can be differentiated with respect to the points.
    """

    base: Tensor

    def outputs(self, points: Tensor, rows: Tensor) -> Outputs:
        """Outputs at each point, one row's context each."""
        ...


@final
@dataclass
class FunctionResponder:
    """Any function of activations as a responder: `function(points) -> outputs`, row by row, the same for all prompts.

    Args:
        function: From (n, d) to (n, outputs).
        base: Clean activations, (rows, d).
        is_logits: Whether outputs are logits of a distribution; if not, it has no KL.

    >>> responder = FunctionResponder(lambda points: 2 * points, torch.zeros(1, 3), is_logits=False)
    >>> responder.outputs(torch.ones(1, 3), torch.tensor([0])).late.tolist()
    [[2.0, 2.0, 2.0]]
    """

    function: Callable[[Tensor], Tensor]
    base: Float[Tensor, "rows d"]
    is_logits: bool = True
    num_evaluations: int = field(default=0, init=False)

    def outputs(self, points: Float[Tensor, "n d"], rows: Int[Tensor, " n"]) -> Outputs:
        """The function at the points; `rows` are not looked at."""
        self.num_evaluations += len(points)
        found = self.function(points)
        return Outputs(late=found, logits=found if self.is_logits else None)


@final
class Comparer:
    """Distances of outputs from those of reference points, as one differentiable function of points.

    The references are bases of their own: a random base is compared with what *it* gives, not with the clean prompt.

    Args:
        responder: Answers for points.
        references: Base of each group of points, (groups, d).
        rows: Prompt in whose context each group lies.
        readouts: Which distances.

    Raises:
        BadInput: If a readout is unknown, KL is asked of outputs without logits, or the width is another.
    """

    def __init__(
        self,
        responder: Responder,
        references: Float[Tensor, "groups d"],
        rows: Int[Tensor, " groups"],
        readouts: tuple[Readout, ...],
    ) -> None:
        check_readouts(readouts)
        width = responder.base.shape[-1]
        if references.shape[-1] != width:
            raise BadInput(
                "bases", got=f"width {references.shape[-1]}", wanted=f"{width}, the width of activations at the site"
            )
        self.responder, self.rows, self.readouts = responder, rows, readouts
        with torch.no_grad():
            found = [self._outputs(part, of) for part, of in _chunks(references, rows, CHUNK)]
        self._late = torch.cat([one.late for one in found]).double()
        self._prediction: Tensor | None = None
        self._chunk = CHUNK
        if "kl" in readouts:
            logits = torch.cat([required_logits(one) for one in found])
            self._prediction = logits.double().softmax(dim=-1).to(torch.promote_types(logits.dtype, torch.float32))
            self._level = self._bracket(logits, torch.arange(len(logits), device=logits.device))
            self._chunk = max(32, min(CHUNK, LOGITS // logits.shape[-1]))

    def distances(self, points: Float[Tensor, "n d"], groups: Int[Tensor, " n"]) -> dict[Readout, Tensor]:
        """Each distance of each point from the reference of its group, float64, without gradients."""
        parts: dict[Readout, list[Tensor]] = {readout: [] for readout in self.readouts}
        with torch.no_grad():
            for some, of in _chunks(points, groups, self._chunk):
                for readout, values in self.differentiable(some, of).items():
                    parts[readout].append(values)
        return {readout: torch.cat(values) for readout, values in parts.items()}

    def differentiable(self, points: Float[Tensor, "n d"], groups: Int[Tensor, " n"]) -> dict[Readout, Tensor]:
        """As `distances`, in one piece and with gradients."""
        outputs = self._outputs(points, self.rows[groups])
        before, after = self._late[groups], outputs.late.double()
        found: dict[Readout, Tensor] = {}
        if self._prediction is not None:
            # Below 0 only by rounding; the gradient there must not vanish, so no clamp.
            found["kl"] = self._bracket(required_logits(outputs), groups) - self._level[groups]
        if "l2" in self.readouts:
            found["l2"] = (after - before).norm(dim=-1)
        if "cosine" in self.readouts:
            found["cosine"] = torch.nn.functional.cosine_similarity(after, before, dim=-1)
        return found

    def _bracket(self, logits: Tensor, groups: Tensor) -> Float[Tensor, " n"]:
        """Cross-entropy against the prediction of each group, `lse(z) - p.z`: sums in float32, the rest in float64."""
        assert self._prediction is not None
        logits = logits.to(self._prediction.dtype)
        return log_sum_exp(logits) - (logits * self._prediction[groups]).sum(dim=-1).double()

    def _outputs(self, points: Tensor, rows: Tensor) -> Outputs:
        return self.responder.outputs(points.to(self.responder.base), rows)


def required_logits(outputs: Outputs) -> Float[Tensor, "n classes"]:
    """The logits, for whoever cannot do without.

    Raises:
        BadInput: If there are none.
    """
    if outputs.logits is None:
        raise BadInput(
            "KL divergence",
            got="a model without logits",
            wanted="next-token predictions, or logits of classes",
            remedy="Use readouts=('l2', 'cosine'): distances of late activations.",
        )
    return outputs.logits


def check_readouts(readouts: tuple[Readout, ...]) -> None:
    """Refuse what is no readout, before anything is computed.

    Raises:
        BadInput: If one is unknown, or there are none.
    """
    strange = [readout for readout in readouts if readout not in READOUTS]
    if strange or not readouts:
        raise BadInput("readouts", got=", ".join(strange) or "none", wanted=f"some of {', '.join(READOUTS)}")


def _chunks(points: Tensor, rows: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(torch.split(points, size), torch.split(rows.to(points.device), size), strict=True))
