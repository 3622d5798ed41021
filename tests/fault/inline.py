"""Operations of a run one after another, in the same order every time."""

from concurrent.futures import Future

from flowcache.errors import StoreError


class Crash(BaseException):
    """The process dies here: nothing in the code may catch it."""


class Inline:
    """A thread pool without threads: operations come in the same order every time."""

    def __init__(self, *_):
        pass

    def submit(self, call, *arguments):
        future = Future()
        try:
            future.set_result(call(*arguments))
        except (Crash, StoreError) as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_):
        pass
