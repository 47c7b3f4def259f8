"""Measured accuracies into the cards of the shipped models: `python docs/model_cards.py RUN`.

`RUN` is a run directory of the study `microworld`, on the shipped models.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tremorscope
from tremorscope.foundations.files import write_atomically
from tremorscope.foundations.results import Result
from tremorscope.studies.microworld import MODEL, RECURRENT, SHUFFLED

HEADING = "## Measured"
FOLDERS = {MODEL: "microworld", SHUFFLED: "microworld-shuffled", RECURRENT: "microworld-recurrent"}


def section(result: Result, network: str) -> str:
    """A table of every row of the abilities of one network, and its prose."""
    abilities = result.table("abilities").columns
    rows = [dict(zip(abilities, row, strict=True)) for row in zip(*abilities.values(), strict=True)]
    lines = [
        HEADING,
        "",
        f"Study `microworld`, preset {result.preset}, seed {result.seed}: shares of held-out examples that are right,"
        " with 99 % intervals.",
        "",
        "| strand | part | held out | judged by | right | guess | examples |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["network"] == network:
            lines.append(
                f"| {row['strand']} | {row['part']} | {row['held out']} | {row['judged by']} | {row['accuracy']} "
                f"| {row['chance']:.3g} | {row['examples']} |"
            )
    prose = result.table("prose").columns
    told = [dict(zip(prose, row, strict=True)) for row in zip(*prose.values(), strict=True)]
    lines += ["", "Prose, held out:", ""]
    lines += [
        "- " + "; ".join(f"{key} {value}" for key, value in row.items()) for row in told if row["predictor"] == network
    ]
    return "\n".join([*lines, ""])


def main(run: Path) -> None:
    """Rewrite the section of each card."""
    result = Result.load(run)
    for network, folder in FOLDERS.items():
        card = Path(tremorscope.__file__).parent / "models" / folder / "README.md"
        before = card.read_text(encoding="utf-8").split(HEADING)[0].rstrip()
        text = f"{before}\n\n{section(result, network)}"
        write_atomically(card, lambda path, text=text: path.write_text(text, encoding="utf-8"))
        print(card.parent.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
