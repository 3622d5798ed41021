"""Runs the command line and SIGKILLs itself before or after the driver's first write of a matching key.

python killed_driver.py before|after PATTERN render ...
"""

import os
import re
import signal
import sys

from flowcache.cli.main import main
from flowcache.storage.objects.store import Store


def deadly(operation, when, pattern):
    def wrapped(store, key, *args):
        hit = pattern.search(key)
        if hit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = operation(store, key, *args)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


if __name__ == "__main__":
    when, pattern = sys.argv[1], re.compile(sys.argv[2])
    del sys.argv[1:3]
    for name in ("put", "create"):
        setattr(Store, name, deadly(getattr(Store, name), when, pattern))
    main()
