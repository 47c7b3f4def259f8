"""Influence of all training examples through training, in units of the training run itself."""

import torch
from timing import Row, best_of, record

from tremorscope.instruments.builtin import digits_mlp
from tremorscope.instruments.recipe import run_recipe
from tremorscope.methods.weights.influence import example_influence


def main() -> None:
    """Time the plain run, and the influence of 1,600 examples on 1 and on 20 held-out losses."""
    torch.set_num_threads(1)
    rows: list[Row] = []
    for hidden, num_steps in ((16, 300), (64, 625)):
        network = digits_mlp(hidden=hidden, seed=0, num_steps=num_steps)
        training = best_of(3, lambda network=network: run_recipe(network.recipe, network.start))
        for measured in (1, 20):
            seconds = best_of(3, lambda network=network, count=measured: example_influence(network, range(count)))
            rows.append(
                {
                    "network": f"64-{hidden}-10, {num_steps} steps",
                    "held-out losses": measured,
                    "training, CPU s": training,
                    "influence, CPU s": seconds,
                    "training runs": seconds / training,
                }
            )
    record(
        "influence",
        rows,
        title="Influence of 1,600 training examples",
        note="float32, one thread, best of 3. Influence trains, keeps the coefficients, and sweeps back once.",
    )


if __name__ == "__main__":
    main()
