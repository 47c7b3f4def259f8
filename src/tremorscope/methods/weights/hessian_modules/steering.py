"""Break one way of solving a task and keep another, by a step in the weights; beside its control and nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from tremorscope.foundations.errors import BadInput, NotConverged
from tremorscope.foundations.figures import Figure
from tremorscope.foundations.layout import Layout
from tremorscope.foundations.results import Table
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.network import Network
from tremorscope.instruments.null import equal_curvature, equal_norm
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.spectrum import Spectrum, eigsh
from tremorscope.methods.weights.hessian_modules.curves import (
    ALPHAS,
    Choice,
    SteeringCurve,
    choose,
    choose_among,
    steering_curve,
)
from tremorscope.methods.weights.hessian_modules.directions import (
    EIGEN_TOLERANCE,
    METHODS,
    SteeringDirection,
    curvature_along,
    generalised,
    in_complement,
    projected,
    without,
)
from tremorscope.methods.weights.hessian_modules.independence import IndependenceMeasurement, measure_independence
from tremorscope.methods.weights.hessian_modules.objectives import Curvature, Objective, training_mode_flags
from tremorscope.methods.weights.hessian_modules.presentation import steering_figures, steering_tables

NO_PROJECTION = "no projection (k = 0)"
EQUAL_NORM = "random outside the keep span, equal norm"
EQUAL_CURVATURE = "random, equal curvature"
DAMPING = 0.003  # of the largest keep-curvature: less does not converge in float32, more keeps less
MOST_GRADIENT = 0.1  # per unit of weight; a minimum of the losses met here is one to about 0.05


@final
@dataclass(frozen=True, kw_only=True)
class StiffDirections:
    """One loss's curvature and its largest eigenpairs, in the weights that may move."""

    operator: LinearOperator
    spectrum: Spectrum
    layout: Layout
    kind: Curvature
    parameters: str
    flags: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True)
class SteeringMeasurement:
    """What steering breaks and keeps, beside the unprojected control and the random nulls.

    `direction` and `choice` are those of the steering itself; `null_choices` those of every null, by its name,
    each with a sign and size of its own choosing. Damages are drops of the score, else rises of the loss.
    """

    keep: str
    breaking: str
    judged: str
    direction: SteeringDirection
    curves: Mapping[str, SteeringCurve]  # the first is the steering
    null_curves: Mapping[str, Sequence[SteeringCurve]]
    choice: Choice
    control: Choice
    null_choices: Mapping[str, Sequence[Choice]]
    curvatures: Mapping[str, tuple[float, float]]  # along each direction: of the keep-loss, of the break-loss
    independence: IndependenceMeasurement | None
    k: int
    most: float
    kind: Curvature
    parameters: str
    flags: tuple[str, ...] = ()

    @property
    def steering(self) -> SteeringCurve:
        """The curve of the steering direction."""
        return next(iter(self.curves.values()))

    def tables(self) -> list[Table]:
        """The choice beside its control and nulls, every point of the curve, and the independence report."""
        return [*steering_tables(self), *(() if self.independence is None else self.independence.tables())]

    def figures(self) -> list[Figure]:
        """Steering curves, kept against broken with the nulls, and the Gram matrix."""
        return [*steering_figures(self), *(() if self.independence is None else self.independence.figures())]


def stiff_directions(
    objective: Objective,
    k: int = 50,
    *,
    parameters: str = "*",
    kind: Curvature = "hessian",
    seed: int = 0,
    force: bool = False,
) -> StiffDirections:
    """In which `k` directions of the weights does this loss bend most?

    Args:
        objective: Its curvature's examples and its loss.
        k: Fewer than there are weights.
        parameters: Shell-style pattern of the weights that may move.
        kind: `"hessian"`, or `"ggn"`, which leaves out how the network itself bends.
        seed: Of the eigensolver.
        force: Go on with the eigenpairs that converged when some did not.

    Cost: about `4 k` products, and one gradient. Units: loss per squared weight.

    Raises:
        BadInput: If `k` does not fit, or the loss cannot be differentiated.
        SiteNotFound: If no parameter matches.
        NotConverged: If an eigenpair does not reach its tolerance, unless forced.
    """
    network = objective.network
    layout = Layout.of({name: network.params[name] for name in network.layout.select(parameters)})
    _check_k(k, layout)
    operator = objective.operator(kind, parameters)
    try:
        spectrum = eigsh(
            operator,
            max(k, 1),
            which="largest",
            tol=EIGEN_TOLERANCE,
            seed=derive(seed, "stiff directions"),
            allow_partial=force,
        )
    except NotConverged as error:
        error.add_note("Nothing is steered along directions that did not converge, unless force=True.")
        raise
    flags = [f"curvature of {objective.name}: {flag}" for flag in spectrum.flags]
    flags += _away_from_minimum(objective, operator, parameters, seed)
    return StiffDirections(
        operator=operator, spectrum=spectrum, layout=layout, kind=kind, parameters=parameters, flags=tuple(flags)
    )


