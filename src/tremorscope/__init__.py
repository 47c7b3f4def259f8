"""tremorscope."""
