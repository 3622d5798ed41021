"""Every rank must have decided alike: a rank that skips a forward which the others compute would hang them all."""

import hashlib
from collections.abc import Sequence

import torch

from flowcache.errors import FlowcacheError
from flowcache.parallel.mesh import Mesh, exchanging


class Disagreement(FlowcacheError):
    """Ranks of one gang took different decisions: its results are worth nothing."""


def check_agreement(mesh: Mesh, chunk: int, decisions: Sequence[str], device: torch.device) -> None:
    """Compare the ranks' decisions on a chunk, as text, in eight bytes; Disagreement names two that differ."""
    digest = hashlib.sha256("/".join(decisions).encode()).digest()[:8]
    own = torch.tensor([int.from_bytes(digest, "big", signed=True)], device=device)
    with exchanging():  # on a GPU an exchange fails where its result is read
        every = mesh.all_gather(own, 0, [1] * mesh.size).tolist()
    other = next((rank for rank, value in enumerate(every) if value != every[0]), None)
    if other is not None:
        raise Disagreement(f"ranks 0 and {other} took different decisions on chunk {chunk} (rank {mesh.rank} noticed)")
