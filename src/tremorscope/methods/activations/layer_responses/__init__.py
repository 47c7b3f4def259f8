"""Every layer of any network at once: how many directions its activations use, and how far they can be moved."""
