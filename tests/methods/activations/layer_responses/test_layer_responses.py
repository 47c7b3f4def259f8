"""Layer by layer: planted plateaus are found, order that is not there is not, and the network stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy
import pytest
import torch
from torch import nn

from tests.instruments.language.tiny_models import VOCABULARY, gpt2
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import drawn
from tremorscope.instruments.activations.hooks import assert_clean
from tremorscope.instruments.activations.sweeps import prepare_sweep
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import untrained
from tremorscope.instruments.task import Batch, Task
from tremorscope.methods.activations.layer_responses.effective_rank import (
    effective_rank,
    effective_rank_estimate,
    isotropic_rank,
)
from tremorscope.methods.activations.layer_responses.measurement import measure_layer_responses
from tremorscope.methods.activations.layer_responses.places import hidden_places
from tremorscope.methods.activations.layer_responses.results import DIRECTION, PLATEAU
from tremorscope.methods.activations.layer_responses.whole_values import Coordinates, WholeValueResponder
from tremorscope.methods.activations.plateaus.planted import PlantedFeatures
from tremorscope.methods.activations.plateaus.sweep_responder import SweepResponder

FEATURES = 12


class Corrected(nn.Module):
    """Corrects moves of less than `width` away, as `PlantedFeatures`."""

    def __init__(self, width: float):
        super().__init__()
        self.planted = replace(PlantedFeatures.draw(FEATURES, FEATURES, width=0.0, seed=0), width=width)

    def forward(self, x):
        return self.planted.outputs(x).to(x)


def planted(width: float) -> Network:
    """One hidden place, twice the input: what halves it again gives a copy of the input, which is not hidden."""
    double, half = (nn.Linear(FEATURES, FEATURES, bias=False) for _ in range(2))
    nn.init.eye_(double.weight).data.mul_(2.0)
    nn.init.eye_(half.weight).data.mul_(0.5)
    return Network(nn.Sequential(double, half, Corrected(width)), name="reader")


def lattice(count: int = 96) -> Batch:
    activations = PlantedFeatures.draw(FEATURES, FEATURES, width=0.0, seed=0).activations(count, seed=1)
    return Batch((activations.float(),), {}, None)


def perceptron(**more) -> Network:
    torch.manual_seed(2)
    return Network(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), **more)


def normal(count: int = 96, *shape: int) -> Batch:
    return Batch((torch.randn(count, *(shape or (5,)), generator=torch.Generator().manual_seed(4)),), {}, None)


def test_a_planted_plateau_is_found_where_it_is_and_not_in_the_twin():
    network, twin = planted(0.45), planted(0.0)
    before = {key: value.clone() for key, value in network.module.state_dict().items()}
    found = measure_layer_responses(network, lattice(), twin=twin, num_bases=20, num_directions=4)
    assert list(found.layers) == list(found.twin) == ["0"], "the second layer gives the input back"
    gap, excess = found.difference("0"), found.excess("0")
    assert gap.low > 3, "bases on the lattice lie on plateaus, random ones between them"
    assert excess.low > 3
    none = replace(found, layers=found.twin, twin={}).difference("0")
    # A linear network answers in proportion to the chord: half of it at 41.4 degrees, from every base alike.
    assert abs(none.value) < 1e-3
    assert found.twin["0"].median(PLATEAU[1]).value == pytest.approx(41.41, abs=0.2)
    assert found.sentence().startswith("Real activations can be turned further")
    assert "answers in 1 of 1 layers, in 1 by more than in the untrained twin;" in found.sentence()
    assert_clean(network.module)
    assert all(torch.equal(value, before[key]) for key, value in network.module.state_dict().items())


def test_a_network_that_never_saw_its_inputs_order_shows_no_difference():
    """Gaussian inputs into random weights: real activations of the first layer are Gaussian themselves."""
    found = measure_layer_responses(perceptron(), normal(160), twin=untrained(perceptron(), seed=3), num_bases=40)
    for pair in (PLATEAU, DIRECTION):
        gap = found.difference("0", pair)
        assert gap.low < 0 < gap.high
    assert found.excess("0").low < 0 < found.excess("0").high


def test_the_whole_value_equals_the_sweep_of_the_same_place():
    network, batch = perceptron(), normal(12)
    activations = network.record("acts:1", batch)
    sweep = SweepResponder(prepare_sweep(network, batch, "acts:1", readouts=("l2",)))
    points, rows = torch.randn(9, 8, generator=torch.Generator().manual_seed(0)), torch.arange(9)
    for n in (12, 6):  # six of them are described in their span
        coordinates = Coordinates.of(activations[:n])
        whole = WholeValueResponder(
            network, batch, "acts:1", activations, coordinates, is_logits=False, num_bytes=2**27
        )
        assert (coordinates.basis is None) is (n == 12)
        inside = points if n == 12 else coordinates.activations(coordinates.vectors(points))
        twin = sweep.outputs(inside, rows).late
        found = whole.outputs(coordinates.vectors(points), rows).late
        torch.testing.assert_close(found, twin, rtol=0, atol=1e-5)
        kept = coordinates.activations(coordinates.vectors(activations[:n]))
        torch.testing.assert_close(kept.float(), activations[:n], rtol=0, atol=1e-5)


def test_a_place_beside_which_the_input_goes_on_is_turned_in_its_own_context():
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(5, 5)

        def forward(self, x):
            return x + self.inside(x)

    network, batch = Network(Around()), normal(6)
    activations = network.record("acts:inside", batch)
    responder = WholeValueResponder(
        network, batch, "acts:inside", activations, Coordinates.of(activations), is_logits=False, num_bytes=100
    )
    rows = torch.tensor([4, 1])
    found = responder.outputs(torch.zeros(2, 5), rows).late
    torch.testing.assert_close(found, batch.args[0][rows])


def test_hidden_places_are_what_modules_give_without_copies():
    torch.manual_seed(0)
    relu = nn.ReLU()
    convolutional = nn.Sequential(
        nn.Identity(), nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 3, 3), relu, nn.Flatten(), nn.Dropout(), nn.Linear(12, 2)
    )
    places = hidden_places(Network(convolutional), normal(6, 1, 6, 6))
    assert places.sites == {"1": "acts:1:out.0", "3": "acts:3:out.0", "5": "acts:5:out.0"}
    assert places.flags == ("layer '2' is passed over: it is called 2 times in one forward pass",)
    # Multiplications and additions: 32 outputs of 9 weights, 12 of 18, 2 of 12.
    assert places.operations == 2 * (32 * 9 + 12 * 18 + 2 * 12)
    tokens = torch.randint(VOCABULARY, (4, 6), generator=torch.Generator().manual_seed(0))
    blocks = hidden_places(Network(gpt2()), Batch((), {"input_ids": tokens}, None))
    assert list(blocks.sites) == ["resid_pre.0", "resid_pre.1"]


def test_feature_maps_larger_than_the_number_of_examples_are_turned_in_their_span():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(256, 3))
    task = Task.of(normal(40, 1, 8, 8).args[0], torch.arange(40) % 3)
    network = Network(module, task=task)
    found = measure_layer_responses(network, normal(40, 1, 8, 8), num_bases=12, num_directions=3)
    assert found.readout == "kl"
    assert [layer.width for layer in found.layers.values()] == [256, 256]
    assert found.layers["0"].effective_rank.value < 27
    assert "layer '0' of Sequential: 40 activations of 256 entries: random ones lie in their span" in found.flags
    assert "There is no untrained twin to compare with." in found.sentence()
    assert found.excess("0") is None


def test_a_language_model_is_turned_at_its_last_token():
    tokens = torch.randint(VOCABULARY, (40, 6), generator=torch.Generator().manual_seed(0))
    network = Network(gpt2(), name="tiny")
    batch = Batch((), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}, None)
    found = measure_layer_responses(network, batch, position=-1, num_bases=6, num_directions=2)
    assert list(found.layers) == ["resid_pre.0", "resid_pre.1"]
    assert found.readout == "kl"
    assert found.layers["resid_pre.1"].curves.num_samples == 34
    again = measure_layer_responses(network, batch, position=-1, num_bases=6, num_directions=2)
    assert [table.to_dict() for table in again.tables()] == [table.to_dict() for table in found.tables()]


def test_tables_and_figure_hold_both_networks():
    found = measure_layer_responses(
        perceptron(), normal(60), twin=untrained(perceptron(), seed=3), num_bases=8, num_directions=2
    )
    ranks, responses = found.tables()
    assert ranks.columns["layer"] == ["0", "1", "2", "3"]
    assert all(estimate.low <= estimate.value for estimate in ranks.columns["effective rank, untrained twin"])
    assert responses.columns["network"] == ["this network", "untrained twin"] * 4
    assert responses.columns["real - random base, beyond the twin"][1] is None
    assert responses.columns["real - random base, beyond the twin"][0] == found.excess("0")
    (figure,) = found.figures()
    assert [trace["name"] for trace in figure.traces] == [
        "real base",
        "random base",
        "real base, untrained",
        "random base, untrained",
    ]
    assert figure.traces[0]["y"][2] == pytest.approx(found.layers["2"].median(PLATEAU[0]).value, rel=1e-4)
    json.dumps(drawn(figure), allow_nan=False)


def test_a_layer_that_nothing_follows_and_one_that_is_dead_are_flags():
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.dead, self.aside = (nn.Linear(5, 4) for _ in range(3))
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            hidden = self.used(x)
            self.aside(x)
            return self.out(hidden) + self.dead(x).relu().sum()

    network = Network(Aside(), name="net")
    weights = {**network.params, "dead.weight": torch.zeros(4, 5), "dead.bias": -torch.ones(4)}
    found = measure_layer_responses(
        network.at(network.layout.flatten(weights)), normal(60), num_bases=8, num_directions=2
    )
    said = "\n".join(found.flags)
    assert "layer 'dead' of net could not be measured:" in said
    assert "layer 'aside' of net: there are bases around which nothing answers" in said
    assert set(found.layers) == {"used", "aside"}
    assert found.difference("aside") is None
    assert numpy.isinf(found.layers["aside"].angles(PLATEAU[0])).all()
    assert found.figures()[0].traces[0]["y"][1] is None
    json.dumps([table.to_dict() for table in found.tables()])


def test_work_is_cut_to_what_is_affordable_and_said():
    network, batch = perceptron(), normal(120)
    each = hidden_places(network, batch).operations * 44  # one direction from one base at one layer
    cut = measure_layer_responses(network, batch, num_bases=50, num_directions=4, operations=each * 24 * 2 * 2.5)
    assert list(cut.layers) == ["0", "3"]
    assert cut.layers["0"].curves.num_bases == 24
    assert cut.flags == (
        "responses of layers: 2 directions in place of 4, to save time",
        "responses of layers: 24 bases in place of 50, to save time",
        "responses of layers: 2 of 4 layers are looked at, to save time",
    )
    with pytest.raises(BadInput, match=r"responses of layers: got 16 paths at one layer, .*; wanted at most 15,"):
        measure_layer_responses(network, batch, num_bases=8, operations=each * 15.5)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Network(nn.Linear(5, 3)), {}, r"hidden activations of 'Linear': got none between its input and its output"),
        (
            perceptron(),
            {"num_bases": 60},
            r"examples for 'Sequential': got 96; wanted at least 120: 60 to be disturbed",
        ),
        (perceptron(), {"num_directions": 1}, r"size of the measurement: got 24 bases, 1 directions, 8 layers"),
        (
            Network(nn.Sequential(nn.Linear(5, 3), nn.Tanh())),
            {"readout": "loudness"},
            r"layers of 'Sequential': got none that could be measured: .*loudness",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(network, options, message):
    with pytest.raises(BadInput, match=message):
        measure_layer_responses(network, normal(), **options)


def test_effective_rank_is_that_of_equal_axes_and_knows_its_error():
    axes = torch.cat([torch.eye(6), -torch.eye(6)])
    assert effective_rank(axes[:, :4] @ torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))) == pytest.approx(3)
    spread = torch.tensor([3.0, 1.0, 0.5, 0.1], dtype=torch.float64)
    drawn = spread * torch.randn(400, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = drawn.T.cov().numpy()
    shares = numpy.linalg.eigvalsh(shares) / numpy.trace(shares)
    twin = float(numpy.exp(-(shares * numpy.log(shares)).sum()))
    assert effective_rank(drawn) == pytest.approx(twin, rel=1e-9)
    assert effective_rank(drawn[:3]) == pytest.approx(effective_rank(torch.cat([drawn[:3], torch.zeros(3, 9)], dim=1)))
    shares = spread.square() / spread.square().sum()
    truth = float((-(shares * shares.log()).sum()).exp())
    found = effective_rank_estimate(drawn)
    assert found.low < truth < found.high < 1.3 * truth
    assert 3.9 < isotropic_rank(400, 4, seed=0) <= 4
    with pytest.raises(BadInput, match="activations: got all the same, or not finite"):
        effective_rank(torch.ones(5, 3))
