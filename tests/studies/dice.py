"""A study whose members are shared out: how high are these dice? For the tests of shards."""

from __future__ import annotations

import time
from typing import Any

import torch
from pydantic import Field

from tremorscope.foundations.claims import Claim, Expected
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.results import Result, Table
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.executor import map_items
from tremorscope.studies.study import Config, study


class Dice(Config):
    num_seeds: int = Field(8, ge=1, description="Members.")
    seconds: float = Field(0.0, description="Time each member takes.")


@study(
    name="dice",
    question="How high are these dice?",
    source="a tale of dice",
    presets={"quick": {}},
    cost={"quick": "1 CPU-second"},
    rows=("D1",),
)
def run(config: Dice, seed: int, run: Run) -> Result:
    items = {f"die-{i}": [f"die-{i}", derive(seed, "die", i), config.seconds] for i in range(config.num_seeds)}
    jobs = int(run.request.get("jobs") or 1)
    rows, spread = [], []
    for key, mean in map_items(throw, items, run=run, jobs=jobs, progress="dice"):
        rows.append({"die": key, "mean": Estimate.mean(run.arrays(key)["eyes"]), "rounded": round(mean)})
        spread.append(mean)
    claim = Claim(
        study="dice",
        row="D1",
        preset="quick",
        statement="dice show more than three",
        source="a tale of dice",
        scope="these dice",
        expected=Expected(low=3.0, origin="seeds 0-9"),
        measured=Estimate.mean(spread),
        without_null="dice have no null",
    )
    return Result(
        study="dice",
        preset="quick",
        seed=seed,
        config=config.model_dump(mode="json"),
        title="How high are these dice?",
        claims=[claim],
        tables=[Table.of_rows(rows, name="dice", title="Dice", caption="By die.")],
    )


def throw(item: list[Any], run: Run | None) -> float:
    name, seed, seconds = item
    time.sleep(seconds)
    eyes = torch.randint(1, 7, (40,), generator=generator(seed, "eyes")).double()
    if run is not None:
        run.save_arrays(name, {"eyes": eyes})
        run.event("thrown", die=name)
    return float(eyes.mean())
