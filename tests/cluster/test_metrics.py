"""What Prometheus finds at Ray's endpoint while a job runs."""


def total(metrics: dict, name: str, **labels: str) -> float:
    samples = metrics[f"ray_flowcache_{name}"]
    return sum(value for found, value in samples.items() if labels.items() <= dict(found).items())


def test_a_run_shows_what_it_makes(finished):
    metrics = finished.metrics
    assert total(metrics, "chunks_total", policy="paper", model="tiny-skyreels", gang="gang-1") == 4
    assert total(metrics, "frames_total") == 42
    computed, reused = (total(metrics, "steps_total", decision=decision) for decision in ("computed", "reused"))
    assert computed > 0 and reused > 0
    for stage in ("denoise", "decode", "encode", "upload"):
        assert total(metrics, "stage_seconds_total", stage=stage) > 0
    assert total(metrics, "committed_segments_total") == 2
    assert total(metrics, "segments", state="waiting") == 0
    assert total(metrics, "videos") == 2  # in whatever state: the driver may end before Ray exports the last change
