"""What a model's family makes of its checkpoint, and of what a request says."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowcache.cache.policy import Policy
from flowcache.errors import Problem
from flowcache.families.base import Config
from flowcache.families.known import family
from flowcache.families.policies import resolve
from flowcache.records import ModelSpec, RenderRequest
from flowcache.sampling.plan import Settings
from flowcache.sampling.planning import plan_for


def settings_of(request: RenderRequest, spec: ModelSpec) -> Settings:
    """The sampler's: what the request says, and the model where it says nothing."""
    return family(spec.family).settings(request, spec.asked(vars(request)))


def resolve_policy(policy: Mapping[str, Any], spec: ModelSpec) -> Policy:
    """From a row's policy (docs/manifest.md). ValueError names what would be accepted."""
    return resolve(policy, spec, family(spec.family).policies)


def policy_faults(requests: Iterable[RenderRequest], specs: Mapping[str, ModelSpec], file: str) -> list[Problem]:
    """What is found only where a policy is made: a checkpoint's faulty presets, parts that don't go together. Once for
    all requests with the same policy."""
    kinds = {(request.model, json.dumps(request.policy, sort_keys=True)): request for request in reversed([*requests])}
    found = ((request, _fault(request, specs[request.model])) for request in kinds.values())
    return [Problem(file, "policy", fault, video=request.id) for request, fault in found if fault]


def _fault(request: RenderRequest, spec: ModelSpec) -> str:
    try:
        policy = resolve_policy(request.policy, spec)
        hash(policy)  # plans count those that are alike once
        plan_for(
            settings_of(request, spec), 2 * spec.asked(vars(request)).chunk, policy
        )  # the first one, and later ones
    except ValueError as error:
        return str(error)
    except (TypeError, AttributeError, LookupError, ImportError) as error:  # of a package
        return f"policy {request.policy['name']!r} can't be made as family {spec.family} declares it: {error!r}"
    return ""


def config_of(spec: ModelSpec) -> Config:
    """The transformer's shape. InputError where its config can't be read."""
    found = family(spec.family)
    return found.config(found.layout(Path(spec.path)))
