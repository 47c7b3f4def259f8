"""Activations: where they are, what is done to them, and what moves then."""
