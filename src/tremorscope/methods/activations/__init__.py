"""Disturbances of activations: what a network does when one vector inside it is another."""
