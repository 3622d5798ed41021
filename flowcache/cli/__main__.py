"""python -m flowcache.cli"""

from flowcache.cli.main import main

main()
