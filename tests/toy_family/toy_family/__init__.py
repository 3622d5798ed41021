"""A family of models in a package of its own: the example of docs/families.md, which tests/e2e/test_toy_family.py runs.

One layer, one text for a window, no guidance, Euler steps, chunks one after the other; it goes on from clean latents.
"""
