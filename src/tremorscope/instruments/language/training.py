"""Training a causal language model on rows of tokens: mixed precision, resumable bit for bit, repeatable from a seed.

`Trainer` is the pure map that can be differentiated; this is the loop for models whose state is written to disk while
they learn, and whose data do not fit a `Task`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, final

import numpy
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor, nn
from torch.nn import functional

from tremorscope.foundations.arrays import read_arrays_and_metadata, write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.language.answers import DueAnswers, answer_loss
from tremorscope.instruments.trainer import diverged

Precision = Literal["float32", "bfloat16"]
Moments = dict[str, Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class LanguageTraining:
    """How to train: AdamW, linear warm-up, cosine to zero, gradients clipped by norm, each row seen once per epoch.

    Weight decay acts on matrices and not on biases, gains and other vectors.

    Args:
        batch_rows: Rows of a step.
        epochs: Times that all rows are seen, in a new order each time.
        learning_rate: The largest, after the warm-up.
        warmup_steps: Steps until then.
        weight_decay: Of AdamW, times the learning rate.
        beta1: Decay of the mean gradient.
        beta2: Decay of the mean squared gradient.
        largest_gradient: Norm to which the gradient is clipped.
        answer_weight: Of the loss of answers that are due (see `answers`), beside the loss of the next token.
        precision: "bfloat16" computes forward and backward in mixed precision; the weights stay in float32.
        seed: Names the order of the rows.
        threads: CPU threads; sums of another number of threads are rounded otherwise.
        save_every: Steps between writes of the state from which a killed training goes on; changes no number.
    """

    batch_rows: int = 16
    epochs: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.98
    largest_gradient: float = 1.0
    answer_weight: float = 0.0
    precision: Precision = "bfloat16"
    seed: int = 0
    threads: int = 1
    save_every: int = 500

    def __post_init__(self) -> None:
        for name in ("batch_rows", "epochs", "threads", "save_every"):
            if getattr(self, name) < 1:
                raise BadInput(name, got=getattr(self, name), wanted="at least 1")
        for name in ("learning_rate", "largest_gradient"):
            if not getattr(self, name) > 0:
                raise BadInput(name, got=getattr(self, name), wanted="more than 0")
        for name in ("weight_decay", "warmup_steps", "answer_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(name, got=getattr(self, name), wanted="0 or more")
        if not 0 <= self.beta1 < 1 or not 0 <= self.beta2 < 1:
            raise BadInput("beta1 and beta2", got=f"{self.beta1} and {self.beta2}", wanted="0 to 1, 1 not included")

    def num_steps(self, num_rows: int) -> int:
        """Updates for so many rows; rows that fill no batch are left out of an epoch."""
        return self.epochs * (num_rows // self.batch_rows)

    def rate(self, step: int, num_steps: int) -> float:
        """The learning rate of a step.

        >>> LanguageTraining(learning_rate=1.0, warmup_steps=10).rate(4, 100) < 0.5
        True
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / num_steps))


@final
@dataclass(frozen=True, kw_only=True)
class TrainingCurve:
    """Loss of every step's batch, in nats per token."""

    losses: Float[Tensor, " steps"]

    def smoothed(self, window: int = 50) -> tuple[list[int], list[float]]:
        """Steps, and the mean loss of the steps up to each since the one before."""
        ends = [*range(window, len(self.losses), window), len(self.losses)]
        starts = [0, *ends[:-1]]
        return ends, [float(self.losses[a:b].mean()) for a, b in zip(starts, ends, strict=True)]


