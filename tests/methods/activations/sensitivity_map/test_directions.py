"""The pullback metric at a cell: its eigenpairs, what they predict, and how directions are put into words."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.methods.activations.sensitivity_map.reference import naive_metric
from tests.methods.activations.sensitivity_map.small_models import LAST, READ, SOURCE, gpt2, planted, texts
from tremorscope.instruments.language.encode import encode
from tremorscope.instruments.null import untrained
from tremorscope.methods.activations.sensitivity_map.cell_directions import (
    OTHER_TOKEN,
    UNTRAINED,
    measure_sensitive_directions,
)
from tremorscope.methods.activations.sensitivity_map.directions import cell_metric, read_directions
from tremorscope.methods.activations.sensitivity_map.measurement import measure_sensitivity_map
from tremorscope.methods.activations.sensitivity_map.strength import both_signs, random_curves, strength_curve


@pytest.fixture(scope="module")
def exact():
    """A random GPT-2 in float64, a prompt, and one of its cells."""
    network = gpt2(torch.float64)
    batch = encode(network, ["abcdefgh"])
    return network, batch, cell_metric(network, batch, "resid_pre.1", 1, 3)


def test_eigenvalues_equal_the_dense_ones(exact):
    network, batch, metric = exact
    wanted = torch.linalg.eigvalsh(naive_metric(network, batch, "resid_pre.1", 3)).flip(0)[:5]
    assert float(wanted[0]) > 1e-6
    torch.testing.assert_close(metric.spectrum.values, wanted, rtol=1e-6, atol=1e-6 * float(wanted[0]))


def largest_departure(network, batch, site, token, count=1, limit=1e-3):
    """Of KL from `a^2 lambda / 2`, relative, along the first eigenvectors of a cell where KL is below `limit`."""
    metric = cell_metric(network, batch, site, 1, token)
    gaps = []
    for reading in read_directions(network, metric, step=1.0)[:count]:
        size = (2 * limit / reading.eigenvalue) ** 0.5
        curve = strength_curve(network, metric, reading, distance=size)  # up to a step of `size`, both signs
        small = (curve.kl < limit) & (curve.sizes != 0)
        assert float(curve.kl[small].max()) > limit / 2
        gaps.append(float((curve.kl / curve.predicted - 1)[small].abs().max()))
    return max(gaps)


def test_the_second_order_prediction_holds_for_small_steps():
    # Large embeddings: where a step of this size is small beside the activation, the layer norm is nearly linear.
    network = gpt2(torch.float64, scale=12.0)
    assert largest_departure(network, encode(network, ["abcdefgh"]), "resid_pre.1", 7) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("site", "token"), [("resid_pre.1", 5), ("resid_pre.0", 1), ("resid_pre.2", 5)])
def test_the_second_order_prediction_holds_in_the_microworld(site, token):
    from tremorscope.instruments.load import load

    network = load("builtin:microworld", dtype="float64")
    batch = encode(network, ["Two days after Monday is"])
    # A confident prediction has a skew that a second-order term cannot show: at 1e-3 the third direction departs by a
    # third, with opposite signs either way. Of third order, it falls with the step, as the root of KL.
    departures = [largest_departure(network, batch, site, token, count=3, limit=limit) for limit in (1e-4, 1e-6, 1e-8)]
    assert departures[1] <= 0.05
    for larger, smaller in itertools.pairwise(departures):
        assert smaller == pytest.approx(larger / 10, rel=0.5)


def test_rates_are_the_slopes_of_probabilities(exact):
    network, _, metric = exact
    reading = read_directions(network, metric, step=1e-6)[0]
    assert reading.raised
    assert reading.lowered
    for one in (*reading.raised, *reading.lowered):
        assert (one.after - one.before) / 1e-6 == pytest.approx(one.rate, rel=1e-3, abs=1e-9)
    rates = [one.rate for one in reading.raised]
    assert rates == sorted(rates, reverse=True)
    assert abs(rates[0]) >= abs(reading.lowered[0].rate)  # the sign is that of the largest change


def test_nearest_tokens_are_those_of_the_embedding(exact):
    network, _, metric = exact
    reading = read_directions(network, metric, step=1.0)[0]
    weight = network.params["transformer.wte.weight"]
    centred = weight - weight.mean(dim=0)
    cosines = torch.nn.functional.cosine_similarity(centred, reading.vector[None], dim=1)
    place = int(cosines.abs().argmax())
    assert reading.nearest[0].text == network.tokenizer.decode([place])
    assert reading.nearest[0].cosine == pytest.approx(float(cosines[place]))
    assert reading.chance is not None
    assert 0 < reading.chance < 1


def test_random_curves_grow_from_nothing_at_zero(exact):
    metric = exact[2]
    directions = torch.eye(len(metric.base), dtype=torch.float64)[:3]
    found = random_curves(metric, directions, distance=0.5)
    middle = len(both_signs()) // 2
    assert found.kl.shape == (3, len(both_signs()))
    assert float(found.kl[:, middle].max()) == 0.0
    assert bool((found.kl[:, -1] > found.kl[:, middle + 1]).all())


def test_directions_of_a_planted_copy_lie_where_it_reads():
    network = planted()
    measured = measure_sensitivity_map(network, "bdfhjl", texts(), source="letters", num_directions=8)
    found = measure_sensitive_directions(network, measured, texts(), twin=lambda: untrained(network, seed=0))
    assert {(cell.layer, cell.token) for cell in found.cells} == {(0, SOURCE), (1, SOURCE), (2, LAST)}
    for cell in found.cells:
        assert set(cell.eigenvalues) == {"planted", UNTRAINED, OTHER_TOKEN}
        assert float(cell.eigenvalues["planted"][0]) > 10 * float(cell.eigenvalues[UNTRAINED][0])
        assert float(cell.eigenvalues[OTHER_TOKEN].max()) < 0.05 * float(cell.eigenvalues["planted"][0])
        if cell.token == SOURCE:
            inside = cell.readings[0].vector[READ].double().norm()
            assert float(inside) == pytest.approx(1.0, abs=1e-4)
    assert "raises" in found.sentence()
    names = [table.name for table in found.tables()]
    assert names == ["sensitive_directions", "direction_tokens"]
    strength = found.figures()[1].to_plotly()
    assert len(strength["layout"]["updatemenus"][0]["buttons"]) == sum(len(cell.readings) for cell in found.cells)
