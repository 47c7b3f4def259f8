"""Edits of activations in texts that are read in batches of our own making."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch


def refuse_edits_of_rows(network: Network, doing: str) -> None:
    """Texts are put into batches by their length, and grow: what is given for each row of one batch has no rows here.

    Raises:
        BadInput: If the view has an edit with a mask or with values of its own for every row.
    """
    for placed in network.edits:
        if isinstance(placed.where, Tensor) or placed.edit.is_by_row:
            raise BadInput(
                f"{doing} with {placed}",
                got="a mask or values for the rows of one batch",
                wanted="one edit for all texts",
                remedy="Take the texts one by one, or give where= a function of the batch.",
            )


def while_written(network: Network, batch: Batch, prompt_lengths: Sequence[int]) -> Window | None:
    """The window of whole texts, padded on the right, in which positions are those of texts that are being written.

    The first token that is written comes after `prompt_lengths[i]` tokens of row `i`. None where nothing is edited.
    """
    if not network.edits:
        return None
    mask: Tensor = batch.kwargs["attention_mask"]
    return Window(batch=batch, mask=mask, prompt_length=torch.tensor(prompt_lengths, device=mask.device))
