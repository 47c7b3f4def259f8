"""The part of an examination that looks at activations: every layer's rank and plateaus, on the task or on texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from tremorscope.examine.reference_texts import reference_texts
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.language.encode import takes
from tremorscope.instruments.network import Network
from tremorscope.instruments.task import Batch
from tremorscope.methods.activations.layer_responses.measurement import measure_layer_responses
from tremorscope.methods.activations.layer_responses.results import LayerResponses
from tremorscope.methods.activations.plateaus.prompts import natural_prompts

LENGTH = 12  # tokens of a prompt


class LayerEffort(NamedTuple):
    """How much the look at activations spends."""

    num_examples: int
    num_bases: int
    num_prompts: int  # of a language model, and bases among them
    num_prompt_bases: int
    num_layers: int
    operations: float  # floating-point operations, by an estimate from shapes


LAYER_EFFORTS = {
    "quick": LayerEffort(
        num_examples=512, num_bases=192, num_prompts=320, num_prompt_bases=24, num_layers=8, operations=2e11
    ),
    "desk": LayerEffort(
        num_examples=2048, num_bases=512, num_prompts=800, num_prompt_bases=64, num_layers=24, operations=1e13
    ),
}


def has_inputs(network: Network) -> bool:
    """Whether there is anything to pass through the network: data of its own, or ordinary texts."""
    return network.task is not None or (network.tokenizer is not None and takes(network, "input_ids"))


def examine_layers(
    network: Network, twin: Network | None, effort: LayerEffort, *, seed: int, say: Callable[[str], None]
) -> LayerResponses:
    """Layer responses on examples of the task; of a language model without one, on prompts of twelve tokens.

    Raises:
        BadInput: If there are too few examples or texts, and as `measure_layer_responses`.
    """
    if network.task is None:
        texts, _ = reference_texts(network, None)
        prompts = natural_prompts(
            network, texts, length=LENGTH, count=effort.num_prompts, seed=derive(seed, "layer prompts")
        )
        batch, position, bases = prompts.batch, prompts.position, effort.num_prompt_bases
    else:
        inputs = network.task.inputs
        chosen = torch.randperm(len(inputs), generator=generator(seed, "layer examples"))[: effort.num_examples]
        batch, position = Batch((inputs[chosen.to(inputs.device)],), {}, None), None
        # Half of a small set are bases, the others tell mean and covariance.
        bases = min(effort.num_bases, len(chosen) // 2)
    return measure_layer_responses(
        network,
        batch,
        twin=twin,
        position=position,
        num_bases=bases,
        num_layers=effort.num_layers,
        operations=effort.operations,
        seed=derive(seed, "layers"),
        say=say,
    )
