"""What a person or a program sees of a run: its events, and who listens to them."""
