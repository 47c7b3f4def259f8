"""Setting one behaviour to a chosen level by editing one direction: affine concept editing and what it contains."""
