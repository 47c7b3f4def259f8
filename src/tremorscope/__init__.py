"""Disturb a neural network in one place and measure what moves, with error bars, against the matched null.

foundations/   numbers and records: errors, seeds, estimates, claims, results, runs, cache
instruments/   what touches a network: Network, Site, Edit, respond | operators, spectrum | task, trainer | report
methods/       one module per idea, in groups: weights, ...
studies/       one file per published experiment: configuration, run, claims
examine/       the same methods, on any network
cli/           the command `tremorscope`; `tremorscope list` shows all there is

A name of `__all__` is imported when it is first used, so `import tremorscope` does not import torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tremorscope.examine import examine as examine
    from tremorscope.foundations.claims import Claim as Claim
    from tremorscope.foundations.errors import TremorscopeError as TremorscopeError
    from tremorscope.foundations.estimate import Estimate as Estimate
    from tremorscope.foundations.results import Result as Result
    from tremorscope.instruments.edit import Add as Add
    from tremorscope.instruments.edit import Affine as Affine
    from tremorscope.instruments.edit import Noise as Noise
    from tremorscope.instruments.edit import Project as Project
    from tremorscope.instruments.edit import Replace as Replace
    from tremorscope.instruments.edit import Rotate as Rotate
    from tremorscope.instruments.load import load as load
    from tremorscope.instruments.network import Network as Network
    from tremorscope.instruments.operators import Hessian as Hessian
    from tremorscope.instruments.operators import LinearOperator as LinearOperator
    from tremorscope.instruments.optimisers import adam as adam
    from tremorscope.instruments.optimisers import adamw as adamw
    from tremorscope.instruments.optimisers import momentum as momentum
    from tremorscope.instruments.optimisers import nesterov as nesterov
    from tremorscope.instruments.optimisers import sgd as sgd
    from tremorscope.instruments.recipe import PureRecipe as PureRecipe
    from tremorscope.instruments.report import report as report
    from tremorscope.instruments.respond import Response as Response
    from tremorscope.instruments.respond import respond as respond
    from tremorscope.instruments.site import Site as Site
    from tremorscope.instruments.spectrum import Spectrum as Spectrum
    from tremorscope.instruments.subspace import Subspace as Subspace
    from tremorscope.instruments.task import Batch as Batch
    from tremorscope.instruments.task import Task as Task
    from tremorscope.instruments.trainer import Trainer as Trainer
    from tremorscope.studies.study import Config as Config
    from tremorscope.studies.study import study as study

# The same list again for run time; tests/house/test_front_door.py holds the two together.
_NAMES_OF = {
    "examine": ("examine",),
    "foundations.claims": ("Claim",),
    "foundations.errors": ("TremorscopeError",),
    "foundations.estimate": ("Estimate",),
    "foundations.results": ("Result",),
    "instruments.edit": ("Add", "Affine", "Noise", "Project", "Replace", "Rotate"),
    "instruments.load": ("load",),
    "instruments.network": ("Network",),
    "instruments.operators": ("Hessian", "LinearOperator"),
    "instruments.optimisers": ("adam", "adamw", "momentum", "nesterov", "sgd"),
    "instruments.recipe": ("PureRecipe",),
    "instruments.report": ("report",),
    "instruments.respond": ("Response", "respond"),
    "instruments.site": ("Site",),
    "instruments.spectrum": ("Spectrum",),
    "instruments.subspace": ("Subspace",),
    "instruments.task": ("Batch", "Task"),
    "instruments.trainer": ("Trainer",),
    "studies.study": ("Config", "study"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES_OF.items() for name in names}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _FrontDoor(ModuleType):
    """Importing the sub-package `examine` would bind it here, over the public function of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _FrontDoor
