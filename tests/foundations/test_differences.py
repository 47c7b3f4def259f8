from dataclasses import replace

import pytest

from tests.foundations.conftest import claim_about, interval
from tremorscope.foundations.differences import apart, differences
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Table


def heights(*rows):
    return Table.of_rows(
        [{"pond": pond, "height": height, "depth": depth} for pond, height, depth in rows],
        name="heights",
        title="Heights",
        caption="In metres.",
    )


def test_a_result_does_not_differ_from_itself(result):
    found = differences(result, replace(result, provenance={"seconds": 99.0}, title="other words"))
    assert (found.settings, found.claims, found.estimates, found.unmatched) == ([], [], [], [])
    assert (found.num_equal_claims, found.num_equal_estimates) == (1, 1)


def test_settings_are_flat_and_those_that_differ(result):
    first = replace(
        result,
        config={"width": 4, "mint": {"bias": 0.9, "metal": "gold"}, "old": 1},
        provenance={"environment": {"packages": {"torch": "2.13.0", "numpy": "2.0"}, "cpu": "x"}},
    )
    second = replace(
        first,
        seed=101,
        config={"width": 8, "mint": {"bias": 0.5, "metal": "gold"}, "new": None},
        provenance={"environment": {"packages": {"torch": "2.14.0", "numpy": "2.0"}, "cpu": "x"}},
    )
    assert [(each.key, each.first, each.second) for each in differences(first, second).settings] == [
        ("seed", 100, 101),
        ("config.width", 4, 8),
        ("config.mint.bias", 0.9, 0.5),
        ("config.old", 1, None),
        ("made with packages.torch", "2.13.0", "2.14.0"),
    ]


def test_claims_are_matched_by_id(result):
    two = claim_about(interval(2, 3), interval(0, 0.5), row="W2")
    three = claim_about(interval(2, 3), interval(0, 0.5), row="W3")
    lower = claim_about(interval(0.1, 0.2), interval(0, 0.5))
    found = differences(replace(result, claims=[*result.claims, two]), replace(result, claims=[three, lower]))
    assert [pair.id for pair in found.claims] == ["waves/W1", "waves/W2", "waves/W3"]
    assert [(pair.first is None, pair.second is None) for pair in found.claims] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert [pair.is_apart for pair in found.claims] == [True, False, False]
    assert (found.claims[0].first.verdict, found.claims[0].second.verdict) == ("holds", "fails")


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"statement": "Waves are very high.", "source": "a talk"}, False),
        ({"low": 1.5}, True),
        ({"measured": interval(2, 3.5)}, True),
    ],
)
def test_words_around_a_claim_are_no_difference(result, changes, differs):
    parts = {"measured": interval(2, 3)} | changes
    other = replace(result, claims=[claim_about(parts.pop("measured"), interval(0, 0.5), **parts)])
    assert bool(differences(result, other).claims) is differs


def test_a_null_that_moved_is_a_difference(result):
    other = replace(result, claims=[claim_about(interval(2, 3), interval(0, 0.6))])
    assert len(differences(result, other).claims) == 1


def test_estimates_are_matched_by_the_labels_of_their_rows(result):
    first = replace(result, tables=[heights(("north", interval(0, 1), 3.0), ("south", interval(5, 6), 1.0))])
    other = heights(("south", interval(7, 8), 9.0), ("north", interval(0, 1), 3.0), ("east", interval(0, 1), 1.0))
    found = differences(first, replace(result, tables=[other]))
    assert [(pair.table, pair.row, pair.column, pair.is_apart) for pair in found.estimates] == [
        ("heights", "south", "height", True)
    ]
    assert (found.num_equal_estimates, found.unmatched) == (1, ["table heights, east: second run only"])


def test_rows_that_labels_do_not_tell_apart_are_matched_by_position(result):
    first = replace(result, tables=[heights(("a", interval(0, 1), 1.0), ("a", interval(1, 2), 1.0))])
    second = replace(result, tables=[heights(("a", interval(0, 1), 1.0), ("a", interval(1, 3), 1.0))])
    assert [pair.row for pair in differences(first, second).estimates] == ["row 2"]


def sweep(*rows):
    return Table.of_rows(
        [{"group": "real", "live": live, "lr": lr, "width": width, "x": x} for live, lr, width, x in rows],
        name="heights",
        title="Sweep",
        caption="By point.",
    )


def test_numbers_name_rows_where_both_tables_have_them(result):
    low, high = interval(0, 1), interval(2, 3)
    first = replace(result, tables=[sweep((150, 0.1, 1, low), (150, 0.2, 1, low))])
    second = replace(result, tables=[sweep((154, 0.2, 1, high), (154, 0.1, 1, low))])
    found = differences(first, second)
    assert [pair.row for pair in found.estimates] == ["0.2"], "neither the constants nor a count that moved"
    assert (found.num_equal_estimates, found.unmatched) == (1, [])


def test_a_wider_sweep_is_matched_where_it_overlaps(result):
    low, high = interval(0, 1), interval(2, 3)
    first = replace(result, tables=[sweep(*((150, 0.1, width, low) for width in (1, 2, 3)))])
    second = replace(result, tables=[sweep(*((150, 0.1, width, high) for width in (2, 3, 4)))])
    found = differences(first, second)
    assert [pair.row for pair in found.estimates] == ["2", "3"]
    assert found.unmatched == ["table heights, 1: first run only", "table heights, 4: second run only"]


def test_tables_of_one_run_only_are_named(result):
    first = replace(result, tables=[replace(result.tables[0], name="old")])
    second = replace(result, tables=[replace(result.tables[0], name="new")])
    assert differences(first, second).unmatched == ["table old: first run only", "table new: second run only"]


def test_all_of_it_is_json(result):
    import json

    other = replace(result, claims=[claim_about(Estimate.one_seed(1.0), interval(0, 1))], seed=7)
    data = json.loads(json.dumps(differences(result, other).to_dict(), allow_nan=False))
    assert data["settings"] == [{"key": "seed", "first": 100, "second": 7}]
    assert (data["claims"][0]["second"]["measured"]["value"], data["claims"][0]["apart"]) == (1.0, False)
    assert list(data) == ["settings", "claims", "equal_claims", "estimates", "equal_estimates", "unmatched"]


def test_intervals_that_touch_are_not_apart():
    assert not apart(interval(0, 1), interval(1, 2))
    assert apart(interval(1.5, 2), interval(0, 1))
    assert apart(Estimate.exact(1), Estimate.exact(2))
