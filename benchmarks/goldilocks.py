"""The zone on digits: 13 scales, 2 draws, 40 dimensions; what a Hessian costs when it is multiplied once."""

import torch
from timing import Row, best_of, record

from tremorscope.instruments.centred import centred
from tremorscope.instruments.initialisation import draw_weights
from tremorscope.instruments.operators import Hessian
from tremorscope.instruments.perceptrons import perceptron
from tremorscope.instruments.task import digits
from tremorscope.methods.weights.goldilocks import measure_goldilocks, random_basis

BUDGET = 10.0  # CPU seconds for the whole curve


def main() -> None:
    """Time the curve with and without the Gauss-Newton split, and one restricted Hessian by each route."""
    torch.set_num_threads(1)
    task = centred(digits(dtype=torch.float64), num_examples=512)
    network = perceptron(task)
    rows: list[Row] = []
    for split in (False, True):
        seconds = best_of(
            2, lambda split=split: measure_goldilocks(network, num_draws=2, initialiser="xavier", split=split)
        )
        name = "curve: 13 scales x 2 draws" + (", with the Gauss-Newton split" if split else "")
        rows.append({"what": name, "CPU s": seconds, "of the budget": seconds / BUDGET})
    network = network.at(draw_weights(network, "xavier", seed=0))
    basis = random_basis(network.theta, 40, torch.Generator().manual_seed(0))
    for route in ("linearize", "double_backward"):
        seconds = best_of(
            3, lambda route=route: Hessian(network, task.train_batch(), route=route).restrict(basis).dense()
        )
        rows.append({"what": f"one restricted Hessian, {route}", "CPU s": seconds, "of the budget": seconds / BUDGET})
    record(
        "goldilocks",
        rows,
        title="The Goldilocks zone of 64-64-64-10 on 512 digits",
        note="float64, one thread, 40 dimensions, 8,970 weights. The budget of a curve is 10 CPU seconds.",
    )


if __name__ == "__main__":
    main()
