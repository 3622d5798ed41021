"""SkyReels-V2 diffusion forcing (the Wan 2.1 transformer with a timestep per latent frame): 1.3B, 14B, 540P, 720P.

From a text, a picture, a video and to an end picture, in windows of one length that begin with the pixels before them.
One prompt for a window and a negative one; policies off, dense, paper, teacache and flowcache. The Wan VAE and UMT5 are
shared with others: `models.wan_vae`, `models.text`.
"""
