from flowcache.batch import driver
from flowcache.records import RenderRequest, Shot


def request(model, *prompts, guidance=6.0):
    shots = tuple(Shot(prompt, 9) for prompt in prompts)
    return RenderRequest("v", shots, 64, 64, 12, 1, guidance, 2, model, {"name": "off"}, negative_prompt="bad")


def test_every_distinct_text_once_in_the_order_of_the_requests():
    requests = [request("a", "one", "two"), request("b", "one", guidance=1.0), request("a", "two", "three")]
    assert driver.texts_of(requests) == {"a": ["bad", "one", "two", "three"], "b": ["one"]}


def test_no_more_than_can_be_encoded_in_good_time(monkeypatch):
    monkeypatch.setattr(driver, "TEXTS_AHEAD", 2)
    assert driver.texts_of([request("a", "one", "two")]) == {"a": ["bad", "one"]}
