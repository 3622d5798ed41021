"""Frame rates as people write them: 24, 23.976, 30000/1001."""

import math
import re
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

from flowcache.records import Rate, plain_rate

LOWEST, HIGHEST = 1, 120
FINEST = 1001  # the largest denominator
NEAR = Fraction(1, 10**9)  # what a float may be beside the fraction that it stands for
ACCEPTED = "a whole number from 1 to 120, or a fraction in that range such as 23.976 or 24000/1001"
DECIMAL = re.compile(r"\s*(\d{1,9}(?:\.\d{1,20})?)\s*", re.ASCII)
WRITTEN = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", re.ASCII)


def rate(written: Any) -> Rate:
    """A number or fraction, or one as text. Decimals that round a rate of television mean it: 29.97 is 30000/1001.

    ValueError where it is none, out of range, or finer than 1/1,001.
    """
    found = plain_rate(_exact(written))
    if not LOWEST <= found <= HIGHEST or (isinstance(found, Fraction) and found.denominator > FINEST):
        raise ValueError(ACCEPTED)
    return found


def _exact(written: Any) -> Rate:
    if isinstance(written, str) and (parts := WRITTEN.fullmatch(written)) and int(parts[2]):
        return Fraction(int(parts[1]), int(parts[2]))
    if isinstance(written, str) and (parts := DECIMAL.fullmatch(written)):
        return _of_decimals(Decimal(parts[1]))
    if isinstance(written, bool) or not isinstance(written, int | float | Fraction | Decimal):
        raise ValueError(ACCEPTED)
    if isinstance(written, float | Decimal):
        return _of_decimals(written)
    return written


def _of_decimals(written: float | Decimal) -> Fraction:
    # The lower bound, too, before anything is computed: a decimal of few characters may have millions of digits.
    if not (written.is_finite() if isinstance(written, Decimal) else math.isfinite(written)):
        raise ValueError(ACCEPTED)
    if not LOWEST <= written <= HIGHEST:
        raise ValueError(ACCEPTED)
    decimals = Decimal(_shortest(written) if isinstance(written, float) else written)
    exact, digits = Fraction(decimals), -int(decimals.as_tuple().exponent)
    television = Fraction(round(exact * 1001 / 1000) * 1000, 1001)
    if digits >= 2 and round(television, digits) == exact:
        return television
    near = exact.limit_denominator(FINEST)
    return near if abs(near - exact) < NEAR else exact


def _shortest(number: float) -> str:
    """The fewest digits that mean it. A table's column may be of 32 bits, where 23.975999832... is 23.976."""
    if _single(number) != number:
        return str(number)
    texts = (f"{number:.{digits}g}" for digits in range(1, 10))
    return next(text for text in texts if _single(float(text)) == number)


def _single(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]
