"""Floor 1: what touches a network. Nothing here asks a scientific question."""
