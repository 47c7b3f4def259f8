"""The loss of answers that are due: against a slow twin."""

from __future__ import annotations

import numpy
import pytest
import torch

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.language.answers import DueAnswers, answer_loss

GROUPS = ((4, 1), (0, 6, 5))


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_it_is_a_cross_entropy_among_the_words_of_a_group():
    logits = drawn(3, 5, 7).double()
    wanted = torch.tensor([[0, 1, 2, 0, 3], [5, 0, 0, 0, 0], [1, 0, 4, 0, 2]])
    words = [word for group in GROUPS for word in group]
    by_group: dict[int, list[torch.Tensor]] = {0: [], 1: []}
    for row, place in wanted.nonzero().tolist():
        word = words[int(wanted[row, place]) - 1]
        (number,) = [number for number, group in enumerate(GROUPS) if word in group]
        share = logits[row, place, word].exp() / sum(logits[row, place, other].exp() for other in GROUPS[number])
        by_group[number].append(-share.log())
    slow = sum(sum(losses) / len(losses) for losses in by_group.values())
    assert float(answer_loss(logits, wanted, GROUPS)) == pytest.approx(float(slow), rel=1e-6)


def test_nothing_is_due_in_an_empty_text():
    loss = answer_loss(drawn(2, 3, 7), torch.zeros(2, 3, dtype=torch.int64), GROUPS)
    assert float(loss) == 0.0


def test_only_the_words_of_the_group_and_the_places_count():
    logits, wanted = drawn(1, 3, 7), torch.tensor([[0, 2, 0]])
    before = answer_loss(logits, wanted, GROUPS)
    logits[0, 0], logits[0, 2], logits[0, 1, 3], logits[0, 1, 6] = 9.0, -9.0, 50.0, 50.0
    assert float(answer_loss(logits, wanted, GROUPS)) == float(before)


def test_what_does_not_fit_is_refused():
    wanted = numpy.array([[0, 5]], dtype=numpy.uint8)
    with pytest.raises(BadInput, match="groups of answers: got a word in two groups"):
        DueAnswers(groups=((1, 2), (2, 3)), wanted=wanted)
    with pytest.raises(BadInput, match="answers that are due: got word 5; wanted at most 4"):
        DueAnswers(groups=((1, 2), (3, 4)), wanted=wanted)
