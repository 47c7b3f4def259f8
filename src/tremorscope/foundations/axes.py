"""The axis vocabulary of every shape annotation in the house.

| axis | meaning |
|---|---|
| `batch` | examples |
| `seq` | positions in a sequence |
| `d` | a vector space, mostly activations |
| `params` | entries of the flat parameter vector |
| `classes` | outputs of a classifier |
| `members` | networks of an ensemble, seeds |
| `sizes` | steps along the size axis of a perturbation |
| `probes` | random test vectors |
| `k` | vectors of a basis, columns of a block |
"""
