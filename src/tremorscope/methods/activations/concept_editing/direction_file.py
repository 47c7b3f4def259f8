"""Directions in files: safetensors with a description beside it; and the parameter of steering-llama3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from tremorscope.foundations.arrays import read_arrays_and_metadata, write_arrays
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.files import read_json, write_json
from tremorscope.instruments.moments import Moments
from tremorscope.instruments.network import Network
from tremorscope.instruments.site import Site
from tremorscope.methods.activations.concept_editing.diagnostics import Diagnostics
from tremorscope.methods.activations.concept_editing.direction import ConceptFit

SCHEMA = "tremorscope.concept/1"


def save_direction(fit: ConceptFit, path: Path, *, model: str = "") -> Path:
    """Write a fit: moments to `path` (safetensors), site, model and diagnostics to `path` with the ending .json.

    Covariances are written too, so that every edit can be made from the file: `8 d^2` bytes for each class that has
    more than one example.

    Raises:
        BadInput: If `path` does not end in .safetensors, or cannot be written.
    """
    description = _description_path(path)
    arrays: dict[str, Tensor] = {}
    for name, one in (("negative", fit.negative), *((f"class.{n}", p) for n, p in _pairs(fit))):
        arrays[f"{name}.mean"] = one.mean
        if one.scatter.any():  # a single activation has none: a matrix of zeros is not worth its file
            arrays[f"{name}.scatter"] = one.scatter
    write_arrays(path, arrays, metadata={"schema": SCHEMA, "site": str(fit.site)}, remedy="Choose another file.")
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model,
        "site": str(fit.site),
        "width": fit.width,
        "names": list(fit.names),
        "counts": {"negative": fit.negative.count, "classes": [one.count for one in fit.positives]},
        "diagnostics": [_plain(one) for one in fit.diagnostics],
        "flags": list(fit.flags),
    }
    write_json(description, document)
    return path


def load_direction(path: Path, *, network: Network | None = None) -> ConceptFit:
    """Read what `save_direction` wrote.

    Raises:
        BadInput: If a file is missing, damaged or of another kind, or `network` is not called as the one it was
            fitted on.
    """
    arrays, metadata = read_arrays_and_metadata(path)
    document = read_json(_description_path(path))
    if metadata.get("schema") != SCHEMA or not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(f"schema of {path}", got=metadata.get("schema"), wanted=SCHEMA)
    if metadata.get("site") != document["site"]:
        raise BadInput(
            f"description of {path}",
            got=f"the site {document['site']}",
            wanted=f"{metadata.get('site')}, that of the tensors",
            remedy="The two files are not of one fit.",
        )
    if network is not None and document["model"] and document["model"] != network.name:
        raise BadInput(
            f"direction {path}",
            got=f"the network {network.name!r}",
            wanted=f"{document['model']!r}, on which it was fitted",
            remedy="Fit again on this network.",
        )
    counts = document["counts"]

    def moments(name: str, count: int) -> Moments:
        mean = arrays[f"{name}.mean"]
        scatter = arrays.get(f"{name}.scatter")
        return Moments(
            count=int(count), mean=mean, scatter=mean.new_zeros(len(mean), len(mean)) if scatter is None else scatter
        )

    return ConceptFit(
        site=Site.parse(document["site"]),
        names=tuple(document["names"]),
        negative=moments("negative", counts["negative"]),
        positives=tuple(
            moments(f"class.{name}", count) for name, count in zip(document["names"], counts["classes"], strict=True)
        ),
        diagnostics=tuple(_diagnostics(one) for one in document["diagnostics"]),
        flags=tuple(document["flags"]),
    )


def alpha_of_multiplier(multiplier: float, *, num_negative: int, num_positive: int) -> float:
    """The alpha for the multiplier of steering-llama3's `--leace orth`, which starts from the mean of *all* examples.

    Its result is `v - P(v) + P(mean) + m r`; the mean of all has coordinate n+ / (n+ + n-), so
    `alpha = m + n+ / (n+ + n-)`: m + 1/2 for balanced classes.

    >>> alpha_of_multiplier(-0.5, num_negative=32, num_positive=32)
    0.0

    Raises:
        BadInput: If a count is below 1.
    """
    return multiplier + _share(num_negative, num_positive)


def multiplier_of_alpha(alpha: float, *, num_negative: int, num_positive: int) -> float:
    """The inverse of `alpha_of_multiplier`.

    Raises:
        BadInput: If a count is below 1.
    """
    return alpha - _share(num_negative, num_positive)


def _share(num_negative: int, num_positive: int) -> float:
    if num_negative < 1 or num_positive < 1:
        raise BadInput("numbers of examples", got=f"{num_negative} and {num_positive}", wanted="at least 1 of each")
    return num_positive / (num_negative + num_positive)


def _pairs(fit: ConceptFit) -> list[tuple[str, Moments]]:
    return list(zip(fit.names, fit.positives, strict=True))


def _description_path(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise BadInput("file of a direction", got=str(path), wanted="a name that ends in .safetensors")
    return path.with_suffix(".json")


def _plain(one: Diagnostics) -> dict[str, Any]:
    return {
        "num_negative": one.num_negative,
        "num_positive": one.num_positive,
        "norm": one.norm,
        "bias_ratio": one.bias_ratio,
        "split_half": None if one.split_half is None else one.split_half.to_dict(),
        "auc": None if one.auc is None else one.auc.to_dict(),
        "format_gap": one.format_gap,
    }


def _diagnostics(plain: dict[str, Any]) -> Diagnostics:
    read = {key: None if plain[key] is None else Estimate.from_dict(plain[key]) for key in ("split_half", "auc")}
    return Diagnostics(**{**plain, **read})
