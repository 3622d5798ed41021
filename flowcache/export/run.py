"""One export: all files side by side, then what makes them a dataset."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from flowcache.errors import StoreError
from flowcache.export.plan import Plan
from flowcache.export.target import File, Receipt, Target
from flowcache.storage.objects.store import Store

WORKERS = 4  # files at a time; each of them reads its chunks side by side


@dataclass
class Outcome:
    """written: all files of the export, those too that were there already (`found` of them)."""

    written: list[Receipt] = field(default_factory=list)
    found: int = 0
    faults: list[StoreError] = field(default_factory=list)


def export(
    plan: Plan, store: Store, told: Callable[[Receipt], None] = lambda one: None, overwrite: bool = False
) -> Outcome:
    """Write what `store` does not hold yet. told: of each file that was written. overwrite: also over files that no
    export wrote, and over a dataset of other videos; else InputError, before anything is written.

    A file that can't be made is a fault of its own, the others are written; the index only where there is none.
    """
    target, outcome = Target(store), Outcome()
    files = [*plan.files, *plan.index]
    if plan.whole:
        target.check_whole(files, overwrite)
    if not overwrite:
        target.check_foreign(files)
    target.begin(files)
    try:
        for part in (plan.files, plan.index):
            if not outcome.faults:
                _write(part, target, outcome, told)
    finally:
        target.tell()
    return outcome


def _write(files: Sequence[File], target: Target, outcome: Outcome, told: Callable[[Receipt], None]) -> None:
    before = {file.key: target.receipts.get(file.key) for file in files}
    with ThreadPoolExecutor(WORKERS) as pool:
        pending = [(file, pool.submit(target.write, file)) for file in files]
        try:
            for file, future in pending:
                try:
                    receipt = future.result()
                except StoreError as fault:
                    outcome.faults.append(fault)
                    continue
                outcome.written.append(receipt)
                if receipt is before[file.key]:
                    outcome.found += 1
                else:
                    told(receipt)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
