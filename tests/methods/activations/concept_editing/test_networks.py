"""Fitting and editing inside networks: rows A6 and A12, reach, sequential fits, selection, baselines, mistakes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from tests.instruments.language.tiny_models import WORDS, tiny
from tremorscope.foundations.errors import BadInput, SiteNotFound
from tremorscope.instruments.edit import Affine
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.language.scoring import next_token_logits
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.concept_editing.affine_edits import ablate, ace
from tremorscope.methods.activations.concept_editing.baselines import instructed, next_word_loss, train_edit
from tremorscope.methods.activations.concept_editing.examples import recorded_rows
from tremorscope.methods.activations.concept_editing.fitting import fit_concept, fit_sites, moved
from tremorscope.methods.activations.concept_editing.gauge import measure_gauge
from tremorscope.methods.activations.concept_editing.random_twin import random_edit, random_twin
from tremorscope.methods.activations.concept_editing.reach import measure_reach
from tremorscope.methods.activations.concept_editing.response_curve import measure_response
from tremorscope.methods.activations.concept_editing.scorers import (
    classes_of,
    decides,
    is_above,
    matches,
    token_log_odds,
)
from tremorscope.methods.activations.concept_editing.site_selection import select_site
from tremorscope.methods.activations.concept_editing.streaming import fit_rows
from tremorscope.methods.activations.concept_editing.swept_response import sweep_responses

CLOSE = 1e-5


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Fork(nn.Module):
    """The decision passes through `used`; `idle` sees everything and is heard by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle, self.head = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.used(x)) + 0 * self.idle(x)[:, :2]


def made(module: nn.Module, seed: int = 0) -> Network:
    stream = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=stream) * 0.7
    return Network(module)


def perceptron() -> Network:
    return made(nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)))


def texts(number: int, first: str, seed: int = 0) -> list[str]:
    stream = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(WORDS), (number, 4), generator=stream).tolist()
    return [f"{first} " + " ".join(WORDS[word] for word in row) for row in drawn]


@pytest.fixture
def two(generator):
    x = torch.randn(60, 3, generator=generator)
    return x[:30] - 0.8, x[30:] + 0.8


def test_a_fit_to_a_network_is_the_fit_to_its_activations(two):
    network = perceptron()
    fit = fit_concept(network, *two, "acts:1", held_out=two, batch_size=7)
    hidden = [torch.relu(network.module[0](some)) for some in two]
    whole = fit_rows(*hidden, site="acts:1", held_out=(hidden[0], hidden[1]))
    torch.testing.assert_close(fit.directions, whole.directions)
    torch.testing.assert_close(fit.within(), whole.within())
    assert fit.diagnostics[0].auc == whole.diagnostics[0].auc
    rows = torch.cat(list(recorded_rows(tiny("gpt2"), ["one two", "three four five"], "acts:resid_post.0")))
    assert len(rows) == 3 + 4  # every token but padding, each text's own first one included


def test_moving_the_origin_changes_ablation_and_not_ace(two):
    """Row A6."""
    network, shift = perceptron(), torch.tensor([3.0, -2.0, 4.0, 1.0, -3.0, 2.0])
    inputs = torch.cat(two)
    for alpha in (0.0, 1.0):
        kept = measure_gauge(network, *two, "acts:1", lambda fit, at=alpha: ace(fit, at), shift, inputs=inputs)
        assert kept.change < 1e-4
    moved_by = measure_gauge(network, *two, "acts:1", ablate, shift, inputs=inputs)
    assert moved_by.change > 0.1
    assert moved_by.scale > moved_by.change


def test_moving_the_origin_of_a_language_model():
    network = tiny("gpt2")
    shift = torch.randn(16, generator=torch.Generator().manual_seed(1))
    negatives, positives = texts(10, "one"), texts(10, "two")
    site = "acts:resid_post.0@all"
    kept = measure_gauge(network, negatives, positives, site, ace, shift, inputs=negatives)
    other = measure_gauge(network, negatives, positives, site, ablate, shift, inputs=negatives)
    assert kept.change < 1e-4
    assert other.change > 0.1


