"""Studies: a published experiment as a question, a configuration, and a function that answers with claims.

A study is one file in this folder (or in any package that names it under the entry point group
`tremorscope.studies`):

    class Coins(Config):
        num_seeds: int = Field(3, ge=1, description="Members; each has its own derived seed.")

    @study(
        name="coins",
        question="Are these coins fair?",
        source="arXiv:0000.00000",
        presets={"quick": {}, "desk": {"num_seeds": 10}},
        cost={"quick": "1 CPU-second", "desk": "4 CPU-seconds"},
    )
    def run(config: Coins, seed: int, run: Run) -> Result: ...
"""

from __future__ import annotations

import json
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar, cast, final

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from tremorscope.foundations.errors import BadInput, did_you_mean
from tremorscope.foundations.results import Result
from tremorscope.foundations.run import Run

PRESETS = ("quick", "desk", "paper")
CLAIM_SEED = 100  # seeds 0-99 calibrate thresholds; claims are judged on 100 and up
ENTRY_POINTS = "tremorscope.studies"


class Config(BaseModel):
    """What a study may be asked to vary; each field described: `Field(3, description="...")`.

    The one source for Python, the command line's `--set` and the web form. Frozen, and no key is ignored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def plan(self) -> dict[str, int]:
        """Counts of what will be done, for `--dry-run`: the members, and whatever a study adds."""
        num_seeds = getattr(self, "num_seeds", None)
        return {} if num_seeds is None else {"members": int(num_seeds)}


AnyConfig = TypeVar("AnyConfig", bound=Config)
RunStudy = Callable[[AnyConfig, int, Run], Result]


@final
@dataclass(frozen=True, kw_only=True)
class Study:
    """One registered experiment. `system` is its number in the README's table, `rows` the claims it judges."""

    name: str
    question: str
    source: str
    config_type: type[Config]
    run: Callable[[Any, int, Run], Result]
    presets: Mapping[str, Mapping[str, Any]]
    cost: Mapping[str, str]
    rows: tuple[str, ...] = ()
    system: int | None = None

    def __post_init__(self) -> None:
        strange = sorted(set(self.presets) - set(PRESETS)) + sorted(set(self.cost) - set(self.presets))
        if strange or not self.presets:
            raise BadInput(
                f"presets of study {self.name!r}",
                got=", ".join(strange) or "none",
                wanted=f"some of {', '.join(PRESETS)}, with a cost for these only",
            )
        silent = [knob.key for knob in knobs(self.config_type) if not knob.description.strip()]
        if silent:
            raise BadInput(
                f"configuration of study {self.name!r}",
                got=f"no description of {', '.join(silent)}",
                wanted="one sentence for each key",
                remedy="Use Field(..., description=...).",
            )


@final
@dataclass(frozen=True, kw_only=True)
class Knob:
    """One key that `--set` takes: its dotted name, type in words, default and description."""

    key: str
    kind: str
    default: Any
    description: str


_registry: dict[str, Study] = {}
_loaded: list[bool] = []  # non-empty once the modules of the house and of other packages were imported


def study(
    *,
    name: str,
    question: str,
    source: str,
    presets: Mapping[str, Mapping[str, Any]],
    cost: Mapping[str, str] | None = None,
    rows: tuple[str, ...] = (),
    system: int | None = None,
    config: type[Config] | None = None,
) -> Callable[[RunStudy[AnyConfig]], RunStudy[AnyConfig]]:
    """Register a function `(config, seed, run) -> Result` as a study; the function stays as it is.

    Its configuration type is the annotation of its first argument, unless `config` names it.
    `presets` gives each of quick, desk and paper that exists its overrides (dotted keys); every preset is
    validated here, so that a wrong one fails at import. `cost` says in words what each takes.

    Raises:
        BadInput: If the annotation is no `Config`, the name is taken, or a preset does not fit the configuration.
    """

    def register(function: RunStudy[AnyConfig]) -> RunStudy[AnyConfig]:
        made = Study(
            name=name,
            question=question,
            source=source,
            config_type=config or _annotated_config(function, name),
            run=function,
            presets={preset: dict(presets[preset]) for preset in PRESETS if preset in presets}
            | {preset: dict(given) for preset, given in presets.items() if preset not in PRESETS},
            cost=dict(cost or {}),
            rows=tuple(rows),
            system=system,
        )
        before = _registry.get(name)
        if before is not None and before.run.__module__ != function.__module__:
            raise BadInput(
                f"study {name!r}",
                got=f"a second one, in {function.__module__}",
                wanted=f"the one in {before.run.__module__} only",
                remedy="Give one of them another name.",
            )
        for preset in made.presets:
            make_config(made, preset)
        _registry[name] = made
        return function

    return register


def all_studies() -> list[Study]:
    """Every study of the house and of installed packages, by system number, then name.

    A package of someone else's that does not import is named in a warning, and the others still work.
    """
    if not _loaded:
        import tremorscope.studies as house

        for module in pkgutil.iter_modules(house.__path__):
            import_module(f"{house.__name__}.{module.name}")
        for entry in entry_points(group=ENTRY_POINTS):
            try:
                entry.load()
            except Exception as error:  # someone else's code may fail in any way
                warnings.warn(
                    f"the studies of entry point {entry.name!r} ({entry.value}) did not import: {error}", stacklevel=2
                )
        _loaded.append(True)
    return sorted(_registry.values(), key=lambda one: (one.system is None, one.system, one.name))


def get_study(name: str) -> Study:
    """The study of that name.

    Raises:
        BadInput: If there is none; names the nearest.
    """
    names = [one.name for one in all_studies()]
    if name not in names:
        raise BadInput(
            "study",
            got=name,
            wanted=f"one of {', '.join(names)}" if 0 < len(names) <= 6 else f"one of {len(names)}",
            remedy=did_you_mean(name, names) or "`tremorscope list studies` shows them all.",
        )
    return _registry[name]


