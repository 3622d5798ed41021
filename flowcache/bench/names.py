"""What can be measured, by name: `flowcache:0.3`, `paper:fast`, `kv-recent:8`, and `all` and `kv`. No torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flowcache.cache.fixed_steps import Solver
from flowcache.errors import InputError, Problem

BUDGETS = ("0.6", "0.45", "0.3", "0.22")  # of `all`
KV_BUDGETS = ("2", "4", "8")  # of `kv`: chunks
AB2 = " AB2"  # end of a setting: by Adams-Bashforth in place of Euler
START = " official start"  # end of a setting: with the fault that `off` begins with
ENDS: Mapping[Solver, str] = {"own": "", "adams-bashforth": AB2, "official-start": START}


@dataclass(frozen=True)
class Entry:
    """A policy and its setting, "" for none."""

    policy: str
    setting: str = ""

    @property
    def label(self) -> str:
        return f"{self.policy}:{self.setting}" if self.setting else self.policy

    @property
    def keeps(self) -> bool:
        """Whether it says which K/V are kept, where the others say which steps are computed."""
        return self.policy.startswith("kv-")

    @property
    def reference(self) -> "Entry":
        """What it is compared with, and its costs are shares of."""
        return KV_ALL if self.keeps else OFF


@dataclass(frozen=True)
class Known:
    """How a policy is set. read: what is written after the colon, as it is kept; ValueError. default: "": needed.

    short: what stands for a setting in messages.
    """

    accepted: str
    read: Callable[[str], str]
    default: str = ""
    short: str = "SETTING"

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


def _count(text: str) -> str:
    if not 1 <= int(text) <= 1000:
        raise ValueError
    return str(int(text))


def _first_and_latest(text: str) -> str:
    first, plus, latest = text.partition("+")
    return f"{_count(first)}+{_count(latest)}" if plus else f"1+{_count(str(int(text) - 1))}"


BUDGET = "a share of off's chunk forwards above 0, at most 1"
PRESET = "a preset of the checkpoint"
CHUNKS = "how many finished chunks are kept, 1 to 1000"
KNOWN: Mapping[str, Known] = {
    "flowcache": Known(BUDGET, _share, short="B"),
    "fewer-steps": Known(BUDGET, _share, short="B"),
    "fewer-steps-official": Known(BUDGET, _share, short="B"),
    "teacache": Known(PRESET, str, "slow"),
    "magcache": Known("the threshold of the summed errors, above 0, at most 100", _threshold, "0.12"),
    "taylorseer": Known("every how manieth step is computed, 1 to 1000", _count, "5"),
    "paper": Known(PRESET, str, "slow"),
    "paper-mended": Known(PRESET, str, "slow"),
    "kv-recent": Known(CHUNKS, _count, short="N"),
    "kv-sink": Known("2 to 1001 chunks, the first and the latest; or as in 2+6 how many of each, 1 to 1000",
                     _first_and_latest, short="N"),
    "kv-compressed": Known(CHUNKS, _count, short="N"),
}  # fmt: skip
OFF, CONVERGED, KV_ALL = Entry("off"), Entry("converged"), Entry("kv-all")
OWN = "flowcache"  # the policy that all others are compared with
ALL = (
    *(Entry(policy, budget) for policy in ("flowcache", "fewer-steps", "fewer-steps-official") for budget in BUDGETS),
    *(Entry(policy, KNOWN[policy].default) for policy in ("teacache", "magcache", "taylorseer")),
    Entry("paper", "slow"), Entry("paper", "fast"), Entry("paper-mended", "slow"),
)  # fmt: skip
KV = tuple(
    Entry(policy, KNOWN[policy].read(chunks))
    for policy in ("kv-recent", "kv-sink", "kv-compressed")
    for chunks in KV_BUDGETS
)
GROUPS: Mapping[str, Sequence[Entry]] = {"all": ALL, "kv": KV}


def known() -> str:
    """What messages list."""
    forms = (f"{name}:{each.short}" if each.needed else name for name, each in KNOWN.items())
    meant = f"B: {BUDGET}; N: {CHUNKS}"
    return f"{', '.join(forms)} ({meant}), the others also with a setting as in paper:fast, or all, or kv"


def entries(text: str) -> tuple[list[Entry], frozenset[Entry]]:
    """Those of a list with commas between them, and which of them are named one by one and not by `all` or `kv`.

    What is free is added to each that it stands against. InputError.
    """
    found, own = dict[Entry, None](), set[Entry]()
    for part in (part.strip() for part in text.split(",")):
        if part in GROUPS:
            found |= dict.fromkeys(GROUPS[part])
        else:
            entry = _entry(part)
            own.add(entry)
            found[entry] = None
    found |= dict.fromkeys(free for entry in [*found] if (free := _free(entry)))
    return _ordered(found), frozenset(own)


def _free(entry: Entry) -> Entry | None:
    """To a budget of ours the same share of fewer steps, to chosen K/V as many of the latest ones."""
    if entry.policy == OWN:
        return Entry("fewer-steps", entry.setting)
    if entry.keeps:
        return Entry("kv-recent", str(sum(map(int, entry.setting.split("+")))))
    return None


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
