"""Where in a forward pass does a small disturbance matter, compared with what chance would give, and what does it do?

| module | question |
|---|---|
| `references` | how do activations vary at each block input, and how far apart are two of them? |
| `cells` | KL at each block input and token, for many random disturbances |
| `marks` | which cells answer more than the nulls do? |
| `measurement` | the map: all cells, their nulls, tables and the heat map |
| `directions` | the most sensitive directions at one cell, and which tokens they raise and lower |
| `strength` | KL and probabilities against the size of a step along each |
"""