@pytest.mark.parametrize("name", ["gpt2", "rwkv", "mamba"])
def test_ace_holds_at_the_sites_of_language_models_and_while_they_write(name):
    """Row A12, with rows A1 to A3 at the site itself."""
    network = tiny(name)
    negatives, positives = texts(12, "one"), texts(12, "two")
    site = "acts:resid_post.0@last"
    fit = fit_concept(network, negatives, positives, site)
    clean = torch.cat(list(recorded_rows(network, positives, site)))
    edited = network.with_edits(ace(fit, 0.4).at(site))
    after = torch.cat(list(recorded_rows(edited, positives, site)))
    torch.testing.assert_close(fit.coordinates(after), torch.full((12, 1), 0.4).double(), atol=CLOSE, rtol=0)
    unit = (fit.directions / fit.directions.norm()).float()
    across = (after - clean) - (after - clean) @ unit @ unit.mT
    assert float(across.norm(dim=1).max()) < CLOSE * float(clean.norm(dim=1).max())
    again = torch.cat(list(recorded_rows(edited.with_edits(ace(fit, 0.4).at(site)), positives, site)))
    torch.testing.assert_close(again, after, atol=CLOSE, rtol=CLOSE)
    everywhere = network.with_edits(ace(fit, 3.0).at(moved(fit.site, "all")))
    prompts = [text.rsplit(" ", 2)[0] for text in positives[:3]]
    written = generate(everywhere, prompts, max_new_tokens=3)
    for prompt, said in zip(prompts, written, strict=True):
        tokens = network.tokenizer(prompt)["input_ids"]
        length = len(tokens)
        for _ in range(3):  # all of it again for every token: no memory
            kwargs = {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens)).long()}
            with torch.no_grad():
                tokens.append(int(everywhere.apply(everywhere.params, Batch((), kwargs, None))[0, -1].argmax()))
            if tokens[-1] == 0:
                break
        assert said.split() == network.tokenizer.decode(tokens[length:], skip_special_tokens=True).split()
    assert not torch.allclose(next_token_logits(everywhere, prompts), next_token_logits(network, prompts), atol=0.1)


def test_ace_holds_in_an_lstm(generator):
    network = made(Lstm())
    x = torch.randn(40, 5, 3, generator=generator)
    negatives, positives = x[:20], x[20:] + 1
    site = "acts:lstm:out.0@-1"
    fit = fit_concept(network, negatives, positives, site)
    edited = network.with_edits(ace(fit, 0.7).at(site))
    after = edited.record(site, Batch((x,), {}, None))
    torch.testing.assert_close(fit.coordinates(after), torch.full((40, 1), 0.7).double(), atol=CLOSE, rtol=0)
    batch = Batch((x,), {}, None)
    assert not torch.allclose(edited.apply(edited.params, batch), network.apply(network.params, batch))


def test_reach_is_all_where_everything_passes_and_nothing_where_nothing_does(two):
    network = made(Fork(), seed=3)
    decision = is_above(lambda view, some: view.apply(view.params, Batch((some,), {}, None))[:, 0], 0.0)
    every, none = (measure_reach(network, *two, site, decision) for site in ("acts:used", "acts:idle"))
    assert every.flipped.value == 1.0
    assert every.advice is None
    assert none.flipped.value == 0.0
    assert "Edit all positions (@all), a later block, or several blocks" in none.advice
    constant = measure_reach(network, *two, "acts:used", lambda view, some: torch.ones(len(some), dtype=torch.bool))
    assert constant.flipped is None
    assert "the same decisions" in constant.advice


def test_sequential_fits_see_the_edits_before(two):
    network = perceptron()
    joint, one_by_one = (
        fit_sites(network, *two, ["acts:1", "acts:3"], order=order) for order in ("joint", "sequential")
    )
    torch.testing.assert_close(joint.fits[0].directions, one_by_one.fits[0].directions)
    view = network.with_edits(ace(joint.fits[0]).at("acts:1"))
    again = fit_concept(view, *two, "acts:3")
    torch.testing.assert_close(one_by_one.fits[1].negative.mean, again.negative.mean)
    assert float((joint.fits[1].negative.mean - again.negative.mean).norm()) > 1e-3
    # Set one after the other, the coordinate of the second site is what was asked; jointly too, its data moved or not.
    edited = network.with_edits(*one_by_one.edits("ace", 1.0))
    after = edited.record("acts:3", Batch((torch.cat(two),), {}, None))
    torch.testing.assert_close(one_by_one.fits[1].coordinates(after), torch.ones(60, 1).double(), atol=1e-4, rtol=0)
    twice = fit_sites(network, *two, ["acts:1", "acts:1"], order="sequential")
    assert len(twice.fits) == 1
    assert "same mean" in twice.skipped["acts:1"]


