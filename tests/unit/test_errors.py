"""What every message about an input keeps to, whatever the input holds."""

from hypothesis import given
from hypothesis import strategies as st

from flowcache.errors import MESSAGE, Problem


@given(value=st.text(max_size=20) | st.integers(0, 30_000).map("x".__mul__), accepted=st.text(max_size=100))
def test_a_message_is_short_and_says_what_is_accepted_whatever_was_given(value, accepted):
    message = f"got {value!r}; accepted: {accepted}"
    said = Problem("model/flowcache.json", "family" * 200, message)
    assert len(str(Problem("a", "b", "x" * 10**6))) < 2000 and len(said.message) < MESSAGE + 50
    assert said.message.startswith("got '") and (len(message) > MESSAGE or said.message == message)
    assert said.message[-50:] == message[-50:]
