"""The published training Jacobian from end to end: 4,810 weights, 625 steps. CPU seconds and peak memory of each part.

Each part runs in a fresh process, so that its peak memory is its own: the Jacobian alone, and the Jacobian with its
decomposition in float64.
"""

import json
import resource
import subprocess
import sys
import time

import torch
from timing import Row, record

from tremorscope.instruments.builtin import digits_mlp
from tremorscope.methods.weights.training_jacobian import live_spectrum, training_jacobian

PARTS = ("nothing but the imports", "J", "J and its decomposition")


def measure(part: str) -> None:
    """Run one part and print what it took, as JSON."""
    torch.set_num_threads(1)
    network = digits_mlp(hidden=64, seed=0, num_steps=625)
    begin = time.process_time()
    sizes: list[int] = []
    if part != PARTS[0]:
        jacobian = training_jacobian(network)
        sizes.append(len(jacobian.live))
        if part == PARTS[2]:
            sizes.append(len(live_spectrum(jacobian).values))
    seconds = time.process_time() - begin
    print(json.dumps({"CPU s": seconds, "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def main() -> None:
    """Measure every part in a process of its own."""
    rows: list[Row] = []
    for part in PARTS:
        done = subprocess.run([sys.executable, __file__, part], check=True, capture_output=True, text=True)
        rows.append({"part": part, **json.loads(done.stdout.splitlines()[-1])})
    record(
        "whole_jacobian",
        rows,
        title="The published training Jacobian, float32, one thread",
        note="One run each. Peak memory is the resident set of the whole process, with torch itself.",
    )


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else main()
