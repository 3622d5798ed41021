"""What a viewer sees."""

import av
import numpy as np


def decoded(file) -> list[tuple[float, np.ndarray]]:
    with av.open(file) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
