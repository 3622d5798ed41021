"""Cleaning of prompts; MAGI-1's against recorded results is in tests/parity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcache.models.prompts import clean_magi, clean_wan


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        (" a &amp;lt;b&gt;\n\tc &quot;d&quot; ", 'a <b> c "d"'),
        ("“A cat” — it’s here…", '"A cat" — it\'s here…'),  # curly quotes straight, nothing else
        ("schÃ¶n", "schön"),  # UTF-8 that was read as Latin-1
        ("ﬁne ＡＢＣ", "fine ABC"),
        ("A Red Circle, https://example.com", "A Red Circle, https://example.com"),
        ("", ""),
    ],
)
def test_for_umt5(prompt, cleaned):
    assert clean_wan(prompt) == cleaned


@pytest.mark.parametrize(
    ("prompt", "cleaned"),
    [
        ("A <script>var x = 1;</script>dog<!-- runs --> <i>runs</i>", "a dog runs"),
        ("see www.example.org/path now", "see now"),
        ("free download of photo.png, page 3", "of"),
        ("a-b-c and d", "a-b-c and d"),  # fewer than four joints
        ("chocolate M&M", "chocolate mm"),  # an entity to the official parser, which it does not know
        ("cold&nbspwater", "cold nbspwater"),
        ("<ruby>kan<rt>ji</rt></ruby>", "kan"),
        ("a <![red[ circle", "a <! red circle"),  # refused by that parser: the official code ends here
    ],
)
def test_for_t5(prompt, cleaned):
    assert clean_magi(prompt) == cleaned


@given(st.text(max_size=40))
def test_any_text_is_cleaned_to_single_spaces(prompt):
    for clean in (clean_wan, clean_magi):
        cleaned = clean(prompt)
        assert cleaned == " ".join(cleaned.split())
