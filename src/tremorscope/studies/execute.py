"""Running a study, and taking up again what was interrupted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run
from tremorscope.foundations.shard import Shard
from tremorscope.instruments.recording import recorded
from tremorscope.studies.study import CLAIM_SEED, Config, Study, config_from, get_study, make_config


def execute(
    study: Study | str,
    *,
    preset: str = "quick",
    overrides: Mapping[str, Any] | None = None,
    seed: int = CLAIM_SEED,
    out: Path | None = None,
    jobs: int | None = None,
    shard: Shard | None = None,
) -> tuple[Result, Path]:
    """Run a study and leave result and report in a run directory.

    `overrides` are configuration keys, dotted where nested, values plain or as typed after `--set`.
    `jobs` is the number of worker processes the study may use; it is read from `run.request["jobs"]`
    and changes no number. Two calls with one seed give equal results, `provenance` apart.

    With `shard`, only the items of that share are computed, in a run directory that all calls with the same
    study, configuration, preset, seed and `out` share. The call after which nothing is missing returns the
    result, which is that of a run without shards; so does every later one, at once.

    Returns:
        The result and its run directory.

    Raises:
        BadInput: For an unknown study, preset or key, a value that does not fit, or a directory that
            cannot be written; whatever the study itself refuses.
        PartlyDone: If the shard is done and the items of others are missing.
    """
    found = get_study(study) if isinstance(study, str) else study
    config = make_config(found, preset, overrides)
    request = {
        "verb": "run",
        "study": found.name,
        "preset": preset,
        "seed": seed,
        "jobs": jobs,
        "set": {key: _plain(value) for key, value in (overrides or {}).items()},
        "config": config.model_dump(mode="json"),
    }
    return recorded(found.name, request, lambda run: _call(found, config, seed, run), out=out, shard=shard)


def resume(path: Path) -> tuple[Result, Path]:
    """Take up an interrupted run: of a study, an examination, a training, or a steering, which begins anew.

    What it had finished is not computed again.

    Raises:
        BadInput: If the run has finished, is alive, is half written, or asks for something this
            version cannot do.
    """
    request = Run.attach(path).request
    if request.get("verb") == "examine":
        return _resume_examination(request, path)
    if request.get("verb") == "steer weights":
        return _resume_steering(request, path)
    if request.get("verb") in ("steer fit", "steer curve"):
        return _resume_concepts(request, path)
    if request.get("verb") == "train":
        return _resume_training(request, path)
    if request.get("verb") != "run":
        raise BadInput(f"request of run {path.name}", got=request.get("verb"), wanted="run, examine, train or steer")
    study = get_study(str(request["study"]))
    config = config_from(study, request["config"])
    return recorded(study.name, request, lambda run: _call(study, config, int(request["seed"]), run), resume=path)


def _call(study: Study, config: Config, seed: int, run: Run) -> Result:
    result = study.run(config, seed, run)
    wrong = [claim.id for claim in result.claims if (claim.study, claim.preset) != (result.study, result.preset)]
    if result.study != study.name or wrong:
        raise RuntimeError(f"study {study.name!r} returned a result of {result.study!r} with claims {wrong}")
    return result


def _resume_examination(request: Mapping[str, Any], path: Path) -> tuple[Result, Path]:
    from tremorscope.examine import examine

    options = {key: value for key, value in request.items() if key not in ("verb", "model")}
    result, folder = examine(_named_model(request, path), **options, resume=path)
    return result, folder


def _resume_steering(request: Mapping[str, Any], path: Path) -> tuple[Result, Path]:
    from tremorscope.examine.weight_steering import steer_weights

    model = _named_model(request, path)
    options = {key: value for key, value in request.items() if key not in ("verb", "model")}
    return steer_weights(
        model,
        break_=options.pop("break"),
        alphas=options.pop("alpha"),
        parameters=options.pop("parameters") or "*",
        **options,
        resume=path,
    )


def _resume_concepts(request: Mapping[str, Any], path: Path) -> tuple[Result, Path]:
    from tremorscope.examine.concept_steering import resumed_steering

    return resumed_steering(_named_model(request, path), request, path)


def _resume_training(request: Mapping[str, Any], path: Path) -> tuple[Result, Path]:
    from tremorscope.examine.model_training import resumed_training

    return resumed_training(request, path)


def _named_model(request: Mapping[str, Any], path: Path) -> str:
    model = request.get("model")
    if not isinstance(model, str):
        raise BadInput(
            f"model of run {path.name}",
            got=model,
            wanted="a model that can be loaded by name",
            remedy="A module of your own cannot be reloaded: call the function again from Python with resume=path.",
        )
    return model


def _plain(value: Any) -> Any:
    """A value as JSON keeps it."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