def test_the_site_that_can_be_edited_is_chosen(two):
    network = made(Fork(), seed=3)
    before = classes_of(network, torch.cat(two))
    examples = {"first": torch.cat(two)[before == 0], "second": torch.cat(two)[before == 1]}
    chosen = select_site(
        network, examples["first"], examples["second"], ["acts:idle", "acts:used"], decides(1), validation=examples
    )
    assert str(chosen.best.fit.site) == "acts:used"
    assert chosen.best.error < 0.2 < chosen.candidates[1].error
    assert chosen.tables()[0].num_rows == 2


def test_a_trained_edit_learns_what_is_asked():
    network = tiny("gpt2")
    examples = texts(16, "one")
    wanted, others = [" five", " six"], [" seven", " eight"]
    scorer = is_above(token_log_odds(wanted, others))
    for these, those, share in ((wanted, others, 1.0), (others, wanted, 0.0)):
        loss = next_word_loss(network, these, those)
        trained = train_edit(network, examples, "acts:resid_post.0@last", loss, num_steps=40, batch_size=8, lr=0.1)
        assert trained.last_loss < trained.first_loss
        view = network.with_edits(trained.edit.at("acts:resid_post.0@last"))
        assert float(scorer(view, texts(16, "one", seed=1)).double().mean()) == pytest.approx(share, abs=0.1)
    with pytest.raises(BadInput, match="the same first token on both sides"):
        next_word_loss(network, [" five"], [" five six"])
    with pytest.raises(BadInput, match="rank 0"):
        train_edit(network, examples, "acts:resid_post.0@last", loss, rank=0)


def test_scores_of_texts():
    network = tiny("gpt2")
    prompts = texts(3, "one")
    logits = next_token_logits(network, prompts).double().log_softmax(-1)
    p = logits[:, [7, 8]].exp().sum(1)  # five and six, behind three special tokens
    alone = token_log_odds([" five", " six"])(network, prompts)
    torch.testing.assert_close(alone, (p / (1 - p)).log(), atol=1e-5, rtol=1e-4)
    against = token_log_odds([" five"], [" six"])(network, prompts)
    torch.testing.assert_close(against, logits[:, 7] - logits[:, 8], atol=1e-5, rtol=1e-4)
    behind = instructed(token_log_odds([" five"], [" six"]), "two ")(network, prompts)
    torch.testing.assert_close(behind, token_log_odds([" five"], [" six"])(network, [f"two {p}" for p in prompts]))
    written = generate(network, prompts, max_new_tokens=2)
    found = matches("e|o", max_new_tokens=2)(network, prompts)
    assert found.tolist() == ["e" in text or "o" in text for text in written]
    assert not matches("Z", max_new_tokens=2)(network, prompts).any()
    with pytest.raises(BadInput, match="regular expression: got '\\('"):
        matches("(")
    with pytest.raises(BadInput, match="texts, which this score needs"):
        matches("a")(network, torch.zeros(2, 2))
    with pytest.raises(BadInput, match="nothing; wanted text"):
        instructed(decides(1), "")
    with pytest.raises(BadInput, match="at least one on each side"):
        token_log_odds([])
    with pytest.raises(BadInput, match="classes: got none"):
        decides()


def test_classes_of_different_length_or_template_are_flagged():
    network = tiny("gpt2")
    short = texts(10, "one")
    longer = fit_concept(network, short, [f"{text} one two three" for text in short], "acts:resid_post.0@last")
    assert any("tokens on average" in flag and "may encode the format" in flag for flag in longer.flags)
    ended = fit_concept(
        network, [f"{text} one" for text in short], [f"{text} two" for text in short], "acts:embed@last"
    )
    assert any("no negative text has the last token of a positive one" in flag for flag in ended.flags)
    alike = fit_concept(network, short, texts(10, "one", seed=1), "acts:resid_post.0@last")
    assert not any("format" in flag for flag in alike.flags)


def test_random_twins_have_the_length_of_the_direction(two):
    fit = fit_concept(perceptron(), *two, "acts:1")
    twin = random_twin(fit, 3)
    torch.testing.assert_close(twin.directions.norm(), fit.directions.norm())
    assert abs(float(nn.functional.cosine_similarity(twin.directions, fit.directions, dim=0))) < 0.99
    assert torch.equal(random_twin(fit, 3).directions, twin.directions)


