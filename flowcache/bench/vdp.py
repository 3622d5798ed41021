"""How alike two videos look to a person: ColorVideoVDP (Mantiuk et al., ACM TOG 43, 2024), in JOD.

10: no difference is seen; one less: three of four viewers see which of the two is the worse one. It comes with
`pip install 'flowcache[bench]'`, and a torchvision of the same build as torch.
"""

from collections.abc import Callable

import numpy as np
import torch

DISPLAY = "standard_fhd"
Metric = Callable[[np.ndarray, np.ndarray, int], float]  # of two videos, uint8 [T, H, W, 3], and fps


def color_video_vdp() -> Metric | str:
    """Or why there is none."""
    try:
        import pycvvdp  # pyright: ignore[reportMissingImports]  (an extra)
    except (ImportError, RuntimeError) as fault:  # RuntimeError: torchvision of another build than torch
        return f"no ColorVideoVDP ({str(fault).splitlines()[0]}); pip install 'flowcache[bench]'"
    metric = pycvvdp.cvvdp(display_name=DISPLAY, device=torch.device("cpu"), quiet=True)

    def jod(video: np.ndarray, other: np.ndarray, fps: int) -> float:
        return float(metric.predict(video, other, dim_order="FHWC", frames_per_second=fps)[0])

    return jod
