"""Spatial tiles that overlap and fade into each other, and the runs of frames between them, which do not. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiling:
    """Tiles of (frames, rows, columns), each repeating the part `overlap` of the rows and columns before.

    chained: tiles fade from neighbours that were faded themselves, as the official encoder does; else from neighbours
    as they were run, as its decoder does. It shows only where four tiles meet.
    Source: `TileProcessor` of the official repository, whose temporal tiles do not overlap in any published setting.
    """

    frames: int
    rows: int
    columns: int
    overlap: float = 0.25
    chained: bool = False

    def run(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`function` of every tile of x [C, T, H, W], joined; it scales all tiles by the same factors."""
        return torch.cat([self._frames(function, part) for part in x.split(self.frames, dim=1)], dim=1)

    def _frames(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        rows, columns = (
            range(0, extent, int(side * (1 - self.overlap)))
            for extent, side in zip(x.shape[2:], (self.rows, self.columns), strict=True)
        )
        done = [[function(x[:, :, r : r + self.rows, c : c + self.columns]) for c in columns] for r in rows]
        scale = done[0][0].shape[2] / min(self.rows, x.shape[2])
        full = [int(side * scale) for side in (self.rows, self.columns)]  # of a whole tile that was run
        fades = [int(side * self.overlap) for side in full]
        joined = _faded(done, fades, self.chained)
        kept = [[piece[:, :, : full[0] - fades[0], : full[1] - fades[1]] for piece in band] for band in joined]
        return torch.cat([torch.cat(band, dim=3) for band in kept], dim=2)


def _faded(tiles: list[list[Tensor]], fades: list[int], chained: bool) -> list[list[Tensor]]:
    """Each tile with its first rows and columns going over from the tile above, then from the one to the left."""
    result = [list(band) for band in tiles]
    before = result if chained else tiles
    for i, band in enumerate(tiles):
        for j in range(len(band)):
            if i:
                result[i][j] = fade(before[i - 1][j], result[i][j], fades[0], dim=2)
            if j:
                result[i][j] = fade(before[i][j - 1], result[i][j], fades[1], dim=3)
    return result


def fade(before: Tensor, tile: Tensor, extent: int, dim: int) -> Tensor:
    """`tile` with its first `extent` rows or columns going over from the last ones of `before`, as far as both have."""
    extent = min(before.shape[dim], tile.shape[dim], extent)
    shape = [1] * tile.ndim
    shape[dim] = extent
    weight = (torch.arange(extent, device=tile.device) / max(extent, 1)).to(tile.dtype).view(shape)
    last = before.narrow(dim, before.shape[dim] - extent, extent)
    seam = torch.lerp(last, tile.narrow(dim, 0, extent), weight)
    return torch.cat([seam, tile.narrow(dim, extent, tile.shape[dim] - extent)], dim=dim)
