"""`tiny-skyreels`: what is SkyReels-V2's own in its training."""
