"""MAGI-1's video VAE: two transformers over patches of 4 x 8 x 8 pixels, that see a whole tile at once.

Parameter names are the published ones. Source: `inference/model/vae/vae_module.py` of the official repository.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowcache.families.magi.vae_config import ViTVAEConfig, vae_config
from flowcache.models.build import built
from flowcache.models.part import Part
from flowcache.models.tensors import in_folder


class Attention(nn.Module):
    """Everything sees everything; queries, keys and values alike are normalised over each head, without weights."""

    def __init__(self, config: ViTVAEConfig):
        super().__init__()
        self.heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        std, mean = torch.std_mean(qkv, dim=-1, correction=0, keepdim=True)
        q, k, v = ((qkv - mean) / (std + 1e-5)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Named like a ViT's, whose first norm lies inside the attention here."""

    def __init__(self, config: ViTVAEConfig):
        super().__init__()
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-5)
        self.mlp = Mlp(config.embed_dim, int(config.embed_dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(self.norm2(x))


class Trunk(nn.Module):
    """What encoder and decoder share: a class token, learned positions, blocks, a norm."""

    def __init__(self, config: ViTVAEConfig):
        super().__init__()
        self.grid = frames, rows, columns = config.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + frames * rows * columns, config.embed_dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-5)

    def trunk(self, patches: Tensor) -> Tensor:
        """[B, D, F, h, w] -> the same shape."""
        grid = patches.shape[2:]
        tokens = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self.positions(grid)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, grid)

    def positions(self, grid: torch.Size) -> Tensor:
        """[1, 1 + tokens, D]; for another grid than the learned one interpolated in time, height and width."""
        if tuple(grid) == self.grid:
            return self.pos_embed
        learned = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, self.grid)
        resized = F.interpolate(learned, size=tuple(grid), mode="trilinear", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)


class PatchEmbed(nn.Module):
    def __init__(self, config: ViTVAEConfig):
        super().__init__()
        self.proj = nn.Conv3d(config.in_chans, config.embed_dim, config.patch, stride=config.patch)


class Encoder(Trunk):
    def __init__(self, config: ViTVAEConfig):
        super().__init__(config)
        self.patch_embed = PatchEmbed(config)
        self.last_layer = nn.Linear(config.embed_dim, 2 * config.z_chans)

    def forward(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> mean and log variance [B, 2 z, T / 4, H / 8, W / 8]."""
        return self.last_layer(self.trunk(self.patch_embed.proj(video)).movedim(1, -1)).movedim(-1, 1)


class Decoder(Trunk):
    def __init__(self, config: ViTVAEConfig):
        super().__init__(config)
        self.patch = config.patch
        frames, rows, columns = config.patch
        self.proj_in = nn.Linear(config.z_chans, config.embed_dim)
        self.last_layer = nn.Conv3d(config.embed_dim // (frames * rows * columns), config.in_chans, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, z, F, h, w] -> [B, 3, 4 F, 8 h, 8 w]."""
        patches = self.trunk(self.proj_in(latents.movedim(1, -1)).movedim(-1, 1))
        blocks = patches.unflatten(1, (*self.patch, -1)).permute(0, 4, 5, 1, 6, 2, 7, 3)
        return self.last_layer(blocks.flatten(6, 7).flatten(4, 5).flatten(2, 3))


def latent_grid(vae: "ViTVAE") -> tuple[int, int, int]:
    """Channels, and what one of them stands for: frames, pixels a side."""
    return vae.config.z_chans, vae.config.patch_length, vae.config.patch_size


class ViTVAE(nn.Module):
    """`encoder` and `decoder` of one tile; `vae_codec.MagiCodec` cuts videos into tiles."""

    def __init__(self, config: ViTVAEConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def mean(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> the posterior's mean [B, z, T / 4, H / 8, W / 8], which is what encoding gives."""
        return self.encoder(video)[:, : self.config.z_chans]


def vae_part(folder: Path, config: dict) -> Part:
    """The VAE's module and files. config: of the folder's config.json; InputError names what can't be this VAE."""
    file = folder / "config.json"
    sizes = vae_config(config, file)
    return Part(folder, built(lambda: ViTVAE(sizes), file, vars(sizes)), in_folder(folder))
