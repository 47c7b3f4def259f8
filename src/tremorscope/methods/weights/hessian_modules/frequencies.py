"""What a sphere search did to the frequencies that a modular-addition network computes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from tremorscope.foundations.errors import BadInput
from tremorscope.instruments.fourier import frequency_power
from tremorscope.instruments.network import Network
from tremorscope.methods.weights.hessian_modules.sphere_search import SphereSearch


@final
@dataclass(frozen=True, kw_only=True)
class FrequencyChange:
    """Fourier power of the embedding, by frequency from 1 on, before a sphere search and at its last radius.

    Units: squared weights. The constant is left out: no sum mod p can be told from it.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def largest(self) -> float:
        """Largest relative change of the power of any frequency, `|after / before - 1|`."""
        return max(abs(now / was - 1) for was, now in zip(self.before, self.after, strict=True) if was > 0)

    @property
    def largest_of_key(self) -> float:
        """The same of shares of the whole power, among key frequencies: those above an equal share before.

        A frequency that carries nothing can multiply its power without any consequence; and where all grow alike,
        no frequency has taken over from another.
        """
        was, now = ([power / sum(powers) for power in powers] for powers in (self.before, self.after))
        return max(abs(b / a - 1) for a, b in zip(was, now, strict=True) if a > 1 / len(was))

    @classmethod
    def of_search(cls, network: Network, search: SphereSearch, *, parameter: str = "embedding") -> FrequencyChange:
        """From the network at `theta*`, and the last weights of a search around it.

        Raises:
            BadInput: If the search did not keep its weights, or the network has no such parameter.
        """
        if search.weights is None:
            raise BadInput("sphere search", got="no weights", wanted="the search as it was returned")
        if parameter not in network.params:
            raise BadInput("embedding of the network", got=parameter, wanted=f"one of {', '.join(network.params)}")
        there = network.at(search.weights[-1])
        before, after = (frequency_power(net.params[parameter])[1:].tolist() for net in (network, there))
        return cls(before=tuple(before), after=tuple(after))

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> FrequencyChange:
        """From plain data, in which tuples have become lists."""
        return cls(before=tuple(plain["before"]), after=tuple(plain["after"]))
