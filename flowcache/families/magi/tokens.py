"""What MAGI-1's captions may be marked with, by the names that rows give (`prompt_process.py`). No torch."""

ARRAY = "other_tokens"  # of special_tokens.npz
NEGATIVE_ARRAYS = ("caption_token", "logo_token")  # of one row each; they stand only in a negative prompt
# Rows of the learned tokens, in the order in which the official code puts them before a caption, each before the last.
MARKS = {"static": 2, "dynamic": 3, "borderness": 4, "hq": 1, "3d": 15, "2d": 16}
REMAINING = "duration"  # how many chunks remain, which comes first of all
NAMES = (*MARKS, REMAINING)
TRANSITION, BORDERNESS = 0, MARKS["borderness"]  # of the negative prompt, beside tokens of their own
OFFICIAL = "official"  # the one negative prompt that there is