def steer(
    network: Network,
    keep: Objective,
    breaking: Objective,
    *,
    mixed: Objective | None = None,
    judged: Objective | None = None,
    watch: Sequence[Objective] = (),
    k: int = 50,
    method: str = "projection",
    indices: Sequence[int] = (0,),
    alphas: Sequence[float] = ALPHAS,
    most: float = 0.02,
    num_nulls: int = 4,
    damping: float | None = None,
    known: Mapping[str, StiffDirections] | None = None,
    parameters: str = "*",
    kind: Curvature = "hessian",
    independence: bool = True,
    seed: int = 0,
    force: bool = False,
) -> SteeringMeasurement:
    """Which step in the weights breaks one way of solving a task and keeps another, and is chance any worse?

    Sign, size and (of several) the direction are chosen on validation data: what breaks most among those that
    cost the kept objective at most `most`. All is judged on test data. The unprojected break direction
    and two kinds of random ones go through the same choice: random outside the keep span at equal norm, and
    random with the same curvature of the mixed loss, which is the fairer one.

    With one of the two unknown, put the mixed objective in its place: `breaking=mixed` looks for what mixed
    images need beyond what is kept, `keep=mixed` breaks while the mixed task still works; `judged` then names
    the objective whose damage is reported.

    Args:
        network: Any network, at a minimum of its training loss.
        keep: What is to stay.
        breaking: What is to break.
        mixed: Data on which both work: watched, and the measure of equal curvature (else the mean of the two).
        judged: What counts as broken on test data, when it is not `breaking`; it is never used to choose.
        watch: Read along the way, and nothing more.
        k: Top eigenvectors of the keep-loss to leave alone.
        method: `"projection"` (published), `"complement"` or `"generalised"`; see `directions`.
        indices: Which of the break directions to try, 0 the stiffest; nulls get as many draws.
        alphas: Sizes; both signs of each are tried.
        most: Damage of the kept objective allowed on validation data: in its score, else its loss.
        num_nulls: Draws of each null.
        damping: Of the generalised problem; 0.003 of the keep-loss's largest eigenvalue by default.
        known: From `stiff_directions`, by name of the objective, when several steerings share them.
        parameters: Which weights may move.
        kind: `"hessian"` or `"ggn"`.
        independence: Also report how far the two losses' stiff directions are apart: `2 k` products of each.
        seed: Names every random stream.
        force: Steer although the eigensolver did not converge.

    Cost: `stiff_directions` of both, then `2 * objectives` forward passes for each of `2 len(alphas)` places of each of
    `(2 + 2 num_nulls) len(indices)` directions.

    Raises:
        BadInput: If nothing is left of the break direction, `k` does not fit, or a loss has no derivative.
        NotConverged: If the eigensolver did not converge, unless forced.
    """
    if method not in METHODS:
        raise BadInput("method", got=method, wanted=f"one of {', '.join(METHODS)}")
    if keep.name == breaking.name:
        raise BadInput(
            "names of the objectives", got=f"{keep.name!r} twice", wanted="two names", remedy="Rename one of them."
        )
    if not indices:
        raise BadInput("break directions", got="none", wanted="at least one index", remedy="Use indices=(0,).")
    known = dict(known or {})
    for one, count in ((keep, k), (breaking, max(k, max(indices) + 1))):
        if one.name not in known:
            known[one.name] = stiff_directions(one, count, parameters=parameters, kind=kind, seed=seed, force=force)
    keep_side, break_side = known[keep.name], known[breaking.name]
    _check_k(k, keep_side.layout)
    flags = [*training_mode_flags(network.module), *keep.flags, *breaking.flags, *keep_side.flags, *break_side.flags]
    directions = _directions(keep, keep_side, break_side, k, method, indices, damping, seed)
    seen = {one.name: one for one in (keep, breaking, mixed, judged, *watch) if one is not None}
    objectives, name = list(seen.values()), judged.name if judged is not None else breaking.name

    def curves(what: str, along: Sequence[SteeringDirection]) -> list[SteeringCurve]:
        return [steering_curve(network, one, objectives, alphas, name=what) for one in along]

    tried = curves("steering", directions)
    best, choice = choose_among(tried, keep.name, breaking.name, most=most, judged=name)
    direction = directions[best]
    plain = [projected(keep_side.spectrum, break_side.spectrum, keep_side.layout, k=0, index=direction.index)]
    control = curves(NO_PROJECTION, plain)
    mixed_operator = None
    if mixed is not None:
        beside = known.get(mixed.name)
        mixed_operator = mixed.operator(keep_side.kind, keep_side.parameters) if beside is None else beside.operator
    level = 0.5 * (keep_side.operator + break_side.operator) if mixed_operator is None else mixed_operator
    null_curves: dict[str, list[SteeringCurve]] = {}
    null_choices: dict[str, list[Choice]] = {}
    drawn = {
        EQUAL_NORM: [_random_outside(keep_side, k, one, seed, draw) for draw in range(num_nulls) for one in directions],
        EQUAL_CURVATURE: _of_equal_curvature(level, directions, num_nulls, seed, flags),
    }
    for what, vectors in drawn.items():
        null_curves[what] = curves(what, vectors)
        groups = [null_curves[what][i : i + len(indices)] for i in range(0, len(vectors), len(indices))]
        null_choices[what] = [
            choose_among(group, keep.name, breaking.name, most=most, judged=name)[1] for group in groups
        ]
    bent = {"steering": direction, NO_PROJECTION: plain[0]} | {
        what: vectors[0] for what, vectors in drawn.items() if vectors
    }
    return SteeringMeasurement(
        keep=keep.name,
        breaking=breaking.name,
        judged=name,
        direction=direction,
        curves={"steering": tried[best], NO_PROJECTION: control[0]},
        null_curves=null_curves,
        choice=choice,
        control=choose(control[0], keep.name, breaking.name, most=most, judged=name),
        null_choices=null_choices,
        curvatures={
            what: (curvature_along(keep_side.operator, one.vector), curvature_along(break_side.operator, one.vector))
            for what, one in bent.items()
        },
        independence=measure_independence(
            {keep.name: keep_side.spectrum, breaking.name: break_side.spectrum},
            {keep.name: keep_side.operator, breaking.name: break_side.operator},
            mixed=mixed_operator,
        )
        if independence
        else None,
        k=k,
        most=most,
        kind=keep_side.kind,
        parameters=keep_side.parameters,
        flags=tuple(dict.fromkeys(flags)),
    )


