"""What a rank runs on, as far as it can show in what it renders."""

import platform

import torch
from torch.nn.attention import SDPBackend

from flowcache.models.base import VideoModel


def hardware_of(model: VideoModel) -> dict[str, str]:
    """device: the GPU by name, or the CPU's kind; attention: torch's kernel for the model there; torch: its version."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    return {"device": name, "attention": attention_kernel(model), "torch": torch.__version__}


def attention_kernel(model: VideoModel) -> str:
    """Such as flash_attention, by torch's own choice for queries like the model's."""
    sample = torch.empty(1, 1, 64, model.head_dim, dtype=model.dtype, device=model.device)
    chosen = torch._fused_sdp_choice(sample, sample, sample)  # pyright: ignore[reportPrivateImportUsage]: no other way
    return SDPBackend(chosen).name.lower()
