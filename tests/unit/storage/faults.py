"""Stores that fail on command."""

import os

from flowcache.storage import layout
from flowcache.storage.objects.store import Store


class Crash(BaseException):
    """The process dies here: nothing in the code may catch it."""


class FaultyStore(Store):
    """The store, until its `point`-th write (from 0): then `error` comes, before or after the write took effect."""

    def __init__(self, store: Store, point: int, after: bool, error: BaseException | None = None, watch=None):
        super().__init__(store.url)
        self.options, self._backend, self._process = store.options, store.backend, os.getpid()
        self._left, self._after, self._error = point, after, error or Crash()
        self._watch = watch or (lambda: None)

    def _write(self, operation):
        self._left -= 1
        if self._left == -1 and not self._after:
            raise self._error
        result = operation()
        self._watch()
        if self._left == -1:
            raise self._error
        return result

    def put(self, key: str, data: bytes) -> None:
        self._write(lambda: Store.put(self, key, data))

    def create(self, key: str, data: bytes) -> bool:
        return self._write(lambda: Store.create(self, key, data))

    def delete(self, key: str) -> None:
        self._write(lambda: Store.delete(self, key))

    @property
    def writes(self) -> int:
        """How many writes were begun, for a store whose point was never reached."""
        return -self._left


class Uncommitted(Store):
    """A store that keeps the marker from being written, so that attempts can be committed later."""

    def __init__(self, store: Store):
        super().__init__(store.url)
        self._backend, self._process = store.backend, os.getpid()

    def create(self, key: str, data: bytes) -> bool:
        return True if key.startswith(layout.COMMITS) else super().create(key, data)
