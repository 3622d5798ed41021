"""The sampler's settings of a request, by its model's family."""

from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.magi import MagiSettings
from flowcache.sampling.skyreels import SamplerSettings


def settings_of(request: RenderRequest, spec: ModelSpec) -> SamplerSettings | MagiSettings:
    """What the request says, and the model where it says nothing."""
    family = {"skyreels": SamplerSettings, "magi": MagiSettings}[spec.family]
    return family.of(request, spec)