def make_config(study: Study, preset: str = "quick", overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a preset with some keys changed.

    Keys may be dotted (`model.width`). A value may be text as typed after `--set`: it is read as the type of
    its field (`3`, `true`, `0.5`, `none`, `[1, 2]` or `1,2`).

    Raises:
        BadInput: If the study has no such preset, a key is unknown (names the nearest) or a value does not fit.
    """
    if preset not in study.presets:
        raise BadInput(
            f"preset of study {study.name!r}",
            got=preset,
            wanted=" or ".join(study.presets),
            remedy=did_you_mean(preset, study.presets) or f"Use --preset {next(iter(study.presets))}.",
        )
    values: dict[str, Any] = {}
    for key, value in [
        *_spread(study.presets[preset], study.config_type),
        *_spread(overrides or {}, study.config_type),
    ]:
        found = _field(study, key)
        parts = key.split(".")
        inside = values
        for part in parts[:-1]:
            inside = inside.setdefault(part, {})
        inside[parts[-1]] = _read(value, found) if isinstance(value, str) else value
    return config_from(study, values)


def config_from(study: Study, values: Mapping[str, Any]) -> Config:
    """A configuration from plain data, such as `config.model_dump(mode="json")` gave.

    Raises:
        BadInput: If it does not fit, in one sentence that says field, got and wanted.
    """
    try:
        return study.config_type.model_validate(dict(values))
    except ValidationError as error:
        raise _one_sentence(study, error) from None


def knobs(config_type: type[Config]) -> list[Knob]:
    """Every key that can be set, nested ones dotted, in the order of the class."""
    found = []
    for key, info in _fields(config_type):
        default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        found.append(Knob(key=key, kind=_kind(info), default=default, description=info.description or ""))
    return found


def value_of(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _annotated_config(function: Callable[..., Any], name: str) -> type[Config]:
    annotations = list(getattr(function, "__annotations__", {}).values())
    annotation = annotations[0] if annotations else None
    if isinstance(annotation, str):  # from __future__ import annotations
        # By module, not by the function's globals: a decorator below @study has those of its own module.
        annotation = vars(sys.modules[function.__module__]).get(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return annotation
    raise BadInput(
        f"configuration of study {name!r}",
        got=f"{annotation!r} as the type of the first argument",
        wanted="a subclass of Config at the top of the same module",
        remedy="Annotate it, or pass config=... to @study.",
    )


def _nested(info: FieldInfo) -> type[BaseModel] | None:
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _fields(config_type: type[BaseModel], before: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in config_type.model_fields.items():
        inner = _nested(info)
        if inner is None:
            yield before + name, info
        else:
            yield from _fields(inner, f"{before}{name}.")


def _spread(values: Mapping[str, Any], kind: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Mappings for nested configurations as dotted keys, so that an override of one key keeps its neighbours."""
    for key, value in values.items():
        inner = _nested(kind.model_fields[key]) if key in kind.model_fields else None
        if inner is not None and isinstance(value, Mapping):
            yield from _spread(value, inner, f"{before}{key}.")
        else:
            yield before + key, value


def _field(study: Study, key: str) -> FieldInfo:
    fields = dict(_fields(study.config_type))
    if key in fields:
        return fields[key]
    below = [name for name in fields if name.startswith(f"{key}.")]
    raise BadInput(
        f"key of study {study.name!r}",
        got=key,
        wanted=f"one of {', '.join(below or fields)}",
        remedy=None if below else did_you_mean(key, fields),
    )


def _read(text: str, info: FieldInfo) -> Any:
    """Text as its field would take it: as it is, as JSON, or as a list with commas; the text itself if none fits."""
    adapter: TypeAdapter[Any] = TypeAdapter(cast(Any, Annotated[info.annotation, info]))

    def fits(value: Any) -> bool:
        try:
            adapter.validate_python(value)
        except ValidationError:
            return False
        return True

    if text.strip().lower() in ("none", "null") and fits(None):
        return None
    if fits(text):
        return text
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        parsed = [part.strip() for part in text.split(",")]
        return parsed if fits(parsed) else text
    if fits(parsed):
        return parsed
    return [parsed] if fits([parsed]) else text


def _one_sentence(study: Study, error: ValidationError) -> BadInput:
    problems = error.errors(include_url=False)
    first = problems[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, BadInput):
        return cause
    key = ".".join(str(part) for part in first["loc"] if not _is_branch(part))
    wanted = (
        first["msg"].removeprefix("Input should be ").removeprefix("Value error, ").rstrip(".").split(", unable to")[0]
    )
    fields = dict(_fields(study.config_type))
    if first["type"] == "extra_forbidden":
        return BadInput(
            f"key of study {study.name!r}",
            got=key,
            wanted=f"one of {', '.join(fields)}",
            remedy=did_you_mean(key, fields),
        )
    rest = len(problems) - 1
    described = fields[key].description if key in fields else None
    remedy = f"{key}: {described}" if described else None
    if rest:
        remedy = " ".join(part for part in (remedy, f"({rest} more of this kind.)") if part)
    what = f"{key} of study {study.name!r}" if key else f"configuration of study {study.name!r}"
    return BadInput(what, got=repr(first["input"]) if key else None, wanted=wanted, remedy=remedy)


def _is_branch(part: str | int) -> bool:
    """Pydantic names the member of a union in the location; a reader wants the field only."""
    return isinstance(part, str) and ("[" in part or part in ("int", "float", "str", "bool", "none"))


def _kind(info: FieldInfo) -> str:
    kind = info.annotation
    return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
