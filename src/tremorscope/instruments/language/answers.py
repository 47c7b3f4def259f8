"""Answers that are due inside a text: a loss beside that of the next token.

The next-token loss asks for an answer only where the text gives it. A model learns from that to answer behind the words
behind which it has read answers, and knows nothing behind any other. Here the answer is asked for wherever a reader has
all that is needed to tell it, among the words that could be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from tremorscope.foundations.errors import BadInput


@final
@dataclass(frozen=True, kw_only=True)
class DueAnswers:
    """Which word is due at which token of a text, and among which it is chosen.

    Args:
        groups: Token numbers of the words that compete, group by group; a word is in one group.
        wanted: For each token of the text, 0 where no answer is due, else 1 plus the place of the word among the words
            of all groups, one group after the other.

    Raises:
        BadInput: If a word is in two groups, or `wanted` names a word that there is not.
    """

    groups: tuple[tuple[int, ...], ...]
    wanted: UInt8[numpy.ndarray, "rows length"]

    def __post_init__(self) -> None:
        words = [word for group in self.groups for word in group]
        if len(set(words)) != len(words):
            raise BadInput("groups of answers", got="a word in two groups", wanted="each word once")
        if self.wanted.size and int(self.wanted.max()) > len(words):
            raise BadInput("answers that are due", got=f"word {int(self.wanted.max())}", wanted=f"at most {len(words)}")


def answer_loss(
    logits: Float[Tensor, "rows length vocabulary"],
    wanted: Int[Tensor, "rows length"],
    groups: Sequence[Sequence[int]],
) -> Float[Tensor, ""]:
    """Cross-entropy of the answers that are due, each among the words of its group, in nats and float32.

    A mean over the places of each group, summed over the groups; 0 where nothing is due. Numbers as in `DueAnswers`.

    >>> float(answer_loss(torch.zeros(1, 2, 5), torch.tensor([[0, 2]]), [(3, 4)]))  # log 2
    0.6931471824645996
    """
    total = logits.new_zeros((), dtype=torch.float32)
    first = 1
    for group in groups:
        is_due = (wanted >= first) & (wanted < first + len(group))
        if bool(is_due.any()):
            among = logits[is_due][:, torch.tensor(list(group), device=logits.device)].float()
            total = total + functional.cross_entropy(among, wanted[is_due] - first)
        first += len(group)
    return total
