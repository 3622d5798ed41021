"""Chromium without a window, where it is installed."""

import shutil
from pathlib import Path

import pytest
from selenium import webdriver

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARGUMENTS = (
    *("headless=new", "disable-gpu", "mute-audio", "disable-extensions", "no-first-run", "disable-dev-shm-usage"),
    "autoplay-policy=no-user-gesture-required",
    "no-sandbox",  # root has none
)
needed = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium or chromedriver here: apt-get install chromium chromium-driver"
)


def browser(profile: Path) -> webdriver.Chrome:
    """With a folder for its profile; what its console says is kept. To be left as a context."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS, f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
