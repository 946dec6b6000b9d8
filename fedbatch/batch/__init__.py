"""How large the global batch should be: noise scale, phase controllers and learning-rate rules."""
