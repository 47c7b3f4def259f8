"""What a network writes when it is left alone, judged text by text: does an edit leave it able to write at all?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import LEVEL, Estimate
from tremorscope.instruments.language.generation import generate
from tremorscope.instruments.network import Network
from tremorscope.methods.activations.concept_editing.examples import check_examples

Judge = Callable[[str, str], bool | None]


@final
@dataclass(frozen=True, kw_only=True)
class FreeTextMeasurement:
    """Texts that a network wrote, and what was said of each: right, wrong, or nothing (None: nothing to be judged)."""

    prompts: tuple[str, ...]
    written: tuple[str, ...]
    verdicts: tuple[bool | None, ...]
    clusters: tuple[Hashable, ...]
    units: tuple[Hashable, ...]
    seed: int = 0

    def right(self) -> Estimate:
        """Share right among the texts that could be judged; without a value where none could."""
        kept = numpy.flatnonzero(self._is_judged)
        if not len(kept):
            return _unknown(0.0, 1.0)
        return crossed_mean(
            self._is_right[kept],
            [self.clusters[place] for place in kept],
            [self.units[place] for place in kept],
            seed=self.seed,
        )

    def judged(self) -> Estimate:
        """Share of the texts that could be judged."""
        return crossed_mean(self._is_judged, self.clusters, self.units, seed=self.seed)

    def more_right_than(self, other: FreeTextMeasurement) -> Estimate:
        """Share right less that of another measurement of the same prompts, each among its own judged texts.

        Shares of judged texts are ratios. The interval is that of their linear terms, prompt by prompt, under
        resampled wordings and units (the linearised ratio estimator of Cochran 1977, *Sampling Techniques*, §6.4): so
        what the prompts have in common cancels.

        Raises:
            BadInput: If the prompts are not the same.
        """
        if (self.prompts, self.clusters, self.units) != (other.prompts, other.clusters, other.units):
            raise BadInput("free texts to compare", got="other prompts or wordings", wanted="those of the same prompts")
        if not self._is_judged.any() or not other._is_judged.any():
            return _unknown(-1.0, 1.0)
        return crossed_mean(self._terms() - other._terms(), self.clusters, self.units, seed=self.seed)

    def to_plain(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "prompts": list(self.prompts),
            "written": list(self.written),
            "verdicts": list(self.verdicts),
            "clusters": list(self.clusters),
            "units": list(self.units),
            "seed": self.seed,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FreeTextMeasurement:
        """The inverse of `to_plain`, also after JSON."""
        columns = {key: tuple(plain[key]) for key in ("prompts", "written", "verdicts", "clusters", "units")}
        return cls(**columns, seed=int(plain["seed"]))

    @property
    def _is_judged(self) -> Bool[numpy.ndarray, " texts"]:
        return numpy.array([one is not None for one in self.verdicts])

    @property
    def _is_right(self) -> Bool[numpy.ndarray, " texts"]:
        return numpy.array([one is True for one in self.verdicts])

    def _terms(self) -> Float[numpy.ndarray, " texts"]:
        """Numbers whose mean is the share, and which vary with resampled texts as it does, to first order."""
        judged, right = self._is_judged.astype(float), self._is_right.astype(float)
        share = right.sum() / judged.sum()
        found: NDArray[numpy.float64] = share + (right - share * judged) / judged.mean()
        return found


def judge_free_text(
    network: Network,
    prompts: Sequence[str],
    judge: Judge,
    *,
    max_new_tokens: int = 8,
    num_samples: int = 1,
    temperature: float = 1.0,
    clusters: Sequence[Hashable] | None = None,
    units: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> FreeTextMeasurement:
    """Let the network go on from each prompt, with whatever edits it has at work while it writes, and judge the texts.

    Every prompt has random numbers of its own, the same under every edit: so two networks are compared in pairs.

    Args:
        network: A language model with a tokenizer; give it edits by `network.with_edits`.
        prompts: What to go on from.
        judge: Of a prompt and its continuation: right, wrong, or None where there is nothing to be judged.
        max_new_tokens: The most tokens to write.
        num_samples: Continuations of each prompt.
        temperature: Of the sampling; 0 for the likeliest token.
        clusters: What prompts share (wordings); each by itself otherwise.
        units: A second grouping (what is spoken of).
        seed: Of the draws and of the bootstrap.

    Cost: `num_samples` times what `generate` costs.

    >>> from tremorscope.instruments.load import load
    >>> prompts = ["Two days after Monday is", "Two days after Friday is"]
    >>> judge = lambda prompt, text: text.strip().startswith(("Wednesday", "Sunday"))
    >>> found = judge_free_text(load("builtin:microworld"), prompts, judge, temperature=0, max_new_tokens=2)
    >>> found.right().value, found.judged().value
    (1.0, 1.0)

    Raises:
        BadInput: If there is no prompt, groups are not as many, a verdict is no truth value, or as `generate`.
    """
    check_examples("prompts", prompts)
    if num_samples < 1:
        raise BadInput("num_samples", got=num_samples, wanted="at least 1")
    own = tuple(range(len(prompts)))
    groups = [tuple(own if given is None else given) for given in (clusters, units)]
    if any(len(one) != len(prompts) for one in groups):
        raise BadInput("groups of prompts", got=[len(one) for one in groups], wanted=f"{len(prompts)}, one for each")
    repeated = tuple(prompt for prompt in prompts for _ in range(num_samples))
    written = generate(network, repeated, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    verdicts = tuple(judge(prompt, text) for prompt, text in zip(repeated, written, strict=True))
    wrong = [one for one in verdicts if one is not None and not isinstance(one, bool)]
    if wrong:
        raise BadInput("verdict of a judge", got=repr(wrong[0]), wanted="True, False or None")
    spread = [tuple(one for one in some for _ in range(num_samples)) for some in groups]
    return FreeTextMeasurement(
        prompts=repeated, written=tuple(written), verdicts=verdicts, clusters=spread[0], units=spread[1], seed=seed
    )


def _unknown(low: float, high: float) -> Estimate:
    return Estimate(value=float("nan"), low=low, high=high, level=LEVEL, n=0, method="no text could be judged")
