from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.methods.weights.training_jacobian.reference import naive_jackknife, naive_overlap, naive_pairs
from tests.methods.weights.training_jacobian.small_jacobians import F64, made_up, orthonormal
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result, drawn
from tremorscope.foundations.statistics import t_test_p
from tremorscope.methods.weights.training_jacobian.comparison import (
    GROUP_NAMES,
    INPUT_SPAN,
    MATCHED,
    NOISE,
    REAL,
    SHUFFLED,
    JacobianComparison,
)

GROUPS = (REAL, SHUFFLED, MATCHED, NOISE)


def compared(n: int = 4, **fields) -> JacobianComparison:
    return JacobianComparison(
        {group: [made_up(100 * g + 10 * i, **fields) for i in range(n)] for g, group in enumerate(GROUPS)}
    )


def half_width(estimate) -> float:
    """Of the jackknife's interval, in its standard errors at 99 % with three degrees of freedom."""
    return (estimate.high - estimate.low) / 2 / 5.8409093097333573


@pytest.mark.parametrize("other", GROUPS)
def test_overlaps_are_means_over_different_members(other):
    comparison = compared()
    estimate = comparison.overlap(REAL, other)

    def pair(i: int, j: int) -> float:
        return naive_overlap(comparison.groups[REAL][i].central, comparison.groups[other][j].central)

    assert estimate.value == pytest.approx(naive_pairs(pair, range(4)), rel=1e-12)
    error = naive_jackknife(lambda members: naive_pairs(pair, members), 4)
    assert half_width(estimate) == pytest.approx(error, rel=1e-9)
    assert (estimate.n, estimate.method, estimate.level) == (4, "jackknife t", 0.99)
    assert comparison.overlap(other, REAL).value == pytest.approx(estimate.value, rel=1e-12)


def test_a_shared_start_does_not_count():
    """Member i has the same directions in every group: only pairs of different members are compared."""
    shared = [orthonormal(20, 3, seed) for seed in range(3)]
    comparison = JacobianComparison(
        {group: [made_up(i, central=shared[i]) for i in range(3)] for group in (REAL, MATCHED)}
    )
    assert comparison.overlap(REAL, MATCHED).value < 0.5
    assert comparison.overlap(REAL, MATCHED).value == pytest.approx(comparison.overlap(REAL, REAL).value)


def test_bulks_in_common_overlap_by_one_and_random_ones_by_chance():
    basis = orthonormal(20, 6, 0)
    turned = [made_up(i, central=basis @ orthonormal(6, 6, i)) for i in range(3)]
    same = JacobianComparison({REAL: turned})
    assert same.overlap(REAL, REAL).value == pytest.approx(1)
    assert same.overlap(REAL, REAL).high - same.overlap(REAL, REAL).low < 1e-9
    assert same.chance() == 6 / 18


def test_excess_is_beyond_the_larger_null():
    comparison = compared()
    real, nulls = comparison.groups[REAL], [member.input_null for member in comparison.groups[REAL]]

    def excess(group: str):
        own = comparison.groups[group]

        def statistic(members) -> float:
            between = naive_pairs(lambda i, j: naive_overlap(own[i].central, own[j].central), members)
            matched = naive_pairs(
                lambda i, j: naive_overlap(own[i].central, comparison.groups[MATCHED][j].central), members
            )
            without = sum(naive_overlap(own[i].central, nulls[i].basis) for i in members) / len(members)
            return between - max(matched, without)

        return statistic

    for group in (REAL, SHUFFLED):
        found = comparison.excess(group)
        assert found.value == pytest.approx(excess(group)(range(4)), rel=1e-10)
        assert half_width(found) == pytest.approx(naive_jackknife(excess(group), 4), rel=1e-9)
    # A bulk that is the span of the inputs has nothing in excess, however much it is shared.
    span = orthonormal(20, 6, 1)
    explained = [replace(m, central=span, input_null=replace(m.input_null, basis=span)) for m in real]
    assert JacobianComparison({REAL: explained, MATCHED: comparison.groups[MATCHED]}).excess(
        REAL
    ).value == pytest.approx(0)


@pytest.mark.parametrize(("num_dead", "k"), [(0, 6), (2, 6), (6, 6), (9, 6)])
def test_dead_weights_would_enter_every_bulk_first(num_dead, k):
    comparison = compared(3, num_params=24, num_dead=num_dead, k=k)
    real, rest = comparison.groups[REAL], max(0, k - num_dead)

    def pair(i: int, j: int) -> float:
        shared = naive_overlap(real[i].central[:, :rest], real[j].central[:, :rest]) if rest else 0.0
        return (min(num_dead, k) + rest * shared) / k

    assert comparison.overlap_with_dead().value == pytest.approx(naive_pairs(pair, range(3)), rel=1e-10)
    if num_dead >= k:
        assert comparison.overlap_with_dead().value == 1


