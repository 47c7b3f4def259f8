from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.studies import study as registry
from tremorscope.studies.study import Config, all_studies, get_study, knobs, make_config, study, value_of


class Small(Config):
    num_seeds: int = Field(3, description="Members.")


class Silent(Config):
    num_seeds: int = 3


def declared(config: Small, seed: int, run: Run) -> Result:
    raise AssertionError("never called")


def declare(**changes):
    """`declared` as a study, some arguments changed."""
    return study(**({"name": "small", "question": "?", "source": "here", "presets": {"quick": {}}} | changes))(declared)


def test_presets_come_in_the_order_of_size_and_fill_the_configuration(coins):
    assert list(coins.presets) == ["quick", "desk"]
    assert make_config(coins).num_seeds == 3
    assert make_config(coins, "desk").num_seeds == 5
    assert make_config(coins, "desk").plan() == {"members": 5}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("num_seeds", "7", 7),
        ("threshold", "1e-3", 1e-3),
        ("shuffled", "true", True),
        ("limit", "none", None),
        ("limit", "3", 3),
        ("sizes", "[1, 2.5]", (1.0, 2.5)),
        ("sizes", "1,2.5", (1.0, 2.5)),
        ("sizes", "4", (4.0,)),
        ("mint.bias", "0.25", 0.25),
        ("mint.metal", "silver", "silver"),
    ],
)
def test_text_is_read_as_the_type_of_its_field(coins, key, text, value):
    assert value_of(make_config(coins, "quick", {key: text}), key) == value


def test_an_override_keeps_its_nested_neighbours(coins):
    config = make_config(coins, "quick", {"mint": {"bias": 0.5}, "mint.metal": "silver"})
    assert (config.mint.bias, config.mint.metal) == (0.5, "silver")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            {"num_sead": "3"},
            "key of study 'coins': got num_sead; wanted one of num_seeds, .* Did you mean 'num_seeds'?",
        ),
        ({"mint.bais": "3"}, "got mint.bais; .* Did you mean 'mint.bias'?"),
        ({"mint": "3"}, "key of study 'coins': got mint; wanted one of mint.bias, mint.metal."),
        ({"num_seeds": "many"}, "num_seeds of study 'coins': got 'many'; wanted a valid integer. num_seeds: Members."),
        ({"num_seeds": 0}, "num_seeds of study 'coins': got 0; wanted greater than or equal to 1."),
        ({"mint.metal": "tin"}, "mint.metal of study 'coins': got 'tin'; wanted 'gold' or 'silver'."),
        ({"sizes": "a,b"}, "sizes of study 'coins': got 'a,b'; wanted a valid tuple."),
        ({"threshold": "nan"}, "threshold of study 'coins': got 'nan'; wanted a finite number."),
        ({"limit": "80"}, "limit: got 80; wanted at most flips=50."),
        ({"num_seeds": "x", "flips": "y"}, r"num_seeds .*\(1 more of this kind.\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(coins, overrides, sentence):
    with pytest.raises(BadInput, match=sentence.replace("?", "[?]")) as caught:
        make_config(coins, "quick", overrides)
    assert "\n" not in str(caught.value)


def test_an_undefined_preset_names_those_there_are(coins):
    with pytest.raises(BadInput, match=r"got paper; wanted quick or desk\. Use --preset quick\."):
        make_config(coins, "paper")
    with pytest.raises(BadInput, match="Did you mean 'quick'"):
        make_config(coins, "quik")


def test_a_configuration_is_frozen(coins):
    with pytest.raises(ValidationError, match="frozen"):
        make_config(coins).num_seeds = 4


def test_knobs_are_the_dotted_keys_with_their_descriptions(coins):
    found = {knob.key: knob for knob in knobs(coins.config_type)}
    assert found["mint.bias"].description == "Chance of heads."
    assert (found["mint.bias"].default, found["mint.bias"].kind) == (0.9, "float")
    assert "mint" not in found


def test_an_unknown_study_names_the_nearest(coins):
    with pytest.raises(BadInput, match=r"study: got coin; wanted one of coins\. Did you mean 'coins'"):
        get_study("coin")


def test_the_function_stays_as_it_is_and_its_annotation_is_the_configuration(coins):
    assert declare() is declared
    assert get_study("small").config_type is Small


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"presets": {"full": {}}}, "presets of study 'small': got full; wanted some of quick, desk, paper"),
        ({"presets": {}}, "presets of study 'small': got none"),
        ({"cost": {"desk": "1 h"}}, "presets of study 'small': got desk"),
        ({"presets": {"quick": {"seeds": 3}}}, "got seeds; wanted one of num_seeds"),
        ({"config": Silent}, "configuration of study 'small': got no description of num_seeds"),
        ({"name": "coins"}, "test_study; wanted the one in coins only. Give one of them another name."),
    ],
)
def test_a_wrong_declaration_fails_at_once(coins, changes, sentence):
    with pytest.raises(BadInput, match=re.escape(sentence)):
        declare(**changes)
    assert [one.name for one in all_studies()] == ["coins"]


def test_a_function_without_a_configuration_is_refused(coins):
    def bare(config, seed, run):
        raise AssertionError("never called")

    with pytest.raises(BadInput, match="got None as the type of the first argument; wanted a subclass of Config"):
        study(name="bare", question="?", source="here", presets={"quick": {}})(bare)


def test_studies_of_other_packages_come_by_entry_point(monkeypatch, tmp_path):
    """One package with a study, one that does not import: the first works, the second is named."""
    all_studies()  # so that no module of the house is first imported into the registry of this test
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tremorscope.studies]\nbroken = not_there_at_all\ncoins = coins\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "_loaded", [])
    monkeypatch.delitem(sys.modules, "coins", raising=False)
    with pytest.warns(UserWarning, match="entry point 'broken' .* did not import"):
        found = all_studies()
    assert [one.name for one in found] == ["coins"]


def test_every_study_of_the_house_states_question_source_cost_and_a_quick_preset():
    for one in all_studies():
        assert one.question.endswith("?"), one.name
        assert one.source, one.name
        assert "quick" in one.presets, one.name
        assert set(one.cost) == set(one.presets), one.name
