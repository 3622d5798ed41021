"""SkyReels-V2 diffusion forcing (the Wan 2.1 transformer with a timestep per latent frame)."""