def test_the_formula_for_dead_weights_is_that_of_the_joint_span():
    """One naive pair: live directions in 8 weights of 10, two dead ones put in front by hand."""
    live = [torch.cat([torch.zeros(2, 5, dtype=F64), orthonormal(8, 5, seed)]) for seed in (0, 1)]
    comparison = JacobianComparison({REAL: [made_up(i, num_params=10, num_dead=2, central=live[i]) for i in range(2)]})
    dead = torch.eye(10, dtype=F64)[:, :2]
    bulks = [torch.cat([dead, one[:, :3]], dim=1) for one in live]
    assert comparison.overlap_with_dead().value == pytest.approx(naive_overlap(*bulks), rel=1e-12)


def test_tables_are_well_formed(tmp_path):
    comparison = compared()
    regions, overlaps, scores = comparison.tables(family_level=0.995)
    assert [table.name for table in (regions, overlaps, scores)] == ["regions", "overlaps", "scores"]
    assert regions.num_rows == 16
    assert regions.columns["chaotic"][0].value == 5
    assert regions.columns["span alignment of the bulk"][3] is None  # no bulk at the finest tolerance
    names = overlaps.columns["real bulk against"]
    assert names[0] == "another seed"
    assert names[-2:] == [INPUT_SPAN, "another seed, dead weights left in"]
    assert all(f"another seed, {GROUP_NAMES[group]}" in names for group in (SHUFFLED, MATCHED, NOISE))
    assert overlaps.columns["overlap"][0].level == 0.995
    assert scores.columns["training loss"][0].value == pytest.approx(sum(0.1 + 10 * i for i in range(4)) / 4)
    result = Result(
        study="s", preset="quick", seed=0, config={}, title="t", tables=(regions, overlaps, scores),
        figures=[drawn(figure) for figure in comparison.figures()],
    )  # fmt: skip
    result.save(tmp_path)
    assert Result.load(tmp_path).table("overlaps").num_rows == 6


def test_p_values_are_holms_over_the_family():
    comparison = compared(n=5)
    _, overlaps, _ = comparison.tables()
    estimates, adjusted = overlaps.columns["overlap"][:-1], overlaps.columns["p against chance (Holm)"]
    raw = [t_test_p(e.value, e.low, e.high, e.level, e.n, against=6 / 18) for e in estimates]
    smallest = min(range(5), key=lambda i: raw[i])
    assert adjusted[smallest] == pytest.approx(min(1, 5 * raw[smallest]))
    assert all(a >= p for a, p in zip(adjusted[:-1], raw, strict=True))
    assert adjusted[-1] is None


def test_single_seeds_have_no_p_values():
    """Two members give one pair: an overlap without an interval. Its neighbours in the family are tested alone."""
    _, overlaps, _ = compared(n=2).tables()
    p = dict(zip(overlaps.columns["real bulk against"], overlaps.columns["p against chance (Holm)"], strict=True))
    assert p["another seed"] is None
    estimate = compared(n=2).input_overlap(REAL)
    assert p[INPUT_SPAN] == pytest.approx(
        min(1, t_test_p(estimate.value, estimate.low, estimate.high, estimate.level, 2, against=6 / 18))
    )


@pytest.mark.parametrize("n", [2, 4])
def test_figures_are_well_formed(n):
    figures = compared(n).figures()
    assert [figure.name for figure in figures] == [
        "spectrum", "distance_from_one", "alignment", "unit_steps", "drift", "overlaps",
    ]  # fmt: skip
    for figure in figures:
        json.dumps(drawn(figure), allow_nan=False)
        assert figure.caption.endswith(".")
    assert len(figures[0].traces) == n + 1
    assert [len(figures[i].traces) for i in (1, 2)] == [4, 4]
    bars = figures[-1].traces[0]
    assert bars["y"][0] == "another seed"
    assert bars["y"][-1] == "random subspace (chance)"
    assert len(set(bars["marker"]["color"])) == 2
    quiet = JacobianComparison({REAL: [made_up(i, divergence={}) for i in range(2)]})
    assert "unit_steps" not in [figure.name for figure in quiet.figures()]


def test_means_over_members():
    comparison = compared()
    assert comparison.num_members == 4
    wanted = sum(float(m.values[0]) for m in comparison.groups[NOISE]) / 4
    assert comparison.mean(NOISE, lambda m: float(m.values[0])).value == pytest.approx(wanted)


@pytest.mark.parametrize(
    "groups",
    [
        {},
        {SHUFFLED: [made_up(0)]},
        {REAL: []},
        {REAL: [made_up(0), made_up(1)], SHUFFLED: [made_up(2)]},
    ],
)
def test_groups_must_match(groups):
    with pytest.raises(BadInput, match=r"groups of training Jacobians: got .* wanted 'real' and nulls of as many"):
        JacobianComparison(groups)


def test_what_was_not_measured():
    alone = JacobianComparison({REAL: [made_up(i, input_null=None) for i in range(3)]})
    with pytest.raises(BadInput, match="group of training Jacobians: got matched; wanted real"):
        alone.excess(REAL)
    with pytest.raises(BadInput, match="overlap without a network: got no null"):
        alone.input_overlap(REAL)
    assert alone.tables()[1].columns["real bulk against"] == ["another seed", "another seed, dead weights left in"]
