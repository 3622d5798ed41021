"""K/V in 8 bits: all that another precision takes."""

import torch


class Int8Buffer:
    """One scale for each token and head."""

    def __init__(self, size, dtype, device):
        self.parts = [
            tuple(torch.zeros(shape, dtype=kind, device=device) for shape, kind in ((size, torch.int8), (one, dtype)))
            for one in [(*size[:-1], 1)] * 2
        ]

    @property
    def nbytes(self):
        return sum(x.nbytes for part in self.parts for x in part)

    def write(self, layer, branches, tokens, keys, values):
        for (codes, scales), x in zip(self.parts, (keys, values), strict=True):
            scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-20)
            codes[layer, branches, tokens] = (x / scale).round().to(torch.int8)
            scales[layer, branches, tokens] = scale

    def read(self, layer, branches, tokens):
        return tuple(codes[layer, branches, tokens] * scales[layer, branches, tokens] for codes, scales in self.parts)

    def move(self, layer, branch, clean, keys, values):
        kept, end = len(keys), self.parts[0][0].shape[2]
        rest = self.read(layer, slice(branch, branch + 1), slice(clean, end))
        moved = [torch.cat([x[None], old], dim=1) for x, old in zip((keys, values), rest, strict=True)]
        self.write(layer, slice(branch, branch + 1), slice(0, kept + end - clean), *moved)
