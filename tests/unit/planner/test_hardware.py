"""Sizes and speeds as people write them."""

import pytest

from flowcache.planner.hardware import LINKS, parse_link, parse_size


def test_sizes_and_speeds_as_people_write_them():
    assert parse_size("80GB") == 80e9 and parse_size("79.5 GiB") == 79.5 * 2**30 and parse_size("24gb") == 24e9
    assert parse_link("pcie4") is LINKS["pcie4"] and parse_link("300GB/s").speed == 300e9
    assert parse_link("100Gbit/s").speed == 12.5e9 and str(parse_link("300GB/s")).startswith("300 GB/s each way")


@pytest.mark.parametrize("text", ["", "80", "GB", "0GB", "80 parsecs", "-1GB", "1GB/s", "8Gbit"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="accepted: a size such as 80GB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "nvlink", "300", "300GB", "0GB/s", "3xB/s", "/s"])
def test_no_links(text):
    with pytest.raises(ValueError, match="accepted: nvlink4, .* such as 300GB/s"):
        parse_link(text)
