"""Video models: one folder per family, and the checkpoints that the package brings along."""
