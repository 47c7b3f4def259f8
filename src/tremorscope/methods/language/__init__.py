"""Questions about what language models can do: right or wrong on held-out examples, and what their states tell."""
