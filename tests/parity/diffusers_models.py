"""Models of diffusers with our weights."""

import torch
from diffusers import SkyReelsV2Transformer3DModel

from flowcache.families.skyreels.transformer import SkyReelsTransformer
from flowcache.families.skyreels.weights import to_diffusers


def both(config):
    """Ours with random weights, and diffusers' with the same."""
    ours = SkyReelsTransformer(config)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.normal_(1.0 if name.endswith(("norm_q.weight", "norm_k.weight", "norm3.weight")) else 0.0, 0.15)
    theirs = SkyReelsV2Transformer3DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.layers,
        eps=config.eps,
        inject_sample_info=config.inject_sample_info,
    )
    theirs.load_state_dict(to_diffusers(ours.state_dict()))
    return ours.eval(), theirs.eval()
