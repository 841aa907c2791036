"""Numbers as people read them: SI prefixes for seconds, bytes, joules and hertz; plain numbers for tables."""

import math
import re
from collections.abc import Sequence
from itertools import takewhile

_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
MISSING = "–"
_OF_AGREEMENT = {
    r"The task's own quality measure": "Agreement with the unsplit network's own results",
    r"score of the unsplit network: [\d.]+": "agreement is with the unsplit network's own results: no labels",
    r", unsplit score [\d., ]+$": ", agreement with the unsplit network's own results, for there are no labels",
    r"Score \(0 to 1, higher is better\)": "Agreement with the unsplit network (0 to 1)",
    r"Score − unsplit": "Agreement − 1",
    r"^unsplit (?=\()": "full agreement ",
    r" \(unsplit [\d.]+\)|, unsplit [\d.]+$": " with the unsplit network",
    r", unsplit [\d.]+(?=\))": "",
    r"the unsplit score": "full agreement",
    r"the unsplit (?=\d)": "",
    r"\bAccuracy\b": "Agreement",
    r"\b([Aa]) score\b": r"\1n agreement",
    r"\bScore(s?)\b": r"Agreement\1",
    r"\bscore(s?)\b": r"agreement\1",
}  # in this order


def format_si(value: float, unit: str, *, smallest: int = -9, largest: int = 12, digits: int = 3) -> str:
    """Format ``value`` with an SI prefix, to ``digits`` significant digits.

    Args:
        value: the number, in ``unit``; NaN gives a dash.
        unit: what the number counts, e.g. ``"s"``.
        smallest: the smallest power of ten that has a prefix here (bytes have no milli).
        largest: the largest power of ten that has a prefix here (nobody says kiloseconds).
        digits: significant digits; never rounds away digits before the decimal point.

    >>> format_si(0.0123, "s"), format_si(999.96, "Hz"), format_si(float("nan"), "J")
    ('12.3 ms', '1 kHz', '–')
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return f"{'−' if value < 0 else ''}∞ {unit}"
    if value == 0:
        return f"0 {unit}"
    rounded = float(f"{value:.{digits - 1}e}")  # before the prefix is chosen, so that 999.96 becomes 1 k, not 1000
    power = min(max(3 * math.floor(math.log10(abs(rounded)) / 3 + 1e-12), smallest), largest)
    text = _significant(value / 10**power, digits)
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {_PREFIXES[power]}{unit}"


def _significant(value: float, digits: int) -> str:
    """``value`` to ``digits`` significant digits, without an exponent."""
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}")))), 0)
    return f"{value:,.{decimals}f}"


def format_seconds(value_s: float, digits: int = 3) -> str:
    """Format a duration.

    >>> [format_seconds(t) for t in (0, 3.2e-7, 0.0123, 4.5, 12345)]
    ['0 s', '320 ns', '12.3 ms', '4.5 s', '12,345 s']
    """
    return format_si(value_s, "s", largest=0, digits=digits)


def format_bytes(value_bytes: float, digits: int = 3) -> str:
    """Format a size; 1 kB is 1000 bytes.

    >>> [format_bytes(n) for n in (0.5, 17, 1536, 12_288, 3_145_728)]
    ['0.5 B', '17 B', '1.54 kB', '12.3 kB', '3.15 MB']
    """
    return format_si(value_bytes, "B", smallest=0, digits=digits)


def format_joules(value_j: float, digits: int = 3) -> str:
    """Format an energy.

    >>> format_joules(0.00213), format_joules(25)
    ('2.13 mJ', '25 J')
    """
    return format_si(value_j, "J", digits=digits)


def format_hz(value_hz: float, digits: int = 3) -> str:
    """Format a rate.

    >>> format_hz(41.23), format_hz(20_000), format_hz(0.05)
    ('41.2 Hz', '20 kHz', '0.05 Hz')
    """
    return format_si(value_hz, "Hz", smallest=0, digits=digits)


def format_ratio(value: float) -> str:
    """Format a ratio or a compression factor.

    >>> format_ratio(3), format_ratio(1234.6), format_ratio(0.0321)
    ('3.0×', '1,235×', '0.032×')
    """
    return MISSING if math.isnan(value) else "∞×" if math.isinf(value) else f"{_significant(value, 2)}×"


def format_number(value: float, digits: int = 3) -> str:
    """Format a number for a table column whose header names the unit.

    >>> [format_number(v) for v in (0, 0.0012345, 12, 98765.4, float("nan"))]
    ['0', '0.00123', '12.0', '98,765', '–']
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞"
    return _significant(value, digits)


def format_score(value: float) -> str:
    """Format a score to a hundredth of a point, with trailing zeros so that a column lines up.

    >>> format_score(0.71), format_score(float("nan"))
    ('0.7100', '–')
    """
    return MISSING if math.isnan(value) else f"{value:.4f}"


def worded(text: str, score_name: str) -> str:
    """A text about scores in the word for what was scored: ``score``, or ``agreement`` where there are no labels.

    Agreement is with the unsplit network's own results, so that a text does not name the unsplit network's, which is 1.

    Args:
        text: our own words and numbers; names that users gave do not belong here.
        score_name: as ``Task.score_name`` has it.

    >>> worded("score 0.967 (unsplit 1.000)", "agreement"), worded("a score is a score", "agreement")
    ('agreement 0.967 with the unsplit network', 'an agreement is an agreement')
    >>> worded("all scores", "score")
    'all scores'
    """
    if score_name == "score":
        return text
    for pattern, said in _OF_AGREEMENT.items():
        text = re.sub(pattern, said, text)
    return text


def format_delta(value: float) -> str:
    """Format a difference of scores, with its sign.

    >>> [format_delta(v) for v in (0.0012, -0.03, 0.0, float("nan"))]
    ['+0.0012', '−0.0300', '0.0000', '–']
    """
    if abs(value) < 5e-5:
        return "0.0000"
    return MISSING if math.isnan(value) else f"{value:+.4f}".replace("-", "−")


def setting_in_words(name: str, value: object) -> str:
    """A setting among others in a label: the option of a group by itself, any other value with its name.

    >>> [setting_in_words(*pair) for pair in (("codec", "quant8"), ("codec.bit_width", 4), ("trainer.max_epochs", 3.0))]
    ['quant8', '4 bit', 'max epochs 3']
    >>> setting_in_words("exit", "none")
    'no exit'
    """
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if name == "split.point" or not ("." in name.partition("@")[0] or name in ("seed", "sweep")):
        return f"no {name}" if value == "none" else text  # the option by which a group is left out
    if name.endswith("bit_width"):
        return f"{text} bit"
    if name.endswith("max_loss"):
        return f"loss ≤ {text}"
    return f"{name.rsplit('.', 1)[-1].replace('_', ' ')} {text}"


def apart(names: Sequence[str]) -> dict[str, str]:
    """For each path, what tells it from the others: without shared folders at its start, and shared words at its end.

    >>> apart(["2026-11-29/11-18-37-split-digits", "2026-11-29/11-25-04-split-digits"]).values()
    dict_values(['11-18-37', '11-25-04'])
    """
    paths = [name.split("/") for name in names]
    start = _num_alike(paths)
    words = ["/".join(path[start:]).split("-") for path in paths]
    end = _num_alike([one[::-1] for one in words])
    return {name: "-".join(one[: len(one) - end]) for name, one in zip(names, words, strict=True)}


def _num_alike(rows: Sequence[Sequence[str]]) -> int:
    """How many of their first parts all rows have alike; the last part of a row does not count."""
    columns = zip(*(row[:-1] for row in rows), strict=False)
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, columns))