@pytest.mark.parametrize(("name", "word", "other"), [("gpt2", "three", "four"), ("rwkv", "four", "eight")])
def test_swept_responses_are_those_of_full_passes(name, word, other):
    network = tiny(name)
    classes = {"first": texts(7, "one"), "second": texts(5, "two", seed=1)}
    site, these, others = "acts:resid_post.0@last", [f" {word}"], [f" {other}"]
    fit = fit_concept(network, classes["first"], classes["second"], site)
    clusters = {key: [text.split()[1] for text in some] for key, some in classes.items()}
    edits = {"ACE": (partial(ace, fit), (-2.0, 0.0, 3.0)), "ablation": (lambda alpha: ablate(fit), (0.0,))}
    swept = sweep_responses(network, edits, classes, site, these=these, others=others, clusters=clusters)
    scorer = is_above(token_log_odds(these, others))
    moved_by = 0
    for key, (edit, alphas) in edits.items():
        slow = measure_response(
            network,
            lambda alpha, edit=edit: [edit(alpha).at(site)],
            classes,
            scorer,
            name=key,
            score_name="share",
            alphas=alphas,
            clusters=clusters,
        )
        assert swept[key].to_plain() == slow.to_plain()
        moved_by += sum(int((one.edited != one.unedited).sum()) for one in slow.classes.values())
    assert moved_by > 0  # else edits that were never made would pass
    with pytest.raises(BadInput, match=r"continuations ' five six': got one of several tokens"):
        sweep_responses(network, edits, classes, site, these=[" five six"], others=others)
    with pytest.raises(BadInput, match="alphas of ACE"):
        sweep_responses(network, {"ACE": (partial(ace, fit), ())}, classes, site, these=these, others=others)


def test_random_edits_have_the_norms_of_the_trained_one(generator):
    left, right, shift = (torch.randn(5, k, generator=generator) for k in (2, 2, 1))
    edit = Affine(left, right, None, shift[:, 0])
    twin = random_edit(edit, 3)
    for one, other in ((edit.left, twin.left), (edit.right, twin.right), (edit.shift[:, None], twin.shift[:, None])):
        torch.testing.assert_close(one.norm(dim=0), other.norm(dim=0))
        assert float(nn.functional.cosine_similarity(one, other, dim=0).abs().max()) < 0.99
    assert torch.equal(random_edit(edit, 3).shift, twin.shift)
    assert random_edit(Affine(left[:, :0], right[:, :0]), 3).left.shape == (5, 0)


def test_mistakes(two):
    network = perceptron()
    with pytest.raises(BadInput, match="positive examples: got none"):
        fit_concept(network, two[0], two[1][:0], "acts:1")
    with pytest.raises(BadInput, match=r"Write \[text\]"):
        fit_concept(tiny("gpt2"), "one two", ["one"], "acts:resid_post.0@last")
    with pytest.raises(SiteNotFound):
        fit_concept(network, *two, "acts:9")
    with pytest.raises(BadInput, match="wanted a single concept"):
        fit_concept(network, two[0], {"a": two[1], "b": two[1] + 1}, "acts:1", held_out=two)
    with pytest.raises(BadInput, match="joint or sequential"):
        fit_sites(network, *two, ["acts:1"], order="all")
    with pytest.raises(BadInput, match="sites: got none"):
        fit_sites(network, *two, [])
    with pytest.raises(BadInput, match="pairs to interchange: got none"):
        measure_reach(network, two[0][:0], two[1], "acts:1", decides(1))
    fit = fit_concept(network, *two, "acts:1")
    with pytest.raises(BadInput, match="wanted finite numbers that rise"):
        measure_response(network, lambda a: [ace(fit, a).at("acts:1")], {"x": two[0]}, decides(1), alphas=[1.0, 0.0])
    with pytest.raises(BadInput, match="classes of inputs: got none"):
        measure_response(network, lambda a: [ace(fit, a).at("acts:1")], {}, decides(1))
    with pytest.raises(BadInput, match="score: got shape"):
        measure_response(network, lambda a: [ace(fit, a).at("acts:1")], {"x": two[0]}, lambda *_: torch.zeros(3))
