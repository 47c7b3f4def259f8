"""Floor 4: the command line. It presents and starts; every number it shows is in a Result file.

Only typer is imported here: each verb imports what it needs when it is called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from tremorscope.cli import cache, claims, compare, doctor, examine, list_, report, resume, run, show, steer, train

INTERRUPTED = 130

app = typer.Typer(
    name="tremorscope",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: tremorscope examine builtin:digits-mlp",
)
app.command("list")(list_.list_everything)
app.command("examine")(examine.examine_model)
app.command("run")(run.run_study)
app.command("resume")(resume.resume_run)
app.command("show")(show.show_run)
app.command("train")(train.train_builtin)
app.add_typer(steer.app, name="steer")
app.command("compare")(compare.compare_runs)
app.command("report")(report.make_report)
app.command("claims")(claims.judge_claims)
app.command("doctor")(doctor.check_machine)
app.command("cache")(cache.look_after_cache)


def _print_version(asked: bool) -> bool:
    if asked:
        from importlib.metadata import version

        typer.echo(f"tremorscope {version('tremorscope')}")
        raise typer.Exit
    return asked


@app.callback()
def tremorscope(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of every error; TREMORSCOPE_DEBUG=1 does the same.")
    ] = False,
) -> None:
    """Disturb a neural network in one place and measure what moves, against the matched null."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave with its exit code.

    0 finished, whatever the verdicts (4 with `--strict` when a claim fails), 1 a bug, 2 bad usage or input,
    3 partly done, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_answer(words))


def _answer(words: list[str]) -> int:
    from tremorscope.foundations.errors import TremorscopeError

    debug = "--debug" in words or os.environ.get("TREMORSCOPE_DEBUG", "0") not in ("", "0")
    # The option may stand anywhere, as people add it to the end of what has just failed.
    words = [word for word in words if word != "--debug"] or ["--help"]
    try:
        code = app(args=words, prog_name="tremorscope", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit) as stop:  # `tremorscope list | head`, which newer typers turn into an exit
        if not isinstance(stop, BrokenPipeError) and not isinstance(stop.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has nowhere to go
        return 0
    except TremorscopeError as error:
        if debug:
            _print_traceback(error)
        _refuse(str(error), words, notes=getattr(error, "__notes__", ()))
        return 2
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of typer, whose class moved between its versions
            command = getattr(getattr(error, "ctx", None), "command_path", "tremorscope")
            _refuse(error.format_message(), words, notes=[f"Try: {command} --help"])
            return 2
        _print_traceback(error)
        _refuse("This is a bug in tremorscope; please report it with the lines above.", words)
        return 1


def _refuse(sentence: str, words: list[str], notes: Sequence[str] = ()) -> None:
    for line in (sentence, *notes):
        print(line, file=sys.stderr)
    if "--json" in words:
        from tremorscope.cli.output import print_json

        print_json({"error": sentence, "notes": list(notes)})


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)
