"""Training of language models: against a slow twin, killed in between, and repeated."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import nn

from tests.instruments.microworld.reference import unchecked
from tremorscope.foundations.arrays import read_arrays_and_metadata
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import numpy_generator
from tremorscope.instruments.language.answers import DueAnswers, answer_loss
from tremorscope.instruments.language.training import LanguageTraining, next_token_loss, train_language_model
from tremorscope.instruments.recurrent import RecurrentConfig, RecurrentLanguageModel

WORDS, LENGTH = 11, 6
SMALL = LanguageTraining(batch_rows=4, learning_rate=0.02, warmup_steps=3, precision="float32", save_every=5, epochs=2)


def model(seed: int = 0) -> RecurrentLanguageModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return RecurrentLanguageModel(RecurrentConfig(vocab_size=WORDS, width=6, hidden_size=8, num_layers=2)).eval()


def text(rows: int = 42) -> numpy.ndarray:
    """Each word is followed by the next one: there is something to learn."""
    starts = numpy_generator(0, "text").integers(WORDS, size=(rows, 1))
    return ((starts + numpy.arange(LENGTH)) % WORDS).astype(numpy.uint16)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_is_adamw_with_warm_up_and_cosine_written_out():
    trained, twin, rows = model().double(), model().double(), text()
    training = LanguageTraining(
        batch_rows=8, learning_rate=0.01, warmup_steps=2, weight_decay=0.3, largest_gradient=0.1, precision="float32"
    )
    curve = train_language_model(trained, rows, training)
    steps = len(rows) // 8
    order = numpy_generator(0, "order of rows", 0).permutation(len(rows))
    mean = {name: torch.zeros_like(value) for name, value in twin.named_parameters()}
    square = {name: torch.zeros_like(value) for name, value in twin.named_parameters()}
    for step in range(steps):
        tokens = torch.from_numpy(rows[numpy.sort(order[step * 8 : step * 8 + 8])].astype(numpy.int64))
        log_p = twin(tokens).logits.log_softmax(-1)
        loss = -sum(log_p[row, place, tokens[row, place + 1]] for row in range(8) for place in range(LENGTH - 1)) / (
            8 * (LENGTH - 1)
        )
        assert float(curve.losses[step]) == pytest.approx(float(loss.detach()), abs=1e-5)
        twin.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(value.grad.square().sum()) for value in twin.parameters()))
        rate = 0.01 * min(1, (step + 1) / 2) * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.no_grad():
            for name, value in twin.named_parameters():
                gradient = value.grad * min(1.0, 0.1 / (norm + 1e-6))
                mean[name] = 0.9 * mean[name] + 0.1 * gradient
                square[name] = 0.98 * square[name] + 0.02 * gradient**2
                if value.ndim > 1:
                    value.mul_(1 - rate * 0.3)
                corrected = square[name] / (1 - 0.98 ** (step + 1))
                value.sub_(rate * mean[name] / (1 - 0.9 ** (step + 1)) / (corrected.sqrt() + 1e-8))
    for name, value in trained.named_parameters():
        assert torch.allclose(value, dict(twin.named_parameters())[name], atol=1e-6), name


def test_it_learns_and_repeats():
    one, other = model(), model()
    first = train_language_model(one, text(), SMALL)
    assert first.losses[-1] < 0.5 * first.losses[0]
    assert torch.equal(first.losses, train_language_model(other, text(), SMALL).losses)
    assert equal(weights(one), weights(other))
    third = model()
    train_language_model(third, text(), LanguageTraining(batch_rows=4, seed=1, precision="float32", epochs=2))
    assert not equal(weights(one), weights(third))
    assert all(value.grad is None for value in one.parameters())


@pytest.mark.parametrize("stop", [1, 5, 12, 19])
def test_what_is_broken_off_goes_on_and_ends_the_same(tmp_path, stop):
    unbroken, broken = model(), model()
    whole = train_language_model(unbroken, text(), SMALL)

    def crash(done: int, num_steps: int, loss: float) -> None:
        if done == stop:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_language_model(broken, text(), SMALL, state=state, on_step=crash)
    seen: list[int] = []
    fresh = model(seed=9)  # its own weights are replaced by those of the file
    start = model() if stop < 5 else fresh
    curve = train_language_model(start, text(), SMALL, state=state, on_step=lambda done, *_: seen.append(done))
    assert seen[0] == stop // 5 * 5 + 1
    assert equal(weights(start), weights(unbroken))
    assert torch.equal(curve.losses, whole.losses)


def test_a_checkpoint_is_the_whole_training_so_far():
    stopped, whole, kept = model(), model(), {}
    curve = train_language_model(stopped, text(), SMALL, stop_at=7)
    train_language_model(whole, text(), SMALL, at_steps={7: lambda module: kept.update(weights(module))})
    assert len(curve.losses) == 7
    assert equal(weights(stopped), kept)


def test_mixed_precision_is_near_and_leaves_float32_weights():
    exact, mixed = model(), model()
    one = train_language_model(exact, text(), SMALL)
    other = train_language_model(mixed, text(), LanguageTraining(**{**vars(SMALL), "precision": "bfloat16"}))
    assert not torch.equal(one.losses, other.losses)
    assert torch.allclose(one.losses, other.losses, atol=0.1)
    assert {value.dtype for value in mixed.parameters()} == {torch.float32}


def test_the_random_state_and_threads_stay():
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    train_language_model(model(), text(), LanguageTraining(batch_rows=8, threads=2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_loss_of_what_comes_next():
    tokens = torch.tensor([[1, 2, 3]])
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 2] = logits[0, 1, 3] = 50.0
    assert float(next_token_loss(logits, tokens)) == pytest.approx(0, abs=1e-6)
    assert float(next_token_loss(logits.roll(1, -1), tokens)) == pytest.approx(50)


def test_smoothed_means_cover_every_step():
    curve = train_language_model(model(), text(), SMALL)
    ends, means = curve.smoothed(6)
    assert ends == [6, 12, 18, 20]
    assert means[-1] == pytest.approx(float(curve.losses[18:].mean()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_rows": 0}, "batch_rows: got 0; wanted at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate: got 0\.0; wanted more than 0"),
        ({"weight_decay": -1.0}, r"weight_decay: got -1\.0; wanted 0 or more"),
        ({"beta2": 1.0}, "beta1 and beta2: got 0.9 and 1.0; wanted 0 to 1"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(BadInput, match=message):
        unchecked(LanguageTraining)(**change) if hasattr(LanguageTraining, "__wrapped__") else LanguageTraining(
            **change
        )


def test_wrong_trainings_are_refused(tmp_path):
    with pytest.raises(BadInput, match=r"rows to train on: got 3; wanted at least one batch of 4\. Use more text"):
        train_language_model(model(), text(3), SMALL)
    state = tmp_path / "state.safetensors"
    train_language_model(model(), text(), SMALL, state=state, stop_at=5)
    with pytest.raises(BadInput, match="got that of another text, model or setting"):
        train_language_model(model(), text(41), SMALL, state=state)
    wild = LanguageTraining(
        batch_rows=4, learning_rate=1e30, warmup_steps=0, precision="float32", largest_gradient=1e30
    )
    with pytest.raises(BadInput, match=r"training diverged at step .*Lower the learning rate"):
        train_language_model(model(), text(), wild)


def due(rows: numpy.ndarray, word: int = 0) -> DueAnswers:
    """Even words are due two tokens before they come; with 1, the even word that is next to an odd one."""
    wanted = numpy.zeros(rows.shape, dtype=numpy.uint8)
    ahead = rows[:, 2:]
    wanted[:, :-2] = numpy.where(ahead % 2 == word, ahead // 2 + 1, 0)
    return DueAnswers(groups=(tuple(range(0, WORDS, 2)),), wanted=wanted)


def test_answers_that_are_due_are_learnt():
    rows = text()
    answers = due(rows)
    plain, asked = model(), model()
    one = train_language_model(plain, rows, SMALL)
    more = LanguageTraining(**{**vars(SMALL), "answer_weight": 2.0})
    other = train_language_model(asked, rows, more, answers=answers)
    assert float(one.losses[0]) == float(other.losses[0]), "the curve is that of the next token alone"
    tokens, wanted = torch.from_numpy(rows.astype(numpy.int64)), torch.from_numpy(answers.wanted.astype(numpy.int64))
    with torch.no_grad():
        losses = [float(answer_loss(net(tokens).logits, wanted, answers.groups)) for net in (plain, asked)]
    assert losses[1] < 0.7 * losses[0]
    third = model()
    train_language_model(third, rows, SMALL, answers=answers)
    assert equal(weights(third), weights(plain)), "without a weight they change nothing"


def test_a_step_goes_down_the_gradient_of_both_losses():
    rows = text(4)
    training = LanguageTraining(
        batch_rows=4, learning_rate=0.1, warmup_steps=0, weight_decay=0.0, precision="float32", answer_weight=0.5
    )
    answers, stepped, twin = due(rows), model().double(), model().double()
    train_language_model(stepped, rows, training, answers=answers)
    tokens, wanted = torch.from_numpy(rows.astype(numpy.int64)), torch.from_numpy(answers.wanted.astype(numpy.int64))
    logits = twin(tokens).logits
    (next_token_loss(logits, tokens) + 0.5 * answer_loss(logits, wanted, answers.groups)).backward()
    norm = math.sqrt(sum(float(value.grad.square().sum()) for value in twin.parameters()))
    for (name, before), after in zip(twin.named_parameters(), stepped.parameters(), strict=True):
        gradient = before.grad * min(1.0, 1.0 / (norm + 1e-6))
        step = -0.1 * gradient / (gradient.abs() + 1e-8)  # the first step of Adam
        assert torch.allclose(after.detach() - before.detach(), step, atol=1e-5), name


def test_answers_that_do_not_fit_are_refused(tmp_path):
    asked = LanguageTraining(**{**vars(SMALL), "answer_weight": 1.0})
    with pytest.raises(BadInput, match=r"answers that are due: got none; wanted \(42, 6\), that of the text"):
        train_language_model(model(), text(), asked)
    with pytest.raises(BadInput, match=r"got shape \(41, 6\)"):
        train_language_model(model(), text(), asked, answers=due(text(41)))
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(BadInput, match=f"answer_weight: got {weight}"):
            LanguageTraining(answer_weight=weight)
    state = tmp_path / "state.safetensors"
    train_language_model(model(), text(), asked, answers=due(text()), state=state, stop_at=5)
    with pytest.raises(BadInput, match="that of another text"):
        train_language_model(model(), text(), asked, answers=due(text(), word=1), state=state)


class Broken(nn.Module):
    """Says nothing finite behind the last token, which the next-token loss does not look at."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        logits = self.inner(input_ids).logits
        return torch.cat([logits[:, :-1], logits[:, -1:] * math.nan], 1)


def test_a_loss_of_answers_that_is_not_finite_ends_the_training():
    asked = LanguageTraining(**{**vars(SMALL), "answer_weight": 1.0})
    answers = due(text())
    answers.wanted[:, -1] = 1
    with pytest.raises(BadInput, match=r"a loss of nan \(2\.\d+ of the next token\)"):
        train_language_model(Broken(), text(), asked, answers=answers)


def test_a_weight_of_zero_leaves_older_states_good(tmp_path):
    state = tmp_path / "state.safetensors"
    train_language_model(model(), text(), SMALL, state=state, stop_at=5)
    _, metadata = read_arrays_and_metadata(state)
    assert "answer" not in metadata["identity"]
    train_language_model(model(), text(), SMALL, answers=due(text()), state=state)
