"""A published MAGI-1 checkpoint, tiny, from the command line."""

from tests.published_magi import write_magi


def test_looked_through_and_refused_when_damaged(flowcache, tmp_path):
    config = write_magi(tmp_path)
    done = flowcache("models", "check", str(config), "--json")
    assert done.code == 0 and done.json["family"] == "magi" and done.json["problems"] == []
    assert set(done.json["parts"]) == {"transformer", "vae", "text_encoder"}
    tokens = config.parents[1] / "assets" / "special_tokens.npz"
    tokens.write_bytes(b"?")
    done = flowcache("models", "check", str(config), "--json")
    assert done.code == 2 and [problem["file"] for problem in done.json["problems"]] == [str(tokens)]
