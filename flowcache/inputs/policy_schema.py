"""What people write of a policy, as it is declared for all families (`families.policy_settings`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, create_model
from pydantic_core import PydanticCustomError

from flowcache.families.policy_settings import (
    ALSO,
    KV_SETTINGS,
    NAMES,
    PLAIN,
    SETTINGS,
    Choice,
    Number,
    Preset,
    Setting,
    Switch,
)
from flowcache.inputs.written import Written, real, shown, text, whole

POLICY_ACCEPTS = {
    "policy": "'off', 'dense', 'paper', 'flowcache' or 'teacache', these four also as 'paper:slow' or 'paper:fast', "
    "or an object with name and settings (docs/manifest.md)",
    "policy.name": Choice(NAMES).words,
    "policy.kv": "an object with keep ('all', 'recent', 'sink' or 'compressed') and what goes with it",
    **{f"policy.{key}": setting.words for key, setting in SETTINGS.items()},
    **{f"policy.{other}": SETTINGS[key].words for other, key in ALSO.items()},
    **{f"policy.kv.{key}": setting.words for key, setting in KV_SETTINGS.items()},
}


def expand_policy(value: Any) -> Any:
    """The short form "name:preset" as an object."""
    if not isinstance(value, str):
        return value
    name, colon, preset = value.partition(":")
    if name not in NAMES or (colon and (name in PLAIN or not preset)):
        raise PydanticCustomError("policy", "got {given}", {"given": shown(value)})
    return {"name": name, "preset": preset} if colon else {"name": name}


def _type(setting: Setting) -> Any:
    """What is accepted as a policy's setting, as a type."""
    match setting:
        case Number(whole=True):
            return Annotated[int, whole(int(setting.low), int(setting.high))]
        case Number(above=True):
            return Annotated[float, Field(gt=setting.low, le=setting.high, allow_inf_nan=False)]
        case Number():
            return Annotated[float, real(setting.low, setting.high)]
        case Choice():
            return Literal[setting.values]
        case Switch():
            return bool
        case Preset():
            return Annotated[str, text(100)]


def _optional(settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The fields of a model for these settings."""
    names = {key: AliasChoices(key, other) for other, key in ALSO.items()}
    return {key: (_type(setting) | None, Field(None, validation_alias=names.get(key)))
            for key, setting in settings.items()}  # fmt: skip


class _Kept(Written):
    keep: str  # as `_type` has it below


class _Named(Written):
    name: str  # as `_type` has it below


KV_FIELDS: dict[str, Any] = _optional(KV_SETTINGS) | {"keep": (_type(KV_SETTINGS["keep"]), ...)}


class KV(create_model("KV", __base__=_Kept, **KV_FIELDS)):
    """What is kept of a window's finished chunks; `row.policy` checks which settings go with which `keep`."""


POLICY_FIELDS: dict[str, Any] = {"name": (_type(Choice(NAMES)), ...)} | _optional(SETTINGS) | {"kv": (KV | None, None)}


class Policy(create_model("Policy", __base__=_Named, **POLICY_FIELDS)):
    """Which settings go with which name each family declares (`Family.policies`).

    `off` is the unaccelerated model, causal by chunks, `dense` the same with attention both ways, as official by
    default, and with the official TeaCache where a preset is named; `paper` is FlowCache as published, `flowcache` is
    ours, `teacache` the baseline that decides for the whole window at once.
    """
