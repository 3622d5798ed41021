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
        """`function` of every tile of x [C, T, H, W], joined."""
        return self.join([function(tile) for tile in self.cut(x)], x.shape)

    def cut(self, x: Tensor) -> list[Tensor]:
        """The tiles of x [C, T, H, W], ordered (frames, row, column)."""
        rows, columns = self._starts(x.shape)
        parts = x.split(self.frames, dim=1)
        return [part[:, :, r : r + self.rows, c : c + self.columns] for part in parts for r in rows for c in columns]

    def join(self, tiles: list[Tensor], shape: torch.Size) -> Tensor:
        """What became of the tiles of a tensor of that shape, all scaled by the same factors."""
        rows, columns = (len(starts) for starts in self._starts(shape))
        scale = tiles[0].shape[2] / min(self.rows, shape[2])
        bands = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
        grids = [bands[first : first + rows] for first in range(0, len(bands), rows)]
        return torch.cat([self._joined(grid, scale) for grid in grids], dim=1)

    def _starts(self, shape: torch.Size) -> list[range]:
        """First rows, and first columns, of the tiles."""
        sides = zip(shape[2:], (self.rows, self.columns), strict=True)
        return [self.starts(extent, side) for extent, side in sides]

    def starts(self, extent: int, side: int) -> range:
        """Where tiles of `side` begin in what is `extent` long."""
        return range(0, extent, int(side * (1 - self.overlap)))

    def _joined(self, grid: list[list[Tensor]], scale: float) -> Tensor:
        full = [int(side * scale) for side in (self.rows, self.columns)]  # of a whole tile that was run
        fades = [int(side * self.overlap) for side in full]
        joined = _faded(grid, fades, self.chained)
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
