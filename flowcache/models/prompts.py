"""Prompts as the official code cleans them before its text encoders; without transformers."""

import html
import re
from urllib.parse import unquote_plus

# What MAGI-1's `T5Embedder.clean_caption` replaces, in its order; the list itself is DeepFloyd IF's.
DOMAIN = r"[a-zA-Z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
KINDS = "png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4"
BEFORE_REPAIR = (
    (r"@\w+\b", ""),  # nicknames
    (r"[\u31c0-\u9fff]+", ""),  # Chinese characters and what stands beside them in Unicode
    (
        r"[\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32"
        r"\ufe58\ufe63\uff0d]+",
        "-",
    ),
    (r"[`´«»“”¨]", '"'),
    (r"[‘’]", "'"),
    (r"&quot;?", ""),
    (r"&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # addresses
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.(?:{KINDS})", ""),
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~()\[\]{}|\\/*]+", " "),
    (r"\s+\.\s+", " "),
)
JOINTS = re.compile(r"[-_]")
MANY_JOINTS = 4  # so many make a prompt a name such as this-is-my-cute-cat
AFTER_REPAIR = (
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # article numbers
    (r"\b[a-zA-Z]+\d+[a-zA-Z]+\b", ""),
    (r"\b\d+[a-zA-Z]+\d+\b", ""),
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b(?:{KINDS})(\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-zA-Z]+\d+[a-zA-Z]+\d+[a-zA-Z\d]*\b", " "),
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # sizes, also with the Cyrillic letter
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean_wan(prompt: str) -> str:
    """For UMT5 (Wan, SkyReels-V2): repaired, white space single."""
    return " ".join(repaired(prompt).split())


def clean_magi(prompt: str) -> str:
    """For T5 (MAGI-1): lower case, without addresses, tags, file names and the like; twice, as the official code."""
    return _clean_magi(_clean_magi(prompt))


def repaired(text: str) -> str:
    """Wrongly decoded letters and curly quotes by ftfy, HTML entities resolved (twice, as the official code)."""
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _clean_magi(prompt: str) -> str:
    text = unquote_plus(prompt).strip().lower().replace("<person>", "person")
    for scheme in ("https?", "www"):
        text = re.sub(rf"\b(?:{scheme}:(?:/{{1,3}}|[a-zA-Z0-9%])|{DOMAIN})", "", text)
    text = _replaced(_without_tags(text), BEFORE_REPAIR)
    if len(JOINTS.findall(text)) >= MANY_JOINTS:
        text = JOINTS.sub(" ", text)
    return _replaced(repaired(text), AFTER_REPAIR).strip()


def _replaced(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text


def _without_tags(text: str) -> str:
    """What stands between tags, by the official code's own library: what that takes for an entity, no other does.

    What it refuses to parse, such as `<![x[`, stays (the official code ends there).
    """
    import warnings

    from bs4 import BeautifulSoup, ParserRejectedMarkup

    with warnings.catch_warnings():  # that a prompt looks like the name of a file or a page is of no interest
        warnings.simplefilter("ignore")
        try:
            return BeautifulSoup(text, features="html.parser").text
        except ParserRejectedMarkup:
            return text
