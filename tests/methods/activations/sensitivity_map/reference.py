"""The map by its definition: one full forward pass for each disturbance, nothing shared."""

from __future__ import annotations

import torch

from tremorscope.instruments.edit import Replace


def naive_divergence(network, batch, site, token, move, read):
    """KL of the prediction at position `read` after one activation was moved, in float64."""
    clean = network.record(f"acts:{site}@{token}", batch)[0]
    edited = network.with_edits(Replace(clean + move.to(clean)).at(f"acts:{site}@{token}"))
    with torch.no_grad():
        logs = [one.apply(one.params, batch)[0, read].double().log_softmax(dim=0) for one in (network, edited)]
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


def naive_metric(network, batch, site, token):
    """`J^T (diag(p) - p p^T) J` at the last position, every factor written down."""
    clean = network.record(f"acts:{site}@{token}", batch)[0].detach()

    def logits(point):
        edited = network.with_edits(Replace(point).at(f"acts:{site}@{token}"))
        return edited.apply(edited.params, batch)[0, -1]

    jacobian = torch.autograd.functional.jacobian(logits, clean)
    p = logits(clean).detach().softmax(0)
    return jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian
