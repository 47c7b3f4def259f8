"""What chance would give: tasks, directions and networks that share everything but the thing claimed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.seeds import derive, generator
from tremorscope.instruments.initialisation import reset_module
from tremorscope.instruments.network import Network
from tremorscope.instruments.operators import LinearOperator
from tremorscope.instruments.task import Task

Draw = Callable[[Tensor, torch.Generator], Tensor]


def permuted_targets(task: Task, seed: int) -> Task:
    """The same inputs and the same multiset of targets, with no relation between them.

    Training and held-out targets are permuted apart. Everything that a network still shows, it owes to the
    inputs and to fitting as such.
    """

    def shuffled(targets: Tensor, stream: torch.Generator) -> Tensor:
        return targets[torch.randperm(len(targets), generator=stream).to(targets.device)]

    return _redrawn(task, seed, "permuted targets", targets=shuffled)


def matched_covariance(task: Task, seed: int, random_targets: bool = True) -> Task:
    """Gaussian inputs with the mean and covariance of the training inputs: second moments, nothing else.

    Features that are constant in the training data keep exactly that value. Held-out inputs are drawn from
    the same Gaussian. Targets are drawn uniformly from the classes, or, when they are real numbers,
    permuted; `random_targets=False` keeps them.

    Raises:
        BadInput: If the inputs are not real numbers.
    """
    flat = _real_inputs(task).reshape(task.size, -1).double().cpu()
    mean = flat.mean(dim=0)
    # R^T R = X^T X for the centred data, so rows of z R with standard normal z have its covariance, whichever
    # of examples and features is the smaller number.
    factor = torch.linalg.qr(flat - mean, mode="r").R / math.sqrt(max(task.size - 1, 1))
    constant = (flat == flat[0]).all(dim=0)

    def gaussian(inputs: Tensor, stream: torch.Generator) -> Tensor:
        normal = torch.randn(len(inputs), len(factor), generator=stream, dtype=torch.float64)
        drawn = torch.where(constant, flat[0], mean + normal @ factor)
        return drawn.reshape(inputs.shape).to(inputs)

    matched = _redrawn(task, seed, "Gaussian inputs of equal covariance", inputs=gaussian)
    if not random_targets:
        return matched
    if task.targets.is_floating_point():
        return permuted_targets(matched, seed)
    num_classes = task.num_classes or int(task.targets.max()) + 1

    def uniform(targets: Tensor, stream: torch.Generator) -> Tensor:
        return torch.randint(num_classes, targets.shape, generator=stream, dtype=targets.dtype).to(targets.device)

    return _redrawn(matched, seed, "random labels", targets=uniform)


def white_noise(task: Task, seed: int) -> Task:
    """Uniform inputs between the smallest and largest training input, targets kept.

    For pixels in [0, 1] this is the null of the published training-Jacobian notebook.

    Raises:
        BadInput: If the inputs are not real numbers.
    """
    low, high = (float(end) for end in _real_inputs(task).aminmax())

    def uniform(inputs: Tensor, stream: torch.Generator) -> Tensor:
        drawn = torch.rand(inputs.shape, generator=stream, dtype=torch.float64)
        return (low + (high - low) * drawn).to(inputs)

    return _redrawn(task, seed, "uniform noise as inputs", inputs=uniform)


def equal_norm(direction: Float[Tensor, " d"], generator: torch.Generator) -> Float[Tensor, " d"]:
    """A direction drawn uniformly from the sphere through the given one.

    Raises:
        BadInput: If the given one is zero or not finite.
    """
    norm = _norm(direction)
    drawn = _normal(direction, generator)
    scaled: Tensor = drawn * (norm / drawn.norm())
    return scaled


def equal_curvature(
    direction: Float[Tensor, " d"], operator: LinearOperator, generator: torch.Generator, *, num_draws: int = 100
) -> Float[Tensor, " d"]:
    """A random direction, rescaled so that its curvature `v^T A v` is that of the given one.

    The fair null for "this direction matters": to second order it costs the same. Draws whose curvature
    has the other sign are thrown away. Cost: one product, and one for each draw.

    Raises:
        BadInput: If the given direction is zero, not finite or flat, or no draw has curvature of its sign.
    """
    _norm(direction)

    def along(vector: Tensor) -> float:
        there = vector.to(operator.device, operator.dtype)
        return float(there @ operator.mv(there))

    wanted = along(direction)
    if wanted == 0 or not math.isfinite(wanted):
        raise BadInput(
            "curvature along the direction",
            got=wanted,
            wanted="a finite number other than 0",
            remedy="A direction without curvature has no equal-curvature null: use equal_norm.",
        )
    for _ in range(num_draws):
        drawn = _normal(direction, generator)
        curvature = along(drawn)
        if curvature * wanted > 0:
            return drawn * math.sqrt(wanted / curvature)
    raise BadInput(
        "random direction of equal curvature",
        got=f"no draw of {num_draws} with curvature of the sign of {wanted:.4g}",
        wanted="an operator with such directions in reach of chance",
        remedy="Use equal_norm, or more num_draws.",
    )


def untrained(network: Network, *, seed: int = 0) -> Network:
    """The same network before training.

    With a recipe, or known starting weights: the network at its start. Otherwise a copy of the module,
    initialised anew by its layers' `reset_parameters` from the seed; neither the user's module nor the
    global random state is touched.

    Raises:
        BadInput: If a layer with parameters of its own cannot initialise itself, or a model of transformers has
            weights that its configuration does not make.
    """
    name = f"{network.name} (untrained)"
    if network.recipe is not None or network.initial is not None:
        return network.at(network.start, name=name)
    module = reset_module(network.module, network.name, seed=derive(seed, "untrained"))
    return Network(
        module, task=network.task, tokenizer=network.tokenizer, name=name, dtype=network.dtype, device=network.device
    )


def _redrawn(task: Task, seed: int, what: str, *, inputs: Draw | None = None, targets: Draw | None = None) -> Task:
    def drawn(name: str, tensor: Tensor, draw: Draw | None) -> Tensor:
        return tensor if draw is None else draw(tensor, generator(seed, "null", what, name))

    test_inputs, test_targets = task.test_inputs, task.test_targets

    return replace(
        task,
        name=f"{task.name} ({what})",
        description=f"{task.description}; null: {what}".removeprefix("; "),
        inputs=drawn("inputs", task.inputs, inputs),
        targets=drawn("targets", task.targets, targets),
        test_inputs=None if test_inputs is None else drawn("test_inputs", test_inputs, inputs),
        test_targets=None if test_targets is None else drawn("test_targets", test_targets, targets),
    )


def _real_inputs(task: Task) -> Tensor:
    if not task.inputs.is_floating_point():
        raise BadInput(
            f"null of task {task.name!r}",
            got=f"inputs of type {task.inputs.dtype}",
            wanted="real-valued inputs",
            remedy="For token ids use permuted_targets.",
        )
    return task.inputs


def _norm(direction: Tensor) -> Tensor:
    norm: Tensor = direction.norm()
    if not norm.isfinite() or norm == 0:
        raise BadInput("direction", got=f"norm {float(norm):.4g}", wanted="a finite vector other than 0")
    return norm


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    # In float64 whatever comes out, so that the draw does not depend on the precision of the network.
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device=generator.device).to(like)
