"""Floor 0: numbers and records. Nothing here knows what a network is."""
