from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.func import grad, jvp

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.losses import cross_entropy, default_loss, differentiable, recognise, squared_error

OUTPUT = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 2, 3, 3, 0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_cross_entropy_takes_classes_of_any_integer_type(dtype):
    chosen = default_loss(CLASSES.to(dtype))
    assert chosen is cross_entropy
    by_hand = -sum(OUTPUT.log_softmax(1)[i, c] for i, c in enumerate(CLASSES.tolist())) / 6
    assert float(chosen(OUTPUT, CLASSES.to(dtype))) == pytest.approx(float(by_hand), rel=1e-14)


def test_squared_error_is_the_mean_over_everything():
    target = torch.ones(6, 4, dtype=torch.float64)
    assert default_loss(target) is squared_error
    assert float(squared_error(OUTPUT, target)) == pytest.approx(float(((OUTPUT - 1) ** 2).sum() / 24), rel=1e-14)


def test_a_column_of_outputs_meets_its_targets_one_by_one():
    target = torch.arange(6.0, dtype=torch.float64)
    single = OUTPUT[:, :1]
    wanted = squared_error(single, target[:, None])
    assert torch.equal(squared_error(single, target), wanted)
    assert float(((single - target) ** 2).mean()) != pytest.approx(float(wanted), rel=0.1)  # what broadcasting gives


@pytest.mark.parametrize("shape", [(6,), (4,), (6, 1), (1, 4), (3, 4)])
def test_other_shapes_of_targets_are_refused(shape):
    with pytest.raises(BadInput, match=r"targets of the squared error: got shape .* wanted .*\(6, 4\)"):
        squared_error(OUTPUT, torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4,), (6, 1), (6, 4), ()])
def test_classes_of_another_shape_are_refused(shape):
    with pytest.raises(
        BadInput, match=r"targets of the cross-entropy: got shape .* of shape \(6, 4\); wanted shape \(6,\)"
    ):
        cross_entropy(OUTPUT, torch.zeros(shape, dtype=torch.int64))


def test_the_shapes_that_cross_entropy_takes():
    text = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(BadInput, match=r"wanted shape \(2, 4\). Where the classes are the last of several axes"):
        cross_entropy(text, torch.zeros(2, 5, dtype=torch.int64))
    assert cross_entropy(text.mT, torch.zeros(2, 5, dtype=torch.int64)) > 0
    assert cross_entropy(text[0, 0], torch.tensor(1)) > 0
    assert cross_entropy(OUTPUT, OUTPUT.softmax(1)) > 0


def test_no_default_for_booleans():
    with pytest.raises(BadInput, match=r"got torch\.bool"):
        default_loss(torch.tensor([True]))


class Sharper(nn.CrossEntropyLoss):
    def forward(self, output, target):
        return super().forward(3 * output, target)


@pytest.mark.parametrize(
    ("loss", "known"),
    [
        (cross_entropy, "cross_entropy"),
        (nn.functional.cross_entropy, "cross_entropy"),
        (nn.CrossEntropyLoss(), "cross_entropy"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), None),
        (nn.CrossEntropyLoss(weight=torch.arange(1, 5, dtype=torch.float64)), None),
        (nn.CrossEntropyLoss(reduction="sum"), None),
        (nn.CrossEntropyLoss(ignore_index=0), None),
        (Sharper(), None),
        (partial(nn.functional.cross_entropy, label_smoothing=0.1), None),
        (squared_error, "squared_error"),
        (nn.functional.mse_loss, "squared_error"),
        (nn.MSELoss(), "squared_error"),
        (nn.MSELoss(reduction="sum"), None),
        (nn.functional.l1_loss, None),
    ],
)
def test_only_what_is_surely_known_is_recognised(loss, known):
    assert recognise(loss) == known
    target = CLASSES if "ross" in repr(loss) or isinstance(loss, Sharper) else OUTPUT.flip(0)
    # Recognised or not, the value is the user's own.
    assert float(differentiable(loss)(OUTPUT, target)) == pytest.approx(float(loss(OUTPUT, target)), rel=1e-14)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), nn.MSELoss(), nn.functional.mse_loss])
def test_every_known_loss_goes_through_forward_over_reverse(loss):
    target = CLASSES if isinstance(loss, nn.CrossEntropyLoss) else OUTPUT.flip(0)
    gradient = grad(lambda at: differentiable(loss)(at, target))
    along, size = torch.ones_like(OUTPUT), 1e-6
    product = jvp(gradient, (OUTPUT,), (along,))[1]
    difference = (gradient(OUTPUT + size * along) - gradient(OUTPUT - size * along)) / (2 * size)
    assert torch.allclose(product, difference, atol=1e-9)
