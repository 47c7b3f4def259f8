"""Activation plateaus and sensitive directions: how far an activation can be moved before the network notices."""
