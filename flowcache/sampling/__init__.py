"""When each chunk takes which step, the solver, guidance, and the denoise loop."""
