"""The shape of `tiny-skyreels` and where its training begins."""

from torch import nn

from flowcache.families.skyreels.config import SkyReelsConfig
from flowcache.families.skyreels.transformer import SkyReelsTransformer
from training.codec import CHANNELS
from training.text import build_umt5

CHUNK = 3  # latent frames
TEXT_LEN = 16
FPS = 12
CONFIG = SkyReelsConfig(
    dim=128, ffn_dim=512, heads=4, layers=4, in_channels=CHANNELS, out_channels=CHANNELS, text_dim=96,
    text_len=TEXT_LEN, freq_dim=128, patch=(1, 1, 1), positions=(8, 8),
)  # fmt: skip
WEIGHTS = "diffusion_pytorch_model.safetensors"


class Tiny(nn.Module):
    """Transformer and text encoder, trained jointly."""

    def __init__(self, words: int):
        super().__init__()
        self.transformer = SkyReelsTransformer(CONFIG)
        self.text_encoder = build_umt5(words, CONFIG.text_dim)
        initialise(self.transformer)


def initialise(model: SkyReelsTransformer) -> None:
    """As the official code (xavier, zero head), and positions strong enough to be seen from the start."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        if name.startswith(("text_embedding.", "time_embedding.")) and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02 if name.startswith("time") else module.in_features**-0.5)
    nn.init.xavier_uniform_(model.patch_embedding.weight.flatten(1))
    nn.init.zeros_(model.patch_embedding.bias)
    nn.init.normal_(model.position_embedding, std=0.3)
    nn.init.zeros_(model.head.head.weight)
