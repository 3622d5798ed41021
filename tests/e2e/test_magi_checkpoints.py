"""A published MAGI-1 checkpoint, tiny, from the command line."""

from tests.e2e.rows import write
from tests.published_magi import write_magi


def test_looked_through_and_refused_when_damaged(flowcache, tmp_path):
    config = write_magi(tmp_path)
    done = flowcache("models", "check", str(config), "--json")
    assert done.code == 0 and done.json["family"] == "magi" and done.json["problems"] == []
    assert set(done.json["parts"]) == {"transformer", "vae", "text_encoder"} and done.json["steps_computed"] == {}
    need = done.json["bytes_per_rank"]
    assert need["1"]["keys_values"] == 2 * need["2"]["keys_values"] > 0
    assert "24, 48, 72 ... frames" in " ".join(flowcache("models", config).out.split())
    tokens = config.parents[1] / "assets" / "special_tokens.npz"
    tokens.write_bytes(b"?")
    done = flowcache("models", "check", str(config), "--json")
    assert done.code == 2 and [problem["file"] for problem in done.json["problems"]] == [str(tokens)]


def test_a_sound_one_renders(render, flowcache, tmp_path):
    config = write_magi(tmp_path / "magi")
    said = {"special_tokens": "static, hq", "prev_chunks_scale": 0.5}
    rows = [{"id": "v", "prompt": "a red circle", "frames": 48, "policy": "paper", **said}]
    planned = flowcache("plan", write(tmp_path / "rows.jsonl", rows), "--model", config, "--json")
    assert planned.code == 0, planned.err
    made = render(rows, "--model", config)
    assert made.code == 0 and made.json["rendered"] == 2, made.err
    verified = flowcache("verify", tmp_path / "out", "--json").json
    assert verified["sound"] and verified["counts"]["frames"] == 48
    changed = render([rows[0] | {"prev_chunks_scale": 0.6}], "--model", config)
    assert changed.code == 2 and "video v differs in prev_chunks_scale" in changed.out
    refused = render([rows[0] | {"negative_prompt": "official"}], "--model", config)
    assert refused.code == 2 and "whose special tokens lack logo_token; accepted: none" in refused.out


def test_a_damaged_one_starts_nothing(flowcache, tmp_path):
    config = write_magi(tmp_path / "magi")
    weights = tmp_path / "magi" / "downloads" / "tiny" / "inference_weight.distill"
    (weights / "model-00001-of-00002.safetensors").unlink()
    checked = flowcache("models", "check", config)
    assert checked.code == 2 and "00001-of-00002.safetensors: is missing" in checked.err
    manifest = write(tmp_path / "rows.jsonl", [{"prompt": "a red circle"}])
    made = flowcache("render", manifest, "--output", tmp_path / "out", "--model", config)
    assert made.code == 2 and "is damaged" in made.err and not (tmp_path / "out").exists()
    config.write_text(config.read_text().replace('"distill": true', '"distill": "yes"'))
    refused = flowcache("plan", manifest, "--model", config)
    assert refused.code == 2 and "engine_config.distill: got 'yes'; accepted: true or false" in refused.err
