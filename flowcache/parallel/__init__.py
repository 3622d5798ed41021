"""One model over several ranks, applied from outside the model."""
