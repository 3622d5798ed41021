"""What a golden file says and the tests do not know is an error."""

import pytest

from tests.parity.skyreels_runs import OFFICIAL, policy_of, sampler_of

SETTINGS = {
    "N": 10, "ar_step": 2, "causal_block_size": 5, "guidance": 6.0, "shift": 8.0, "height": 32, "width": 48,
    "num_frames": 177, "base_num_frames": 97, "overlap_history": 17, "addnoise_condition": 20, "fps": 24,
    "inject_sample_info": True, "num_heads": 4, "vae_scale": 64.0,
}  # fmt: skip
TEA = {"teacache_thresh": 0.3, "use_ret_steps": True, "ckpt_dir": "1.3B"}
RUN = {"name": "run", "kind": OFFICIAL, "causal_attention": False, "tea": TEA, "args": None}


def test_what_is_known_is_read():
    assert policy_of(RUN, SETTINGS).whole
    _, windows = sampler_of(SETTINGS)
    assert windows == [((25, 4, 6), 0), ((25, 4, 6), 5)]


@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (RUN | {"cfg_zero": True}, SETTINGS),
        (RUN | {"kind": "another program"}, SETTINGS),
        (RUN | {"tea": TEA | {"momentum": 0.5}}, SETTINGS),
        (RUN | {"tea": TEA | {"ckpt_dir": "14B-I2V-540P"}}, SETTINGS),
        (RUN | {"tea": TEA | {"even": [1.0], "odd": [2.0]}}, SETTINGS),
        (RUN | {"args": {"use_kvrange": True}}, SETTINGS),
        (RUN, SETTINGS | {"eta": 0.5}),
    ],
)
def test_what_is_not_known_is_an_error(run, settings):
    with pytest.raises(ValueError, match="run|settings"):
        policy_of(run, settings)
        sampler_of(settings)
