"""Questions about the weights: what training does to them, and what they do to the loss."""
