"""What one product costs, told before many of them are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from tremorscope.foundations.errors import BadInput


@final
@dataclass(frozen=True, kw_only=True)
class ProductCost:
    """Seconds of one product with a block of `num_columns`, measured, and bytes held between products.

    >>> cost = ProductCost(seconds=0.5, num_columns=1, kept_bytes=3 * 2**20)
    >>> print(cost, "|", cost.told(240))
    0.5 s a product, 3.0 MiB kept | 240 products: about 2 min
    """

    seconds: float
    num_columns: int
    kept_bytes: int

    def __str__(self) -> str:
        kept = f"{self.kept_bytes / 2**20:,.1f} MiB kept"
        columns = "" if self.num_columns == 1 else f" with {self.num_columns} columns"
        return f"{self.seconds:.2g} s a product{columns}, {kept}"

    def seconds_for(self, num_vectors: int) -> float:
        """Time of products with so many vectors, in blocks of the measured width.

        Raises:
            BadInput: If the number is negative.
        """
        if num_vectors < 0:
            raise BadInput("number of vectors", got=num_vectors, wanted="at least 0")
        return self.seconds * num_vectors / self.num_columns

    def told(self, num_vectors: int) -> str:
        """The same as a sentence for people who wait.

        Raises:
            BadInput: If the number is negative.
        """
        seconds = self.seconds_for(num_vectors)
        units = ((3600.0, 3600.0, "h"), (60.0, 60.0, "min"), (0.1, 1.0, "s"), (0.0, 1e-3, "ms"))
        scale, unit = next((scale, unit) for least, scale, unit in units if seconds >= least)
        return f"{num_vectors:,} products: about {seconds / scale:.2g} {unit}"
