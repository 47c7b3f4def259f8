import json
import math
from dataclasses import replace

import pytest

from tests.foundations.conftest import claim_about, interval
from tremorscope.foundations.claims import Claim, Expected, Verdict
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate

ABOVE, ACROSS, BELOW = interval(2, 3), interval(0.5, 3), interval(0, 0.5)


@pytest.mark.parametrize(
    ("measured", "nulls", "verdict"),
    [
        (ABOVE, [BELOW], Verdict.HOLDS),
        (ABOVE, [ACROSS], Verdict.HOLDS),  # the null does not meet the threshold with its whole interval
        (ABOVE, [ABOVE], Verdict.VACUOUS),
        (ABOVE, [BELOW, ABOVE], Verdict.VACUOUS),  # one null is enough
        (ACROSS, [BELOW], Verdict.UNDECIDED),
        (ACROSS, [ABOVE], Verdict.UNDECIDED),
        (BELOW, [BELOW], Verdict.FAILS),
        (BELOW, [ABOVE], Verdict.FAILS),
        (interval(1, 2), [BELOW], Verdict.HOLDS),  # the threshold itself meets it
        (interval(0, 1), [BELOW], Verdict.UNDECIDED),
        (Estimate.one_seed(2), [Estimate.one_seed(0)], Verdict.HOLDS),
        (Estimate.exact(0), [BELOW], Verdict.FAILS),
        (interval(math.nan, math.nan), [BELOW], Verdict.UNDECIDED),
    ],
)
def test_verdicts(measured, nulls, verdict):
    claim = claim_about(measured, *nulls)
    assert claim.verdict is verdict
    assert claim.holds == (verdict is Verdict.HOLDS)


def test_two_sided_and_upper_ranges():
    between = Expected(low=1, high=2, origin="paper")
    at_most = Expected(high=2, origin="paper")
    assert between.meets(interval(1.2, 1.8))
    assert not between.meets(interval(1.2, 2.1))
    assert between.misses(interval(2.1, 3))
    assert not between.misses(interval(1.9, 3))
    assert at_most.meets(interval(-9, 2))
    assert (str(between), str(at_most)) == ("between 1 and 2", "at most 2")


@pytest.mark.parametrize(("low", "high"), [(2, 1), (1, 1), (-math.inf, math.inf), (math.nan, 1)])
def test_a_range_that_says_nothing_is_refused(low, high):
    with pytest.raises(BadInput, match=r"expected range: got .* wanted low < high, one end finite"):
        Expected(low=low, high=high, origin="nowhere")


def test_a_claim_needs_a_null_or_a_reason():
    with pytest.raises(BadInput, match="claim waves/W1: got no null; wanted at least one, or the reason"):
        claim_about(ABOVE)
    assert claim_about(ABOVE, without_null="an identity").holds


def test_one_member_is_flagged():
    assert claim_about(Estimate.one_seed(2), BELOW).flags == ("one seed",)
    assert claim_about(ABOVE, BELOW).flags == ()


@pytest.mark.parametrize(
    "claim",
    [
        claim_about(ABOVE, BELOW, ABOVE),
        claim_about(Estimate.one_seed(2), without_null="an identity"),
        claim_about(interval(-math.inf, math.inf), BELOW),
        replace(claim_about(ABOVE, BELOW), expected=Expected(high=2, origin="was 3, now 2, because")),
    ],
)
def test_json_brings_the_claim_back(claim):
    data = json.loads(json.dumps(claim.to_dict(), allow_nan=False))
    assert Claim.from_dict(data) == claim
    assert data["id"] == "waves/W1"
    assert data["verdict"] == str(claim.verdict)


def test_a_verdict_edited_in_the_file_is_judged_anew():
    data = claim_about(BELOW, BELOW).to_dict() | {"verdict": "holds"}
    assert Claim.from_dict(data).verdict is Verdict.FAILS
