"""What can be measured, by name: `flowcache:0.3`, `paper:fast`, `magcache`, and `all`. No torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flowcache.errors import InputError, Problem

BUDGETS = ("0.6", "0.45", "0.3", "0.22")  # of `all`
AB2 = " AB2"  # end of a setting: by Adams-Bashforth in place of Euler


@dataclass(frozen=True)
class Entry:
    """A policy and its setting, "" for none."""

    policy: str
    setting: str = ""

    @property
    def label(self) -> str:
        return f"{self.policy}:{self.setting}" if self.setting else self.policy


@dataclass(frozen=True)
class Known:
    """How a policy is set. read: what is written after the colon, as it is kept; ValueError. default: "": needed."""

    accepted: str
    read: Callable[[str], str]
    default: str = ""

    @property
    def needed(self) -> bool:
        return not self.default


def _share(text: str) -> str:
    if not 0 < float(text) <= 1:
        raise ValueError
    return f"{float(text):g}"


def _threshold(text: str) -> str:
    if not 0 < float(text) <= 100:
        raise ValueError
    return f"{float(text):g}"


def _interval(text: str) -> str:
    if not 1 <= int(text) <= 1000:
        raise ValueError
    return str(int(text))


BUDGET = "a share of off's chunk forwards above 0, at most 1"
PRESET = "a preset of the checkpoint"
KNOWN: Mapping[str, Known] = {
    "flowcache": Known(BUDGET, _share),
    "fewer-steps": Known(BUDGET, _share),
    "fewer-steps-official": Known(BUDGET, _share),
    "teacache": Known(PRESET, str, "slow"),
    "magcache": Known("the threshold of the summed errors, above 0", _threshold, "0.12"),
    "taylorseer": Known("every how manieth step is computed, 1 to 1000", _interval, "5"),
    "paper": Known(PRESET, str, "slow"),
    "paper-mended": Known(PRESET, str, "slow"),
}
OFF, CONVERGED = Entry("off"), Entry("converged")
OWN = "flowcache"  # the policy that all others are compared with
ALL = (
    *(Entry(policy, budget) for policy in ("flowcache", "fewer-steps", "fewer-steps-official") for budget in BUDGETS),
    *(Entry(policy, KNOWN[policy].default) for policy in ("teacache", "magcache", "taylorseer")),
    Entry("paper", "slow"), Entry("paper", "fast"), Entry("paper-mended", "slow"),
)  # fmt: skip


def known() -> str:
    """What messages list."""
    forms = (f"{name}:{'B' if each.accepted == BUDGET else 'SETTING'}" if each.needed else name
             for name, each in KNOWN.items())  # fmt: skip
    return f"{', '.join(forms)} (B: {BUDGET}), the others also with a setting as in paper:fast, or all"


def entries(text: str) -> tuple[list[Entry], frozenset[Entry]]:
    """Those of a list with commas between them, and which of them are named one by one and not by `all`.

    To each budget of ours the same share of fewer steps is added, so that no run lacks what is free. InputError.
    """
    found, own = dict[Entry, None](), set[Entry]()
    for part in (part.strip() for part in text.split(",")):
        if part == "all":
            found |= dict.fromkeys(ALL)
        else:
            entry = _entry(part)
            own.add(entry)
            found[entry] = None
    found |= dict.fromkeys(Entry("fewer-steps", each.setting) for each in [*found] if each.policy == OWN)
    return _ordered(found), frozenset(own)


def _ordered(found: Iterable[Entry]) -> list[Entry]:
    """By policies as they are listed; else as given."""
    places = {name: place for place, name in enumerate(KNOWN)}
    return sorted(found, key=lambda entry: places[entry.policy])


def _entry(text: str) -> Entry:
    name, colon, setting = text.partition(":")
    if name not in KNOWN:
        raise InputError([Problem("--policies", "", f"got {text[:80]!r}; accepted: {known()}")])
    own = KNOWN[name]
    try:
        if (colon and not setting.strip()) or (not colon and own.needed):
            raise ValueError
        return Entry(name, own.read(setting.strip()) if colon else own.default)
    except ValueError:
        said = f"got {text[:80]!r}; accepted after {name + ':'!r}: {own.accepted}"
        raise InputError([Problem("--policies", "", said)]) from None