def _directions(
    keep: Objective,
    keep_side: StiffDirections,
    break_side: StiffDirections,
    k: int,
    method: str,
    indices: Sequence[int],
    damping: float | None,
    seed: int,
) -> list[SteeringDirection]:
    layout, num = keep_side.layout, max(indices) + 1
    if method == "projection":
        return [projected(keep_side.spectrum, break_side.spectrum, layout, k=k, index=i) for i in indices]
    if method == "complement":
        found = in_complement(keep_side.spectrum, break_side.operator, layout, k=k, num=num, seed=seed)
    else:
        # The Hessian of the keep-loss has negative directions, in which "little keep for much break" has no meaning.
        positive = keep.operator("ggn", keep_side.parameters)
        damping = DAMPING * float(keep_side.spectrum.values[0]) if damping is None else damping
        found = generalised(positive, break_side.operator, layout, damping=damping, num=num, seed=seed)
    # At the length at which each bends the break-loss as the published one does, one set of sizes serves all.
    published = projected(keep_side.spectrum, break_side.spectrum, layout, k=k)
    wanted = curvature_along(break_side.operator, published.vector)
    return [_scaled(found[i], wanted, break_side.operator, published.left) for i in indices]


def _scaled(direction: SteeringDirection, wanted: float, operator: LinearOperator, norm: float) -> SteeringDirection:
    own = curvature_along(operator, direction.vector)
    factor = (wanted / own) ** 0.5 if wanted > 0 and own > 0 else norm
    return replace(direction, vector=direction.vector * factor)


def _random_outside(side: StiffDirections, k: int, like: SteeringDirection, seed: int, draw: int) -> SteeringDirection:
    stream = generator(seed, "equal norm", draw, like.index)
    outside = without(equal_norm(like.vector, stream), side.spectrum.vectors[:, :k])
    vector = outside * (like.vector.norm() / outside.norm())
    return replace(like, name=EQUAL_NORM, vector=vector, left=1.0)


def _of_equal_curvature(
    level: LinearOperator, directions: Sequence[SteeringDirection], num_nulls: int, seed: int, flags: list[str]
) -> list[SteeringDirection]:
    found = []
    for draw in range(num_nulls):
        for like in directions:
            stream = generator(seed, "equal curvature", draw, like.index)
            try:
                vector = equal_curvature(like.vector, level, stream)
            except BadInput as error:  # flat, or a curvature of a sign that chance does not meet
                flags.append(f"no null of equal curvature: {error}")
                return []
            found.append(replace(like, name=EQUAL_CURVATURE, vector=vector, left=1.0))
    return found


def _check_k(k: int, layout: Layout) -> None:
    if not 0 <= k < layout.size:
        raise BadInput(
            "number of keep directions k",
            got=k,
            wanted=f"0 to {layout.size - 1}: {layout.size} weights may move, and something must be left",
            remedy="Lower k, or let more parameters move.",
        )


def _away_from_minimum(one: Objective, operator: LinearOperator, parameters: str, seed: int) -> list[str]:
    slope = float(one.gradient(parameters).norm())
    if slope <= MOST_GRADIENT:
        return []
    lowest = eigsh(
        operator, 2, which="most_negative", tol=3e-3, seed=derive(seed, "negative"), allow_partial=True
    ).values.tolist()
    found = ", ".join(f"{value:.3g}" for value in lowest) or "none"
    return [
        f"not at a minimum of the loss on {one.name}: gradient norm {slope:.2g}, above {MOST_GRADIENT:g}; most "
        f"negative eigenvalues of its curvature: {found}"
    ]
