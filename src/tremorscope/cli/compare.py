"""`tremorscope compare RUN RUN`: what differs between two runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from tremorscope.foundations.claims import Claim
    from tremorscope.foundations.differences import Differences
    from tremorscope.foundations.estimate import Estimate

_SHOWN = 20  # estimates and unmatched rows on a screen; --json has all


def compare_runs(
    first: Annotated[str, typer.Argument(metavar="RUN", help="An id, the start of one, or a path.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The other.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs.", show_default="$TREMORSCOPE_RUNS, else ./runs")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Differences between two finished runs: in configuration, in claims, in the estimates of their tables."""
    from tremorscope.cli.finished import finished_runs
    from tremorscope.cli.output import print_json
    from tremorscope.foundations.differences import differences

    (path, result), (other_path, other) = finished_runs([first, second], out)
    found = differences(result, other)
    if json:
        print_json({"first": str(path), "second": str(other_path), **found.to_dict()})
    else:
        print_differences(found, path.name, other_path.name)


def print_differences(found: Differences, first: str, second: str) -> None:
    """Three tables, then what is equal; the runs are A and B."""
    from tremorscope.cli.output import console, print_table

    out = console()
    out.print(f"A  {first}\nB  {second}")
    if found.settings:
        rows = [(each.key, _value(each.first), _value(each.second)) for each in found.settings]
        print_table(("setting", "A", "B"), rows, title="\nWhat was asked for, and with what it was made")
    if found.claims:
        rows_of_claims = []
        is_one_study = len({pair.id.rpartition("/")[0] for pair in found.claims}) == 1
        for pair in found.claims:
            one, two = _judgement(pair.first), _judgement(pair.second)
            name = pair.id.rpartition("/")[2] if is_one_study else pair.id
            rows_of_claims.append((name, one, two, "apart" if pair.is_apart else ""))
        print_table(("claim", "A", "B", "intervals"), rows_of_claims, title="\nClaims")
    if found.estimates:
        # Those whose intervals are apart come first, and are shown table by table.
        shown = sorted(found.estimates, key=lambda pair: not pair.is_apart)[:_SHOWN]
        for table in dict.fromkeys(pair.table for pair in shown):
            rows_of_table = [
                (pair.column, pair.row, *_both(pair.first, pair.second)) for pair in shown if pair.table == table
            ]
            print_table(("column", "row", "A", "B"), rows_of_table, title=f"\nEstimates in table {table}")
        _tell_more(len(found.estimates))
    for line in found.unmatched[:_SHOWN]:
        out.print(line)
    _tell_more(len(found.unmatched))
    out.print()
    out.print(f"Equal: {found.num_equal_claims} claims, {found.num_equal_estimates} estimates in tables.")


def _tell_more(count: int) -> None:
    from tremorscope.cli.output import console

    if count > _SHOWN:
        console().print(f"... and {count - _SHOWN} more; --json has all.", style="dim")


def _judgement(claim: Claim | None) -> Text:
    from rich.text import Text

    from tremorscope.cli.output import VERDICT_STYLES

    if claim is None:
        return Text("not judged", "dim")
    return Text(f"{claim.measured}\n").append(str(claim.verdict), VERDICT_STYLES[claim.verdict])


def _both(first: Estimate, second: Estimate) -> tuple[str, str]:
    from tremorscope.foundations.differences import apart

    if str(first) == str(second):
        return str(first), "same to 4 digits"
    return str(first), f"{second}\nintervals apart" if apart(first, second) else str(second)


def _value(value: Any) -> str:
    from tremorscope.cli.run import typed

    return "" if value is None else typed(value)
