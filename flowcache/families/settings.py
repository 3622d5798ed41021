"""What a model's family makes of its checkpoint, and of what a request says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowcache.cache.policy import Policy
from flowcache.families.base import Config
from flowcache.families.known import family
from flowcache.families.policies import resolve
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.plan import Settings


def settings_of(request: RenderRequest, spec: ModelSpec) -> Settings:
    """The sampler's: what the request says, and the model where it says nothing."""
    return family(spec.family).settings(request, spec.asked(vars(request)))


def resolve_policy(policy: Mapping[str, Any], spec: ModelSpec) -> Policy:
    """From a row's policy (docs/manifest.md). ValueError names what would be accepted."""
    return resolve(policy, spec, family(spec.family).policies)


def config_of(spec: ModelSpec) -> Config:
    """The transformer's shape. InputError where its config can't be read."""
    found = family(spec.family)
    return found.config(found.layout(Path(spec.path)))
