"""Floor 2: scientific questions, one module per idea, in groups that never import each other."""
