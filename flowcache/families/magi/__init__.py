"""MAGI-1 (arXiv 2505.13211): video in chunks of 6 latent frames, each denoised while the one before is still noisy.

4.5B and 24B, base and distilled; from a text, a picture, a video and to an end picture, of any length, in segments that
go on from clean latents or in one. Each chunk has a prompt of its own, and the one negative prompt is learned tokens;
policies off, paper and flowcache. Its VAE and captions are its own; T5 is that of `models.text`.
"""