def train_language_model(
    module: nn.Module,
    rows: UInt16[numpy.ndarray, "rows length"],
    training: LanguageTraining,
    *,
    answers: DueAnswers | None = None,
    state: Path | None = None,
    stop_at: int | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
    at_steps: Mapping[int, Callable[[nn.Module], None]] | None = None,
) -> TrainingCurve:
    """Train `module` in place to predict each token of a row from those before it.

    With one thread, equal weights at the start, rows and settings give equal weights at the end on one machine, also
    when the process is killed in between and called again with the same `state`.

    Args:
        module: Takes `input_ids` (rows x length) and returns logits, or an object with `.logits`. Without dropout, or
            in evaluation mode: nothing random is drawn here.
        rows: Tokens.
        training: How.
        answers: Words that are due in the text; wanted where `answer_weight` is not 0. The curve leaves their loss out.
        state: A file that holds weights, moments and losses every so many steps; training goes on from it.
        stop_at: Leave after this many steps in all, for an intermediate checkpoint; the learning rate keeps its course.
        on_step: Called after each step with its number (from 1), the number of all, and the loss.
        at_steps: Called with the module after these many steps, for checkpoints.

    Raises:
        BadInput: If there are too few rows, answers are missing or of another text, the state is of another training,
            or the loss stops being finite.
    """
    if training.answer_weight and (answers is None or answers.wanted.shape != rows.shape):
        raise BadInput(
            "answers that are due",
            got="none" if answers is None else f"shape {answers.wanted.shape}",
            wanted=f"{rows.shape}, that of the text, as answer_weight is {training.answer_weight:g}",
            remedy="Pass answers=..., or set answer_weight to 0.",
        )
    num_steps = training.num_steps(len(rows))
    if num_steps < 1:
        raise BadInput(
            "rows to train on",
            got=len(rows),
            wanted=f"at least one batch of {training.batch_rows}",
            remedy="Use more text, or smaller batches.",
        )
    last = num_steps if stop_at is None else min(stop_at, num_steps)
    device = next(module.parameters()).device
    identity = _identity(rows, training, module, answers)
    optimiser = _optimiser(module, training)
    losses = torch.full((num_steps,), torch.nan)
    first = 0 if state is None or not state.is_file() else _restore(state, identity, module, optimiser, losses)
    order = _order(len(rows), training)
    with _threads(training.threads):
        for step in range(first, last):
            for group in optimiser.param_groups:
                group["lr"] = training.rate(step, num_steps)
            chosen = numpy.sort(order(step))
            tokens = torch.from_numpy(rows[chosen].astype(numpy.int64)).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bfloat16"):
                output = module(tokens)
            logits = getattr(output, "logits", output)
            loss = next_token_loss(logits, tokens)
            value = loss.item()
            if training.answer_weight and answers is not None:
                wanted = torch.from_numpy(answers.wanted[chosen].astype(numpy.int64)).to(device)
                loss = loss + training.answer_weight * answer_loss(logits, wanted, answers.groups)
            if not math.isfinite(loss.item()):
                told = f"a loss of {loss.item()} ({value} of the next token)"
                raise diverged(step, f"{told}, learning rate {training.rate(step, num_steps):.3g}")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), training.largest_gradient)
            optimiser.step()
            losses[step] = value
            done = step + 1
            if at_steps is not None and done in at_steps:
                at_steps[done](module)
            if state is not None and (done % training.save_every == 0 or done == last):
                _save(state, identity, module, optimiser, losses, done)
            if on_step is not None:
                on_step(done, num_steps, value)
    module.zero_grad(set_to_none=True)
    return TrainingCurve(losses=losses[:last].clone())


def next_token_loss(
    logits: Float[Tensor, "rows length vocabulary"], tokens: Int[Tensor, "rows length"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of each token given those before it, in nats, in float32.

    >>> float(next_token_loss(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]])))  # log 4
    1.3862943649291992
    """
    flat = logits[:, :-1].reshape(-1, logits.shape[-1])
    return functional.cross_entropy(flat.float(), tokens[:, 1:].reshape(-1))


def _order(num_rows: int, training: LanguageTraining) -> Callable[[int], Int[numpy.ndarray, " batch"]]:
    """The rows of each step; one permutation is held at a time."""
    per_epoch = num_rows // training.batch_rows
    held: dict[int, numpy.ndarray] = {}

    def rows_of(step: int) -> Int[numpy.ndarray, " batch"]:
        epoch, place = divmod(step, per_epoch)
        if epoch not in held:
            held.clear()
            held[epoch] = numpy_generator(training.seed, "order of rows", epoch).permutation(num_rows)
        chosen: numpy.ndarray = held[epoch][place * training.batch_rows : (place + 1) * training.batch_rows]
        return chosen

    return rows_of


def _optimiser(module: nn.Module, training: LanguageTraining) -> torch.optim.AdamW:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [one for one in parameters if one.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=(training.beta1, training.beta2),
        fused=True,
    )


def _identity(rows: numpy.ndarray, training: LanguageTraining, module: nn.Module, answers: DueAnswers | None) -> str:
    """What a state on disk has to agree with: text, answers, settings and the names and shapes of the weights."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    text = sha256(numpy.ascontiguousarray(rows).tobytes()).hexdigest()
    settings = asdict(training)
    document: dict[str, Any] = {"training": settings, "rows": text, "shapes": shapes}
    if not training.answer_weight:  # changes nothing then, nor did it exist when older states were written
        del settings["answer_weight"]
    elif answers is not None:
        due = sha256(numpy.ascontiguousarray(answers.wanted).tobytes()).hexdigest()
        document |= {"answers": due, "groups": answers.groups}
    return json.dumps(document, sort_keys=True)


def _save(
    path: Path, identity: str, module: nn.Module, optimiser: torch.optim.AdamW, losses: Tensor, done: int
) -> None:
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    tensors: dict[str, Tensor] = {"losses": losses}
    tensors |= {f"weights.{name}": parameter.detach() for parameter, name in names.items()}
    for parameter, moments in optimiser.state.items():
        for kind, value in moments.items():
            tensors[f"{kind}.{names[parameter]}"] = value
    write_arrays(path, tensors, metadata={"identity": identity, "steps": str(done)})


def _restore(path: Path, identity: str, module: nn.Module, optimiser: torch.optim.AdamW, losses: Tensor) -> int:
    tensors, metadata = read_arrays_and_metadata(path)
    if metadata.get("identity") != identity:
        raise BadInput(
            f"training state {path}",
            got="that of another text, model or setting",
            wanted="the one that this training wrote",
            remedy="Train in another folder, or remove the file.",
        )
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(tensors[f"weights.{name}"])
            if parameter.requires_grad:
                optimiser.state[parameter] = {
                    # AdamW counts its steps on the CPU unless fused on a GPU; moments live with their weights.
                    kind: tensors[f"{kind}.{name}"].to(parameter.device)
                    for kind in ("step", "exp_avg", "exp_avg_sq")
                }
    losses.copy_(tensors["losses"])
    return int(metadata["steps"])


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
