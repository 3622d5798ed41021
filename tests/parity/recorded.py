"""What a run chose to keep."""

from dataclasses import dataclass, field

from flowcache.cache.kv_select import Compression


@dataclass(frozen=True)
class Recorded(Compression):
    """Compression that also notes what it kept."""

    kept: list = field(default_factory=list)

    def select(self, queries, keys, budget):
        self.kept.append(super().select(queries, keys, budget))
        return self.kept[-1]
