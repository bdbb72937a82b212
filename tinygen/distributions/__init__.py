"""Floor 2: densities."""
