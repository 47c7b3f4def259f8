"""Tasks: inputs, targets and a loss, with what is known about them."""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy
import torch
from jaxtyping import Int
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import Loss, cross_entropy, default_loss


class Batch(NamedTuple):
    """Arguments of one forward pass, and what it should have given."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor | None


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """Training and test examples with a loss.

    `inputs` and `targets` share their first axis; `test_inputs` may be None, then measurements that need
    held-out data say so and use the training data.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    loss: Loss
    test_inputs: Tensor | None = None
    test_targets: Tensor | None = None
    num_classes: int | None = None
    description: str = ""

    def __post_init__(self) -> None:
        _check_pair(f"task {self.name!r}", self.inputs, self.targets)
        if self.test_inputs is not None and self.test_targets is not None:
            _check_pair(f"test data of task {self.name!r}", self.test_inputs, self.test_targets)

    @classmethod
    def of(
        cls, inputs: Tensor, targets: Tensor, *, name: str = "data", loss: Loss | None = None, num_test: int = 0
    ) -> Task:
        """A task from a pair of tensors; the last `num_test` rows are held out."""
        _check_pair(f"task {name!r}", inputs, targets)
        classes = int(targets.max()) + 1 if not targets.is_floating_point() and targets.numel() else None
        end = len(inputs) - num_test
        return cls(
            name=name,
            inputs=inputs[:end],
            targets=targets[:end],
            test_inputs=inputs[end:] if num_test else None,
            test_targets=targets[end:] if num_test else None,
            loss=default_loss(targets) if loss is None else loss,
            num_classes=classes,
        )

    @property
    def size(self) -> int:
        """Number of training examples."""
        return len(self.inputs)

    def train_batch(self) -> Batch:
        """All training examples as one batch."""
        return Batch((self.inputs,), {}, self.targets)

    def test_batch(self) -> Batch:
        """All held-out examples as one batch.

        Raises:
            BadInput: If the task holds none.
        """
        if self.test_inputs is None:
            raise BadInput(f"test data of task {self.name!r}", got="none", wanted="held-out examples")
        return Batch((self.test_inputs,), {}, self.test_targets)

    def batch(self, indices: Int[Tensor, " batch"] | Sequence[int]) -> Batch:
        """The training examples at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.inputs.device)
        return Batch((self.inputs[chosen],), {}, self.targets[chosen])

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Task:
        """The same task elsewhere; only real-valued tensors change their dtype."""
        return replace(
            self,
            inputs=_moved(self.inputs, dtype, device),
            targets=_moved(self.targets, dtype, device),
            test_inputs=None if self.test_inputs is None else _moved(self.test_inputs, dtype, device),
            test_targets=None if self.test_targets is None else _moved(self.test_targets, dtype, device),
        )


def digits(*, num_test: int = 197, split_seed: int = 0, dtype: torch.dtype = torch.float32) -> Task:
    """Scikit-learn's 1,797 handwritten digits, 8x8 pixels in [0, 1], ten classes.

    The split is that of `sklearn.model_selection.train_test_split(test_size=num_test,
    random_state=split_seed)`: the published training-Jacobian experiment uses 197 and 0. The file is read
    without importing scikit-learn, which costs two seconds.

    Raises:
        BadInput: If scikit-learn is not installed or does not carry the file.
    """
    spec = importlib.util.find_spec("sklearn")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / "datasets/data/digits.csv.gz"
    if path is None or not path.is_file():
        raise BadInput("builtin:digits", got="no digits.csv.gz", wanted="scikit-learn with its data files")
    with gzip.open(path, "rt") as handle:
        rows = numpy.array([[float(cell) for cell in row] for row in csv.reader(handle)])
    # train_test_split draws one permutation: the first num_test rows of it are the test set, the rest train.
    order = numpy.random.RandomState(split_seed).permutation(len(rows))
    test, train = rows[order[:num_test]], rows[order[num_test:]]

    def inputs(part: Any) -> Tensor:
        return torch.tensor(part[:, :-1] / 16, dtype=dtype)

    def targets(part: Any) -> Tensor:
        return torch.tensor(part[:, -1], dtype=torch.int64)

    return Task(
        name="digits",
        inputs=inputs(train),
        targets=targets(train),
        test_inputs=inputs(test),
        test_targets=targets(test),
        loss=cross_entropy,
        num_classes=10,
        description="8x8 handwritten digits from scikit-learn, pixels divided by 16",
    )


def _check_pair(what: str, inputs: Tensor, targets: Tensor) -> None:
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise BadInput(
            what, got=f"{len(inputs)} inputs and {len(targets)} targets", wanted="as many of each, at least one"
        )
    for name, tensor in (("inputs", inputs), ("targets", targets)):
        num_bad = int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0
        if num_bad:
            raise BadInput(f"{name} of {what}", got=f"{num_bad} entries that are not finite", wanted="finite numbers")


def _moved(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
