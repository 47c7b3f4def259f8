import pytest
from hypothesis import given
from hypothesis import strategies as st

from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.statistics import holm, t_test_p

P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 0.03, 0.04]), min_size=1, max_size=8)


def holm_reference(p_values):
    """Holm's own words: reject the smallest ones in turn, while p_(i) <= level / (m - i + 1)."""

    def rejected(level):
        chosen = set()
        for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - rank) > level:
                break
            chosen.add(index)
        return chosen

    return rejected


@given(P_VALUES, st.floats(0.001, 0.5))
def test_adjusted_values_reject_what_the_step_down_rule_rejects(p_values, level):
    assert {index for index, p in enumerate(holm(p_values)) if p <= level} == holm_reference(p_values)(level)


def test_a_smaller_p_value_is_never_adjusted_above_a_larger_one():
    assert holm([0.03, 0.04, 0.03]) == pytest.approx([0.09, 0.09, 0.09])  # 3 * 0.03 carries over to 2 * 0.03


@given(P_VALUES)
def test_adjusted_values_are_probabilities_no_smaller_than_the_raw_ones(p_values):
    assert all(raw <= adjusted <= 1 for raw, adjusted in zip(p_values, holm(p_values), strict=True))


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_the_p_value_at_the_end_of_an_interval_is_what_the_interval_leaves(level):
    e = Estimate.mean([1.0, 2.0, 4.0, 4.5], level=level)
    assert t_test_p(e.value, e.low, e.high, level, e.n, against=e.high) == pytest.approx(1 - level)
    assert t_test_p(e.value, e.low, e.high, level, e.n, against=e.value) == pytest.approx(1.0)
    assert t_test_p(2.0, 2.0, 2.0, level, 3) == 0.0
    assert t_test_p(2.0, 2.0, 2.0, level, 3, against=2.0) == 1.0
