"""`tiny-magi`: what is MAGI-1's own in its training."""
