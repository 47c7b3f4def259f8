"""In what do two networks of one shape differ: weights, activations, predictions, and what disturbs them?

| module | question |
|---|---|
| `weights` | how far did each tensor move, in how many directions, and in stiff ones? |
| `shifts` | how did mean, covariance and main directions of activations move, and the predictions? |
| `maps` | which cells of the sensitivity map answer more, or less? |
"""
