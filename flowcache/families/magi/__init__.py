"""MAGI-1 (arXiv 2505.13211): video in chunks of 6 latent frames, each denoised while the one before is still noisy."""
