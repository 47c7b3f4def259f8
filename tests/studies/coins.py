"""A study of a few milliseconds: are these coins fair? For the tests of the doors and the machinery."""

from __future__ import annotations

import os
import time
from typing import Literal

import torch
from pydantic import Field, model_validator

from tremorscope.foundations.claims import Claim, Expected, NullEvidence
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import Axis, Figure, points
from tremorscope.foundations.results import Result, Table, drawn
from tremorscope.foundations.run import Run
from tremorscope.foundations.seeds import derive, generator
from tremorscope.studies.study import Config, study


class Mint(Config):
    bias: float = Field(0.9, description="Chance of heads.")
    metal: Literal["gold", "silver"] = Field("gold", description="What the coins are made of.")


class Coins(Config):
    num_seeds: int = Field(3, ge=1, description="Members.")
    flips: int = Field(50, ge=1, description="Flips of each coin.")
    sizes: tuple[float, ...] = Field((1.0,), description="Sizes.")
    limit: int | None = Field(None, description="Stop early.")
    shuffled: bool = Field(False, description="Shuffle first.")
    threshold: float = Field(0.7, description="What counts as unfair.")
    seconds: float = Field(0.0, description="Time each member takes.")
    trouble: Literal["", "bad input", "bug", "chatter"] = Field("", description="What goes wrong.")
    mint: Mint = Field(Mint(), description="The mint.")

    @model_validator(mode="after")
    def _enough(self) -> Coins:
        if self.limit is not None and self.limit > self.flips:
            raise BadInput("limit", got=self.limit, wanted=f"at most flips={self.flips}")
        return self


@study(
    name="coins",
    question="Are these coins fair?",
    source="a tale of coins, table 1",
    presets={"desk": {"num_seeds": 5}, "quick": {}},
    cost={"quick": "1 CPU-second", "desk": "2 CPU-seconds"},
    rows=("C1", "C2"),
)
def run(config: Coins, seed: int, run: Run) -> Result:
    run.say(f"Flipping {config.flips} times.")
    if config.trouble == "chatter":
        print("this study prints")
    heads, null = [], []
    for i in range(config.num_seeds):
        key = f"member-{i}"
        if run.item(key) is None:
            end = time.monotonic() + config.seconds
            while time.monotonic() < end:
                time.sleep(0.01)
            draw = torch.rand(config.flips, generator=generator(derive(seed, "member", i), "flips"))
            fair = torch.rand(config.flips, generator=generator(derive(seed, "member", i), "null"))
            run.save_item(key, [float((draw < config.mint.bias).double().mean()), float((fair < 0.5).double().mean())])
        value = run.item(key)
        heads.append(value[0])
        null.append(value[1])
        run.progress("members", i + 1, config.num_seeds)
        if config.trouble == "bad input":
            raise BadInput("weights of member 0", got="NaN at step 3", wanted="finite numbers", remedy="Lower lr.")
        if config.trouble == "bug":
            raise ZeroDivisionError("a planted bug")
    measured, chance = Estimate.mean(heads), Estimate.mean(null)
    claims = [
        Claim(
            study="coins",
            row=row,
            preset=run.request["preset"],
            statement=statement,
            source="table 1",
            scope="holds for these coins",
            expected=expected,
            measured=measured,
            nulls=(NullEvidence(name="fair coins", description="A fair coin, flipped as often.", measured=chance),),
        )
        for row, statement, expected in (
            ("C2", "coins never show heads", Expected(high=0.01, origin="seeds 0-9")),
            (
                "C1",
                "coins of this mint show heads more often than fair | honest ones",
                Expected(low=config.threshold, origin="seeds 0-9"),
            ),
        )
    ]
    table = Table.of_rows(
        [{"member": i, "heads": value} for i, value in enumerate(heads)],
        name="heads",
        title="Heads",
        caption="By member.",
    )
    figure = Figure(
        name="heads",
        title="Heads",
        caption="Share of heads of each member.",
        traces=[points(range(len(heads)), heads, "heads")],
        x=Axis(title="member"),
        y=Axis(title="share"),
    )
    return Result(
        study="coins",
        preset=run.request["preset"],
        seed=seed,
        config=config.model_dump(mode="json"),
        title="Are these coins fair?",
        summary=[f"Heads in {measured} of flips."],
        claims=claims,
        tables=[table],
        figures=[drawn(figure)],
        flags=["few flips"] if config.flips < 100 else [],
        provenance={"pid": os.getpid()},
    )
