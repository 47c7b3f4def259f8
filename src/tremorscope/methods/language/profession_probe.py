"""What hidden states tell of a profession: linear probes, beside an untrained twin, words and shuffled labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy
from jaxtyping import Float, Int

from tremorscope.foundations.cluster_bootstrap import crossed_mean
from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.estimate import Estimate
from tremorscope.foundations.figures import NULL_COLOUR, PALETTE, Axis, Figure, line
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, numpy_generator
from tremorscope.instruments.language.scoring import Pooling, pooled_hidden_states
from tremorscope.instruments.microworld import biographies
from tremorscope.instruments.microworld.splits import Split
from tremorscope.instruments.network import Network

WORDS = "bag of words"
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # of the data against the penalty; chosen on validation examples
_MARKS = ("circle", "diamond", "square", "x", "triangle-up")


@final
@dataclass(frozen=True, kw_only=True)
class Probe:
    """Probes of every layer of one network (or of the words), and the layer that does best on validation examples.

    `validation` and `test` are accuracies by layer, each with the penalty that does best on validation examples.
    `correct` says of each test example whether the chosen layer's probe was right; `shuffled` the same of probes that
    were trained on shuffled labels, layer and penalty chosen in the same way.
    """

    layer: int
    strength: float
    validation: tuple[float, ...]
    test: tuple[float, ...]
    correct: tuple[bool, ...]
    shuffled: tuple[bool, ...]
    converged: bool


@final
@dataclass(frozen=True, kw_only=True)
class ProfessionProbes:
    """Probes of several networks on the same biographies; one draw of them, or several one after the other.

    `probes` holds, by the name of the network, one `Probe` for each draw. `templates` and `names` are the wordings and
    people of the test examples, of all draws in order. `pooling` says what the probes read: the mean over all tokens,
    or the last one.
    """

    professions: tuple[str, ...]
    pooling: Pooling
    probes: Mapping[str, tuple[Probe, ...]]
    templates: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / len(self.professions)

    def accuracy(self, name: str, *, shuffled: bool = False, seed: int = 0) -> Estimate:
        """Test accuracy of the chosen layers; wordings and people are drawn for the interval."""
        return crossed_mean(self._right(name, shuffled), self.templates, self.names, seed=seed)

    def margin(self, name: str, other: str, *, shuffled: bool = False, seed: int = 0) -> Estimate:
        """Test accuracy of one network's probe less that of another's on the same examples."""
        gaps = self._right(name, shuffled).astype(float) - self._right(other, shuffled)
        return crossed_mean(gaps, self.templates, self.names, seed=seed)

    def joined(self, others: Sequence[ProfessionProbes]) -> ProfessionProbes:
        """Several draws, of the same networks, as one."""
        parts = [self, *others]
        return ProfessionProbes(
            professions=self.professions,
            pooling=self.pooling,
            probes={name: tuple(probe for part in parts for probe in part.probes[name]) for name in self.probes},
            templates=tuple(one for part in parts for one in part.templates),
            names=tuple(one for part in parts for one in part.names),
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """Fits that did not converge."""
        return tuple(
            f"{name}: a probe for {self._task} stopped before it converged"
            for name, probes in self.probes.items()
            if not all(probe.converged for probe in probes)
        )

    def tables(self) -> list[Table]:
        """Accuracy by network, and by layer."""
        rows, layers = [], []
        for name, probes in self.probes.items():
            rows.append(
                {
                    "probe of": name,
                    "accuracy": self.accuracy(name),
                    "with shuffled labels": self.accuracy(name, shuffled=True),
                    "chance": self.chance,
                    "layers chosen": ", ".join(str(probe.layer) for probe in probes) if name != WORDS else "",
                }
            )
            for layer in range(len(probes[0].test)):
                layers.append(
                    {
                        "probe of": name,
                        "layer": layer,
                        "validation accuracy": float(numpy.mean([probe.validation[layer] for probe in probes])),
                        "test accuracy": float(numpy.mean([probe.test[layer] for probe in probes])),
                    }
                )
        return [
            Table.of_rows(
                rows,
                name=f"{self._name}_probe",
                title=f"Linear probes for {self._task}, {self._read}",
                caption=f"Logistic regression on hidden states {self._read} of biographies without pronouns or first "
                "names, which do not name the profession. Layer and penalty are chosen on validation examples; "
                "wordings and people of the test examples are absent from training.",
            ),
            Table.of_rows(
                layers,
                name=f"{self._name}_probe_layers",
                title=f"Linear probes for {self._task}, {self._read}, layer by layer",
                caption="Mean accuracy over the draws; layer 0 is the embedding.",
            ),
        ]

    def figures(self) -> list[Figure]:
        """Test accuracy layer by layer."""
        traces, last = [], max(len(probes[0].test) for probes in self.probes.values()) - 1
        for place, (name, probes) in enumerate(self.probes.items()):
            accuracies = numpy.mean([probe.test for probe in probes], axis=0)
            if name == WORDS:
                traces.append(line([0, last], [accuracies[0]] * 2, name, colour="#000000", dash="dash"))
                continue
            mark = {"marker": {"symbol": _MARKS[place % len(_MARKS)], "size": 9}}
            colour = PALETTE[place % len(PALETTE)]
            traces.append(line(range(len(accuracies)), accuracies, name, colour=colour, markers=True) | mark)
        traces.append(line([0, last], [self.chance] * 2, "chance", colour=NULL_COLOUR, dash="dot"))
        own = next(iter(self.probes))
        return [
            Figure(
                name=f"{self._name}_probe_layers",
                title=f"How far each layer tells {self._task}, {self._read}",
                caption=f"Test accuracy of a linear probe {self._read}, mean over the draws. Of {own}, the layer "
                f"chosen on validation examples reaches {self.accuracy(own)}; words alone reach "
                f"{self.accuracy(WORDS)} (dashed).",
                traces=traces,
                x=Axis(title="layer (0: embedding)"),
                y=Axis(title="accuracy, share of biographies", range=(0.0, 1.02)),
                layout={"xaxis": {"title": {"text": "layer (0: embedding)"}, "dtick": 1}},
            )
        ]

    def to_plain(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> ProfessionProbes:
        """The inverse of `to_plain`, also after JSON."""
        probes = {
            name: tuple(Probe(**{key: _tupled(value) for key, value in probe.items()}) for probe in draws)
            for name, draws in plain["probes"].items()
        }
        lists = {key: tuple(plain[key]) for key in ("professions", "templates", "names")}
        return cls(probes=probes, pooling=plain["pooling"], **lists)

    @property
    def _task(self) -> str:
        if len(self.professions) == 2:
            return " or ".join(self.professions)
        return f"{len(self.professions)} professions"

    @property
    def _read(self) -> str:
        return "averaged over all tokens" if self.pooling == "mean" else "at the last token"

    @property
    def _name(self) -> str:
        return ("pair" if len(self.professions) == 2 else "all") + ("_last_token" if self.pooling == "last" else "")

    def _right(self, name: str, shuffled: bool) -> numpy.ndarray:
        probes = self.probes[name]
        return numpy.array([right for probe in probes for right in (probe.shuffled if shuffled else probe.correct)])


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def measure_profession_probes(
    networks: Mapping[str, Network],
    *,
    professions: Sequence[str] = biographies.PUBLISHED_PAIR,
    poolings: Sequence[Pooling] = ("mean",),
    num_train: int = 300,
    num_validation: int = 150,
    num_test: int = 200,
    split: Split = "test",
    seed: int = 0,
) -> dict[Pooling, ProfessionProbes]:
    """Can the profession be read from the hidden states of a text that never names it?

    Texts are biographies without gendered words, of training wordings and people (to fit), validation ones (to choose
    layer and penalty) and those of `split` (to report). Features are scaled by the training examples' mean and
    deviation. Controls: whatever other networks are given (an untrained twin first of all), counts of words, and
    labels shuffled among the training examples.

    Args:
        networks: By name; the one in question first.
        professions: At least two; `PUBLISHED_PAIR`, or all names of `PROFESSIONS`.
        poolings: What probes read, for each a result: the "mean" of the hidden states over all tokens (as in
            arXiv:2403.19647, section 4), or the "last" token's, which holds only what the network brought there.
        num_train: Biographies to fit on.
        num_validation: To choose on.
        num_test: To report.
        split: Where the reported ones come from; "validation" while a study is calibrated.
        seed: Names the draws.

    Cost: a forward pass over all texts (some 60 tokens each), and `2 * 4 * layers` logistic regressions for each
    pooling and network.

    Raises:
        BadInput: If there are fewer than two professions or a profession has no training example, or a network gives no
            hidden states.
    """
    if len(set(professions)) < 2:
        raise BadInput("professions to tell apart", got=", ".join(professions) or "none", wanted="at least two")
    uses: list[tuple[str, Split, int]] = [
        ("fit", "train", num_train),
        ("choose", "validation", num_validation),
        ("report", split, num_test),
    ]
    parts = [
        biographies.examples(part, derive(seed, use), count, professions=professions, gendered=False)
        for use, part, count in uses
    ]
    places = {name: place for place, name in enumerate(dict.fromkeys(professions))}
    labels = [numpy.array([places[one.profession] for one in part]) for part in parts]
    if len(set(labels[0].tolist())) < len(places):
        raise BadInput(
            "biographies to fit on",
            got=f"{num_train}, with no example of some profession",
            wanted=f"several of each of {len(places)} professions",
            remedy="Use more.",
        )
    texts = [[one.prompt for one in part] for part in parts]
    features = {name: _layers(network, texts, poolings) for name, network in networks.items()}
    words = _probe([_word_counts(texts)], labels, seed)
    closings = [template.text for template in biographies.CLOSINGS[split]]
    return {
        pooling: ProfessionProbes(
            professions=tuple(places),
            pooling=pooling,
            probes={
                **{name: (_probe(layers[pooling], labels, seed),) for name, layers in features.items()},
                WORDS: (words,),
            },
            templates=tuple(_without_closing(one.template, closings) for one in parts[2]),
            names=tuple(one.name for one in parts[2]),
        )
        for pooling in poolings
    }


Features = tuple[Float[numpy.ndarray, "_ _"], ...]
Labels = Sequence[Int[numpy.ndarray, " _"]]


def _layers(
    network: Network, texts: Sequence[Sequence[str]], poolings: Sequence[Pooling]
) -> dict[Pooling, list[Features]]:
    """For each pooling and layer the states of the texts to fit, to choose and to report on."""
    flat = [text for part in texts for text in part]
    ends = numpy.cumsum([len(part) for part in texts])[:-1]
    return {
        pooling: [tuple(numpy.split(state.cpu().numpy().astype(numpy.float64), ends)) for state in states]
        for pooling, states in pooled_hidden_states(network, flat, poolings).items()
    }


def _word_counts(texts: Sequence[Sequence[str]]) -> Features:
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer()
    counter.fit(texts[0])
    return tuple(counter.transform(part).toarray().astype(numpy.float64) for part in texts)


def _probe(layers: Sequence[Features], labels: Labels, seed: int) -> Probe:
    fitted = [_best(features, labels) for features in layers]
    mixed = numpy_generator(seed, "shuffled labels").permutation(labels[0])
    null = [_best(features, (mixed, *labels[1:])) for features in layers]
    chosen, among_null = (int(numpy.argmax([one[0] for one in found])) for found in (fitted, null))
    return Probe(
        layer=chosen,
        strength=fitted[chosen][1],
        validation=tuple(one[0] for one in fitted),
        test=tuple(float(one[2].mean()) for one in fitted),
        correct=tuple(fitted[chosen][2].tolist()),
        shuffled=tuple(null[among_null][2].tolist()),
        converged=all(one[3] for one in (*fitted, *null)),
    )


def _best(features: Features, labels: Labels) -> tuple[float, float, numpy.ndarray, bool]:
    """Validation accuracy, penalty, and which test examples are right, of the penalty that validates best."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    centre, scale = features[0].mean(0), features[0].std(0)
    scale = numpy.where(scale > 0, scale, 1.0)
    train, validation, test = ((part - centre) / scale for part in features)
    best: tuple[float, float, numpy.ndarray, bool] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=500)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model.fit(train, labels[0])
        converged = not any(issubclass(one.category, ConvergenceWarning) for one in told)
        accuracy = float((model.predict(validation) == labels[1]).mean())
        if best is None or accuracy > best[0]:
            best = (accuracy, strength, model.predict(test) == labels[2], converged)
    if best is None:
        raise BadInput("penalties to choose from", got="none", wanted="at least one")
    return best


def _without_closing(template: str, closings: Sequence[str]) -> str:
    """The wordings of a biography but for its last sentence, which the prompt leaves out."""
    return next((template.removesuffix(f" {last}") for last in closings if template.endswith(last)), template)
