"""Read-outs between r and S^-1 r: what they are, and what they trade."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.concept_editing.affine_edits import oblique, oblique_read_out
from tremorscope.methods.activations.concept_editing.fitting import fit_concept
from tremorscope.methods.activations.concept_editing.oblique_sweep import (
    Capability,
    ObliqueSweepMeasurement,
    measure_oblique_sweep,
    ridge_of,
)
from tremorscope.methods.activations.concept_editing.scorers import decides

TS = (0.0, 0.9, 0.999)


def planted() -> tuple[Network, torch.Tensor, torch.Tensor]:
    """The decision is the first entry; r also leans on the second, which varies much and which another output reads."""
    stream = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 2, generator=stream) * torch.tensor([0.2, 3.0])
    rows = noise + torch.tensor([1.0, 1.5]) * (torch.arange(400) % 2)[:, None]
    module = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        module[1].bias.copy_(torch.tensor([0.5, 0.0]))
    return Network(module), rows[0::2], rows[1::2]


def second_entry_lost(network: Network, rows: torch.Tensor) -> Capability:
    def losses(view: Network) -> numpy.ndarray:
        with torch.no_grad():
            seen = view.record("acts:0", Batch((rows,), {}, None))
        return (seen[:, 1] - rows[:, 1]).abs().double().numpy()

    return Capability(losses=losses, unit="second entry, absolute error")


def test_the_read_out_turns_from_r_to_the_discriminant():
    network, negatives, positives = planted()
    fit = fit_concept(network, negatives, positives, "acts:0")
    r, within = fit.directions, fit.within()
    assert torch.equal(oblique_read_out(fit, ridge=ridge_of(0.0)), r)
    for t in (0.3, 0.9, 0.999):
        scaled = within / (within.trace() / 2)
        slow = torch.linalg.inv(t * scaled + (1 - t) * torch.eye(2, dtype=torch.float64)) @ r
        torch.testing.assert_close(oblique_read_out(fit, ridge=ridge_of(t)), slow)
    fisher = torch.linalg.inv(within) @ r
    near = nn.functional.cosine_similarity(oblique_read_out(fit, ridge=1e-6), fisher, dim=0)
    assert float(near) == pytest.approx(1.0, abs=1e-4)


def test_where_another_direction_varies_the_discriminant_costs_less_and_makes_a_sharper_curve():
    network, negatives, positives = planted()
    fit = fit_concept(network, negatives, positives, "acts:0")
    classes = {"positive": positives, "negative": negatives}
    swept = measure_oblique_sweep(
        network, fit, "acts:0", classes, decides(1), {"second": second_entry_lost(network, negatives)}, ts=TS
    )
    errors = [swept.error(place).value for place in range(len(TS))]
    lost = [swept.lost("second", place).value for place in range(len(TS))]
    gaps = [swept.gap(place).value for place in range(len(TS))]
    # The first entry decides. Read along r it follows alpha with noise of the second, which smooths the curve; read by
    # the discriminant it follows alpha itself, so that the curve becomes a step, whose error is 1/4.
    assert errors[0] < errors[2] < 0.25
    assert lost[2] < lost[0] / 2
    assert swept.cosines[0] == pytest.approx(1.0)
    assert swept.cosines[2] < 0.9
    # By hand: the calibration of the last read-out, edit by edit.
    slow = []
    for alpha in swept.responses[2].alphas:
        view = network.with_edits(oblique(fit, alpha, ridge=ridge_of(0.999)).at("acts:0"))
        slow.append([float(decides(1)(view, some).double().mean()) for some in classes.values()])
    distances = numpy.abs(numpy.array(slow) - numpy.array(swept.responses[2].alphas)[:, None]).mean(1)
    assert errors[2] == pytest.approx(float(numpy.trapezoid(distances, dx=0.25)))
    assert gaps[2] == pytest.approx(float(numpy.trapezoid(numpy.ptp(slow, axis=1), dx=0.25)))
    again = ObliqueSweepMeasurement.of(swept.to_plain())
    assert again.error(1) == swept.error(1)
    assert again.lost("second", 1) == swept.lost("second", 1)
    assert swept.tables()[0].num_rows == len(TS)
    (figure,) = swept.figures()
    assert figure.traces[0]["text"] == ["t = 0", "t = 0.9", "t = 0.999"]


def test_mistakes():
    network, negatives, positives = planted()
    fit = fit_concept(network, negatives, positives, "acts:0")
    with pytest.raises(BadInput, match="numbers from 0 to below 1"):
        measure_oblique_sweep(network, fit, "acts:0", {"a": negatives}, decides(1), {}, ts=[1.0])
    bad = Capability(losses=lambda view: numpy.array([numpy.nan]), unit="nothing")
    with pytest.raises(BadInput, match="losses of second"):
        measure_oblique_sweep(network, fit, "acts:0", {"a": negatives}, decides(1), {"second": bad})
