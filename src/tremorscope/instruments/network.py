"""A functional view of any module: weights in, outputs out, the user's own module untouched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from tremorscope.foundations.errors import BadInput
from tremorscope.foundations.layout import Layout, Selection
from tremorscope.instruments.activations.aliases import SiteMap, find_place, map_sites, place_ahead
from tremorscope.instruments.activations.folding import fold
from tremorscope.instruments.activations.hooks import Tap, tapped
from tremorscope.instruments.activations.places import Features
from tremorscope.instruments.activations.positions import Window
from tremorscope.instruments.losses import Loss, differentiable
from tremorscope.instruments.site import Site
from tremorscope.instruments.task import Batch, Task

if TYPE_CHECKING:
    from tremorscope.instruments.edit import PlacedEdit
    from tremorscope.instruments.recipe import Recipe
    from tremorscope.instruments.trainer import Trainer

Params = Mapping[str, Tensor]


@final
class Network:
    """Any `nn.Module`, seen as a pure function of its parameters.

    The module is never changed: not its parameters, buffers, gradients, training flags nor the random
    state. Parameters that share storage (tied weights) are one parameter here, as in
    `module.named_parameters()`.

    Args:
        module: The user's module.
        task: Data and loss, when known.
        recipe: How it was (or is to be) trained, when known: a `Trainer`, or any `Recipe`.
        initial: Flat weights from which the recipe starts. None: the module's own weights are the start.
        tokenizer: For language models.
        name: What reports call it; the class name by default.
        dtype: Cast parameters and floating-point buffers of this view; the module keeps its own.
        device: Move them, likewise.

    >>> network = Network(nn.Linear(3, 2))
    >>> network.layout.size, network.sites()
    (8, ['weights:weight', 'weights:bias', 'weights:*', 'input', 'train.init'])
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        task: Task | None = None,
        recipe: Recipe | Trainer | None = None,
        initial: Tensor | None = None,
        tokenizer: Any = None,
        name: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise BadInput("module", got=type(module).__name__, wanted="a torch.nn.Module")
        self.module = module
        self.recipe: Recipe | Trainer | None = recipe
        self.tokenizer = tokenizer
        self.name = name or type(module).__name__
        self.params: dict[str, Tensor] = {
            key: _cast(value.detach(), dtype, device) for key, value in module.named_parameters()
        }
        self.buffers: dict[str, Tensor] = {
            key: _cast(value.detach(), dtype, device) for key, value in module.named_buffers()
        }
        if not self.params:
            raise BadInput(f"network {self.name!r}", got="no parameters", wanted="at least one")
        self.layout = Layout.of(self.params)
        # Tables of integers may come first; inputs and losses have the type of the real weights.
        values = list(self.params.values())
        first = next((value for value in values if value.is_floating_point()), values[0])
        self.dtype, self.device = first.dtype, first.device
        self.task = None if task is None else task.to(dtype=self.dtype, device=self.device)
        if initial is not None and initial.shape != (self.layout.size,):
            raise BadInput("initial weights", got=tuple(initial.shape), wanted=f"a vector of {self.layout.size}")
        self.initial = None if initial is None else initial.to(self.device, self.dtype)
        self.edits: tuple[PlacedEdit, ...] = ()  # of activations; those of weights are in the weights
        self._taps: tuple[Tap, ...] | None = ()  # the same, found and folded; None: to be found with the first batch
        self._site_maps: dict[str | None, SiteMap] = {}  # shared by all views
        self._feature_axes: dict[tuple[str, str], Features] = {}  # likewise, by module path and port
        self._unbaked: Network | None = None  # what this was before edits were written into its weights

    def __repr__(self) -> str:
        edits = f", {len(self.edits)} edits of activations" if self.edits else ""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"Network({self.name!r}, {self.layout.size:,} parameters, {dtype}{edits})"

    @property
    def theta(self) -> Float[Tensor, " params"]:
        """The weights as one vector, a copy."""
        return self.layout.flatten(self.params)

    @property
    def start(self) -> Float[Tensor, " params"]:
        """Where the recipe starts: `initial`, or else the module's own weights."""
        return self.theta if self.initial is None else self.initial.clone()

    def required_task(self) -> Task:
        """The task, for whoever cannot do without.

        Raises:
            BadInput: If there is none.
        """
        if self.task is None:
            raise BadInput(
                f"data of {self.name!r}", got="none", wanted="inputs and targets", remedy="Pass task=Task.of(x, y)."
            )
        return self.task

    def apply(
        self,
        params: Params | Float[Tensor, "*lead params"],
        batch: Batch,
        *,
        training: bool = False,
        window: Window | None = None,
    ) -> Tensor:
        """Output of the network with other weights.

        Works under `vmap`, `jvp`, `vjp` and `grad`. The forward pass runs in evaluation mode unless
        `training`; buffers that it writes to are copies that are thrown away. `window` is that of `output`.

        Raises:
            BadInput: If the output is not a tensor (or a Hugging Face output with logits).
        """
        output = self.output(params, batch, training=training, window=window)
        output = getattr(output, "logits", output)
        if not isinstance(output, Tensor):
            raise BadInput(
                f"output of {self.name!r}",
                got=type(output).__name__,
                wanted="a tensor, or an object with .logits",
                remedy="Wrap the module so that forward returns the tensor to measure.",
            )
        return output

    def output(
        self,
        params: Params | Float[Tensor, "*lead params"],
        batch: Batch,
        *,
        training: bool = False,
        window: Window | None = None,
    ) -> Any:
        """What the module itself returns with other weights: of a Hugging Face model, the hidden states too.

        `window` says which part of a text the batch is, when it is one that is being written.
        """
        return self._forward(params, batch, self._found_taps(batch), training=training, window=window)[0]

    def record(self, site: str | Site, batch: Batch) -> Tensor:
        """The value at a site among the activations, after this view's edits.

        [rows, positions, d] (or whatever the module gives) without a position, [rows, d] at a single one (`@last`,
        `@3`, `@-1`), [rows, n, d] at a slice; [tokens, d] at `@prompt`, the rows' tokens one after another. A map of
        channels, as convolutions make them, is [rows, pixels, channels]: its positions are pixels, row by row.

        Raises:
            SiteNotFound: If there is no such place.
            BadInput: If the site is no activation, or the forward pass does not go through it.

        >>> network = Network(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        >>> batch = Batch((torch.zeros(1, 2),), {}, None)
        >>> torch.equal(network.record("acts:1", batch), network.apply(network.params, batch))
        True
        """
        return self.record_all([site], batch)[str(site)]

    def record_all(self, sites: Sequence[str | Site], batch: Batch) -> dict[str, Tensor]:
        """The values at several sites, by address, from one forward pass. See `record`."""
        parsed = {str(site): Site.parse(site) for site in sites}
        taps = [
            Tap(place=find_place(self, site, batch), what=str(site), position=site.position) for site in parsed.values()
        ]
        found = self._forward(self.params, batch, (*self._found_taps(batch), *taps))[1]
        return dict(zip(parsed, found, strict=True))

    def site_map(self, batch: Batch | None = None, *, blocks: str | None = None) -> SiteMap:
        """Names such as `resid_post.3` that hold in this network, verified by a forward pass, and those that do not.

        The map is made once and shared by all views of the module.

        Args:
            batch: To look at what the module computes. None: a few tokens or examples, made up where they can be.
            blocks: Path of the list of blocks, where it cannot be found or is not the one that is meant.

        Raises:
            BadInput: If there is no batch and none can be made up, or `blocks` is no list of modules.
        """
        if blocks is None and None not in self._site_maps and len(self._site_maps) == 1:
            return next(iter(self._site_maps.values()))  # the one that was asked for by name
        if blocks not in self._site_maps:
            plain = self if not self.edits else self._without_edits()
            self._site_maps[blocks] = map_sites(plain, batch, blocks=blocks)
        return self._site_maps[blocks]

    def loss(
        self, params: Params | Float[Tensor, " params"], batch: Batch, *, training: bool = False
    ) -> Float[Tensor, ""]:
        """The task's loss of one batch, a scalar.

        Raises:
            BadInput: If there is no task, or its loss does not give a scalar.
        """
        self._required_loss(batch)  # before the forward pass, which may be long
        return self.output_loss(self.apply(params, batch, training=training), batch)

    def output_loss(self, output: Tensor, batch: Batch) -> Float[Tensor, ""]:
        """The task's loss as a function of the output alone.

        Raises:
            BadInput: If there is no task, or its loss does not give a scalar.
        """
        loss, target = self._required_loss(batch)
        value = differentiable(loss)(output, target)
        if value.ndim != 0:
            raise BadInput("value of the loss", got=f"shape {tuple(value.shape)}", wanted="a scalar")
        return value

    def select(self, parameters: Selection) -> tuple[str, ...]:
        """Names of the chosen parameters; a predicate sees each with `requires_grad` as in the user's module.

        >>> module = nn.Linear(3, 2)
        >>> _ = module.bias.requires_grad_(False)
        >>> Network(module).select(lambda name, parameter: parameter.requires_grad)
        ('weight',)

        Raises:
            SiteNotFound: If nothing is chosen.
        """
        trained = {name for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        shown = {name: value.detach().requires_grad_(name in trained) for name, value in self.params.items()}
        return self.layout.select(parameters, shown)

    def at(self, theta: Float[Tensor, " params"], *, name: str | None = None) -> Network:
        """The same network with other weights."""
        return self._view(self.layout.unflatten(theta.detach().to(self.device, self.dtype)), name or self.name)

    def with_task(self, task: Task) -> Network:
        """The same network on other data.

        A `Trainer` follows to the new data. A recipe of pure functions has the old data inside, so it is
        dropped.
        """
        from tremorscope.instruments.trainer import Trainer, Training  # it stands on this module

        view = self._view(self.params, self.name)
        view.task = task.to(dtype=self.dtype, device=self.device)
        if isinstance(self.recipe, Training):
            view.recipe = self.recipe.trainer.bind(view)
        elif not isinstance(self.recipe, Trainer):
            view.recipe = None
        return view

    def with_recipe(self, recipe: Recipe | Trainer) -> Network:
        """The same network, trained otherwise; a `Trainer` is bound to it."""
        from tremorscope.instruments.trainer import Trainer  # it stands on this module

        view = self._view(self.params, self.name)
        view.recipe = recipe.bind(view) if isinstance(recipe, Trainer) else recipe
        return view

    def with_edits(self, *placed: PlacedEdit) -> Network:
        """A view that is edited at the given sites, beside the edits that this one has.

        Weights are edited at once. Edits of activations (`acts:NAME`) are done in every forward pass of the view, in
        their order, by hooks that are there for the length of that pass.

        >>> from tremorscope.instruments.edit import Add
        >>> network = Network(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        >>> edited, batch = network.with_edits(Add(torch.ones(2)).at("acts:1")), Batch((torch.zeros(1, 2),), {}, None)
        >>> (edited.apply(edited.params, batch) - network.apply(network.params, batch)).round(decimals=5)
        tensor([[1., 1.]])

        Raises:
            SiteNotFound: If a site names nothing in this network.
            BadInput: If a site is not a place in the weights or among the activations.
        """
        acts = tuple(edit for edit in placed if edit.site.kind == "acts")
        view = self
        if len(acts) < len(placed):
            theta = self.theta
            for edit in placed:
                theta = theta if edit.site.kind == "acts" else edit.applied_to_weights(self.layout, theta)
            view = self.at(theta)
        if acts:
            view = view._view(view.params, view.name)
            view.edits = (*self.edits, *(edit.to(self.device) for edit in acts))
            view._taps = view._resolved(None)
        return view

    def sites(self) -> list[str]:
        """Addresses that can be disturbed; verified aliases only after `site_map()`, which costs a forward pass."""
        known = [alias for found in self._site_maps.values() for alias in found.aliases]
        paths = [path for path, _ in self.module.named_modules() if path and path not in known]
        weights = [f"weights:{name}" for name in self.layout.names]
        return [*weights, "weights:*", "input", "train.init", *(f"acts:{name}" for name in [*known, *paths])]

    def _forward(
        self,
        params: Params | Float[Tensor, "*lead params"],
        batch: Batch,
        taps: Sequence[Tap],
        *,
        training: bool = False,
        window: Window | None = None,
    ) -> tuple[Any, list[Tensor]]:
        """The module's output, and what the taps recorded."""
        named = self.layout.unflatten(params) if isinstance(params, Tensor) else params
        buffers = {key: value.clone() for key, value in self.buffers.items()} if training else self.buffers
        with _mode(self.module, training):
            if not taps:
                return functional_call(self.module, {**named, **buffers}, batch.args, batch.kwargs), []
            with tapped(self.module, taps, window or Window.of(batch)) as found:
                output = functional_call(self.module, {**named, **buffers}, batch.args, batch.kwargs)
        return output, [value for value in found if value is not None]

    def _found_taps(self, batch: Batch) -> tuple[Tap, ...]:
        if self._taps is None:
            self._taps = self._resolved(batch)
        return self._taps or ()

    def _resolved(self, batch: Batch | None) -> tuple[Tap, ...] | None:
        """Where the edits are; None if that takes a batch, and there is none."""
        taps = []
        for edit in self.edits:
            place = place_ahead(self, edit.site) if batch is None else find_place(self, edit.site, batch)
            if place is None:
                return None
            what, at = str(edit), edit.site.position
            taps.append(Tap(place=place, what=what, edit=edit.edit, position=at, where=edit.where))
        return fold(taps)

    def _without_edits(self) -> Network:
        view = self._view(self.params, self.name)
        view.edits, view._taps = (), ()
        return view

    def _required_loss(self, batch: Batch) -> tuple[Loss, Tensor]:
        if self.task is None or batch.target is None:
            raise BadInput(
                f"loss of {self.name!r}", got="no task", wanted="data with targets", remedy="Pass task=Task.of(x, y)."
            )
        return self.task.loss, batch.target

    def _view(self, params: dict[str, Tensor], name: str) -> Network:
        view = object.__new__(Network)
        view.__dict__.update(self.__dict__)
        view.params, view.name = params, name
        return view


def _cast(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    return tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)


@contextmanager
def _mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Put every submodule into one mode, and each back into its own afterwards, also on exceptions."""
    changed = [part for part in module.modules() if part.training is not training]
    for part in changed:
        part.training = training
    try:
        yield
    finally:
        for part in changed:
            part.training = not training
