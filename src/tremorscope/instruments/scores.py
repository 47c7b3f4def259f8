"""How well a network does its task."""

from __future__ import annotations

import torch

from tremorscope.instruments.network import Network


def scores(network: Network) -> dict[str, float]:
    """Loss and, for classifiers, accuracy on training and held-out examples, by name.

    Raises:
        BadInput: If the network has no task.
    """
    task = network.required_task()
    found = {}
    with torch.no_grad():
        for name, batch in (
            ("training", task.train_batch()),
            *((("held-out", task.test_batch()),) if task.test_targets is not None else ()),
        ):
            output = network.apply(network.params, batch)
            found[f"{name} loss"] = float(network.loss(network.params, batch))
            if task.num_classes is not None and batch.target is not None:
                found[f"{name} accuracy"] = float((output.argmax(-1) == batch.target).double().mean())
    return found
