"""python -m flowcache.cli, and the entry point of the command `flowcache`."""

import sys


def main() -> None:
    """Ctrl-C ends without a traceback while all the rest is imported, too."""
    try:
        from flowcache.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
