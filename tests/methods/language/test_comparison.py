from __future__ import annotations

import json

import pytest

from tests.methods.language.planted import random_gpt2, tokenizer
from tremorscope.foundations.errors import BadInput
from tremorscope.methods.language.comparison import AbilitiesMeasurement, measure_abilities
from tremorscope.methods.language.judgements import Judgements, pooled
from tremorscope.methods.language.prose import ProseLosses


def judgements(**changed) -> Judgements:
    given = {
        "strand": "agreement",
        "row": "simple",
        "held_out": "both",
        "judged_by": "choice",
        "chance": 0.5,
        "templates": ("a", "a", "b", "b"),
        "units": ("1", "2", "3", "4"),
        "prompts": ("a 1", "a 2", "b 3", "b 4"),
        "correct": (True, True, False, True),
    }
    return Judgements(**{**given, **changed})


@pytest.fixture(scope="module")
def measured() -> AbilitiesMeasurement:
    networks = {name: random_gpt2(tokenizer(), seed=seed) for seed, name in enumerate(("own", "null"))}
    return measure_abilities(networks, count=3, split="validation")


def test_the_same_prompt_counts_once():
    one = judgements()
    again = judgements(prompts=("a 1", "a 2", "b 3", "b 5"), units=("1", "2", "3", "5"))
    whole = pooled([one, again])
    assert whole.prompts == ("a 1", "a 2", "b 3", "b 4", "b 5")
    assert whole.accuracy().value == pytest.approx(0.8)
    assert whole.accuracy().n == 5
    assert one.by_template() == {"a": (2, 2), "b": (1, 2)}


def test_few_wordings_are_flagged():
    assert judgements().flags == (
        "agreement, simple (both held out, choice): 2 wordings: its interval is narrow for other wordings",
    )
    assert "that one only" in judgements(templates=("a",) * 4).flags[0]
    many = tuple("abcdefg")
    assert judgements(templates=many, units=many, prompts=many, correct=(True,) * 7).flags == ()


def test_rows_survive_json_and_pool(measured):
    again = AbilitiesMeasurement.of(json.loads(json.dumps(measured.to_plain())))
    assert again == measured
    joined = measured.joined([again])
    assert [one.correct for one in joined.judgements["own"]] == [one.correct for one in measured.judgements["own"]]
    both = joined.row("own", "calendar", ("weekday after", "weekday before"), held_out="both", judged_by="next word")
    parts = [
        joined.row("own", "calendar", f"weekday {way}", held_out="both", judged_by="next word")
        for way in ("after", "before")
    ]
    assert len(both.correct) == sum(len(part.correct) for part in parts)


def test_every_row_has_a_line_and_a_dot_for_each_network(measured):
    table = measured.tables()[0]
    assert table.num_rows == sum(map(len, measured.judgements.values())) == 2 * 48
    (figure,) = measured.figures()
    chance, own, null = figure.to_plotly()["data"]
    assert chance["name"] == "chance"
    assert len(own["x"]) == len(null["x"]) == len(chance["x"]) == 48 - 16
    assert len({own["marker"]["symbol"], null["marker"]["symbol"]}) == 2
    name = "calendar: weekday after, words strewn in"
    row = measured.row("own", "calendar", "weekday after", held_out="strewn", judged_by="among the unit's names")
    place = figure.to_plotly()["layout"]["yaxis"]["ticktext"].index(name)
    assert own["x"][place] == pytest.approx(row.accuracy().value)
    wordings = next(table for table in measured.tables() if table.name == "abilities_by_wording")
    assert set(wordings.columns["strand"]) >= {"copying", "calendar"}


def test_prose_is_pooled_by_row_and_compared_row_by_row():
    losses = {"model": (1.0, 2.0, 1.5), "unigram": (3.0, 3.0, 3.5), "bigram": (2.0,) * 3, "trigram": (2.0, 3.0, 2.5)}
    one = ProseLosses(modules=("a", "a", "b"), rows=(0, 1, 2), losses=losses)
    ratio = one.ratio("model", "trigram")
    assert ratio.value == ratio.low == ratio.high == pytest.approx(2.718281828**-1)
    assert one.joined([one]) == one
    assert ProseLosses.of(json.loads(json.dumps(one.to_plain()))) == one
    table = AbilitiesMeasurement(judgements={}, prose={"own": one}).tables()[-1]
    assert table.columns["predictor"] == ["own", "unigram", "bigram", "trigram"]


def test_what_was_not_measured_is_told(measured):
    with pytest.raises(BadInput, match="abilities of 'own': got agreement: hard, both held out"):
        measured.row("own", "agreement", "hard", held_out="both")
    with pytest.raises(BadInput, match="wanted one of none measured"):
        measured.row("other", "agreement", "simple", held_out="both")
    with pytest.raises(BadInput, match="judgements to pool"):
        pooled([])
    with pytest.raises(BadInput, match="wanted one length"):
        judgements(correct=(True,))
