"""A case of a golden file, of which nothing may be left unread: what a test does not know would be ignored."""

from typing import Any


class Given:
    """A JSON object, of which everything must be asked for: `with Given(...) as given`."""

    def __init__(self, what: str, values: dict[str, Any]):
        self.what, self.values, self.taken = what, values, set()

    def __enter__(self) -> "Given":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        left = sorted(self.values.keys() - self.taken)
        if left and kind is None:
            raise ValueError(f"{self.what} says {', '.join(left)}, which the test does not know")

    def __getitem__(self, key: str) -> Any:
        self.taken.add(key)
        return self.values[key]

    def get(self, key: str, otherwise: Any = None) -> Any:
        return self[key] if key in self.values else otherwise

    def skip(self, *keys: str) -> None:
        """Known, and said in another way, too."""
        self.taken.update(keys)
