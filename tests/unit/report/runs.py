"""A simulate run with everything that a report must show, and hostile text wherever a person can put some."""

from flowcache.errors import Problem
from flowcache.records import Shot
from flowcache.storage.commits import DeadLetter, dead_letter, mark_done, put_playlist
from flowcache.storage.objects.store import Store
from flowcache.storage.runs import begin_run, new_run
from flowcache.storage.tables import write_tables
from tests.unit.storage.samples import DIGESTS, Studio, plan, request

SCRIPT = "<script>document.title = 'hacked'; window.hacked = 1</script>"
PICTURE = '"><img src=x onerror="window.hacked=1">'
PROMPT = f"a cat {SCRIPT} {PICTURE} </p></style>{{{{ 7 * 7 }}}} ünï © \u202e bidi"
DEAD = "dead"  # ids of rows are plain


def hostile_run(store: Store) -> None:
    """Three videos: done, waiting, and dead after one segment of two; two rejected rows."""
    good = request("good", 3, shots=(Shot(PROMPT, 24),), labels={SCRIPT: PICTURE})
    requests = good, request("waiting", 1), request(DEAD, 2)
    problems = [
        Problem("night.jsonl", "prompt", f"got {SCRIPT!r}", 7, "seven"),
        Problem(f"{PICTURE}.csv", "fps", "must be positive", 8, None),
    ]
    run = begin_run(store, new_run(requests, DIGESTS, plan(requests), "0.1.0", problems))
    studio, markers = Studio(store, requests), []
    for segment in plan([good]):
        markers.append(studio.render(segment, markers[-1] if markers else None))
    put_playlist(store, good.id, markers, done=True)
    mark_done(store, good.id, markers)
    studio.render(plan(requests)[-2], None)
    dead_letter(store, DeadLetter(DEAD, 1, 0, f"NaN {SCRIPT}", "work", 3, f"line\n{PICTURE}", None))
    write_tables(store, run)
