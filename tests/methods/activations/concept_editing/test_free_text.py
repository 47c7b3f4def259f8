"""Free continuations, judged; shares and their differences."""

from __future__ import annotations

import numpy
import pytest

from tests.instruments.language.tiny_models import tiny
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.instruments.edit import Add
from tremorscope.instruments.language.generation import generate
from tremorscope.methods.activations.concept_editing.free_text import FreeTextMeasurement, judge_free_text

PROMPTS = ("one two three", "four five six", "seven eight")


def said(verdicts: list[bool | None]) -> FreeTextMeasurement:
    own = tuple(range(len(verdicts)))
    return FreeTextMeasurement(
        prompts=tuple(map(str, own)), written=("",) * len(own), verdicts=tuple(verdicts), clusters=own, units=own
    )


def test_every_continuation_is_judged_once_with_the_edit_at_work(generator):
    import torch

    network = tiny("gpt2")
    edited = network.with_edits(Add(4 * torch.randn(16, generator=generator)).at("acts:resid_post.0@all"))
    found = {}
    for name, view in (("plain", network), ("edited", edited)):
        seen: list[tuple[str, str]] = []

        def judge(prompt: str, text: str, seen: list[tuple[str, str]] = seen) -> bool | None:
            seen.append((prompt, text))
            return None if "two" in text else "five" in text

        found[name] = judge_free_text(view, PROMPTS, judge, max_new_tokens=3, num_samples=2, seed=5, clusters="aab")
        repeated = [prompt for prompt in PROMPTS for _ in range(2)]
        written = generate(view, repeated, max_new_tokens=3, temperature=1.0, seed=5)
        assert seen == list(zip(repeated, written, strict=True))
        assert found[name].written == tuple(written)
        assert found[name].clusters == ("a", "a", "a", "a", "b", "b")
        assert FreeTextMeasurement.of(found[name].to_plain()) == found[name]
    assert found["plain"].written != found["edited"].written


def test_shares_are_among_the_texts_that_could_be_judged():
    found = said([True, True, False, None, None, True])
    assert found.right().value == pytest.approx(3 / 4)
    assert found.judged().value == pytest.approx(4 / 6)
    nothing = said([None, None])
    assert numpy.isnan(nothing.right().value)
    assert (nothing.right().low, nothing.right().high) == (0.0, 1.0)
    assert said([None] * 6).more_right_than(found).high == 1.0


def test_differences_are_of_ratios_and_cancel_what_is_common():
    stream = numpy.random.default_rng(0)
    hard = stream.random(200) < 0.4
    judged = stream.random((2, 200)) < 0.8
    one, other = (
        said([None if not seen else bool(not bad) for seen, bad in zip(row, hard, strict=True)]) for row in judged
    )
    gap = one.more_right_than(other)
    assert gap.value == pytest.approx(one.right().value - other.right().value)
    assert one.more_right_than(one).high == pytest.approx(0.0, abs=1e-12)
    # As wide as a plain bootstrap of the difference of the two ratios over the prompts.
    sees, goods = judged.astype(float), judged * ~hard
    drawn = stream.integers(200, size=(4000, 200))
    ratios = [goods[k][drawn].sum(1) / sees[k][drawn].sum(1) for k in (0, 1)]
    low, high = numpy.quantile(ratios[0] - ratios[1], [0.005, 0.995])
    assert gap.high - gap.low == pytest.approx(high - low, rel=0.15)
    # Far narrower than two shares of other texts would leave it.
    apart = one.right().high - one.right().low
    assert gap.high - gap.low < 0.8 * apart
    assert isinstance(gap, Estimate)


def test_mistakes():
    network = tiny("gpt2")
    with pytest.raises(BadInput, match="verdict of a judge: got 'yes'"):
        judge_free_text(network, PROMPTS, lambda prompt, text: "yes", max_new_tokens=1)
    with pytest.raises(BadInput, match=r"Write \[text\]"):
        judge_free_text(network, "one", lambda prompt, text: True)
    with pytest.raises(BadInput, match="groups of prompts"):
        judge_free_text(network, PROMPTS, lambda prompt, text: True, clusters=[1])
    with pytest.raises(BadInput, match="num_samples: got 0"):
        judge_free_text(network, PROMPTS, lambda prompt, text: True, num_samples=0)
    with pytest.raises(BadInput, match="those of the same prompts"):
        said([True, False]).more_right_than(said([True]))
