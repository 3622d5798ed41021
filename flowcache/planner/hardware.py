"""What machines are taken for where nobody has measured them: their GPUs and what joins these (docs/gangs.md)."""

import re
from dataclasses import dataclass

from flowcache.families.memory import GIB

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": GIB, "TIB": 2**40}
BITS = {"MBIT": 1e6 / 8, "GBIT": 1e9 / 8}
TFLOPS, EFFICIENCY = 989.0, 0.4  # of an H100 SXM in dense bf16 (NVIDIA's data sheet), and what is reached of it


@dataclass(frozen=True)
class Link:
    """speed: bytes a second that a rank sends while it receives as many. latency: seconds that a collective takes."""

    speed: float
    latency: float = 20e-6
    name: str = ""

    def seconds(self, sent: float, collectives: float) -> float:
        return sent / self.speed + collectives * self.latency

    def __str__(self) -> str:
        named = f"{self.name}, " if self.name else ""
        return f"{named}{self.speed / 1e9:g} GB/s each way, {self.latency * 1e6:g} us a collective"


# What NCCL gets through them, 60 to 85 % of the line rate of one direction.
LINKS = {
    link.name: link
    for link in (
        Link(370e9, 20e-6, "nvlink4"),  # H100, H200: 450 GB/s
        Link(240e9, 20e-6, "nvlink3"),  # A100: 300 GB/s
        Link(40e9, 20e-6, "pcie5"),  # 16 lanes: 63 GB/s
        Link(20e9, 20e-6, "pcie4"),  # 16 lanes: 31.5 GB/s
        Link(10e9, 50e-6, "ethernet"),  # 100 Gbit/s: 12.5 GB/s
    )
}
LINK_ACCEPTS = f"{', '.join(LINKS)}, or what a GPU sends in a second, such as 300GB/s or 100Gbit/s"


@dataclass(frozen=True)
class Node:
    """gpus: of one node, on which a whole gang has to lie; memory: bytes of each; link: between them."""

    gpus: int = 8
    memory: float = 80e9
    link: Link = LINKS["nvlink4"]


def parse_size(text: str) -> float:
    """Bytes, of 80GB or 79.6 GiB. ValueError."""
    return _parsed(text, UNITS, "a size such as 80GB or 24GiB")


def parse_link(text: str) -> Link:
    """One of LINKS by name, or of a speed. ValueError."""
    if text in LINKS:
        return LINKS[text]
    if not text.endswith("/s"):
        raise ValueError(f"got {text!r}; accepted: {LINK_ACCEPTS}")
    return Link(_parsed(text[:-2], UNITS | BITS, LINK_ACCEPTS))


def _parsed(text: str, units: dict[str, float], accepted: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-zA-Z]+)", text)
    if not found or found[2].upper() not in units or not float(found[1]):
        raise ValueError(f"got {text!r}; accepted: {accepted}")
    return float(found[1]) * units[found[2].upper()]
