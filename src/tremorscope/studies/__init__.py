"""Floor 3: one file per published experiment. A study composes methods, states claims, and computes nothing new."""
