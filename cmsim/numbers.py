"""Numbers as people read them: three digits, a prefix, a unit."""

from __future__ import annotations

from collections.abc import Sequence

#: what a suffix of a name stands for
UNITS = {
    "TFLOPps": "TFLOP/s",
    "FLOPps": "FLOP/s",
    "GBps": "GB/s",
    "Bps": "B/s",
    "USD": "USD",
    "kW": "kW",
    "W": "W",
    "J": "J",
    "ps": "ps",
    "s": "s",
    "B": "B",
    "g": "g",
}
#: what a prefix multiplies by, for units of the base
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
#: the same of the second, which takes none above 1: nobody reads kiloseconds
_OF_SECONDS = PREFIXES[4:]
_SHARES = ("mfu", "hfu", "slo_attainment", "utilization")


def quantity(name: str, value: float | str) -> str:
    """A metric's value with its unit, which its name says.

    >>> quantity("tpot_s", 0.04607), quantity("energy_per_token_J", 0.3134), quantity("tokens_per_s", 2083.6)
    ('46.1 ms', '0.313 J', '2,084')
    >>> quantity("power_avg_W", 450660.0), quantity("mfu", 0.2827), quantity("busbw_GBps", 345.2)
    ('451 kW', '28.3 %', '345 GB/s')
    """
    if isinstance(value, str):
        return value
    if name in _SHARES or name.endswith("_fraction"):
        return f"{digits(100 * value)} %"
    unit = unit_of(name)
    if unit in ("s", "J", "W", "B", "g"):
        return prefixed(value, unit)
    return f"{count(value)} {unit}".strip()


def unit_of(name: str) -> str:
    """The unit that a metric's name ends in, or "", whatever percentile or end of a band follows it.

    >>> unit_of("tpot_s"), unit_of("tokens_per_s"), unit_of("ttft_s_p99"), unit_of("energy_J_low"), unit_of("mfu")
    ('s', '', 's', 'J', '')
    """
    stem, _, suffix = name.rpartition("_")
    if suffix in ("low", "high") or (suffix.startswith("p") and suffix[1:].isdigit()):
        stem, _, suffix = stem.rpartition("_")
    if stem.endswith("_per") or suffix not in UNITS or not stem:
        return ""
    return UNITS[suffix]


def stem_of(name: str) -> str:
    """A metric's name without its unit, for a column whose cells carry it.

    >>> stem_of("energy_per_token_J"), stem_of("tokens_per_s")
    ('energy_per_token', 'tokens_per_s')
    """
    return name.rpartition("_")[0] if unit_of(name) and not name[-1].isdigit() else name


def prefixed(value: float, unit: str) -> str:
    """A value with the prefix that suits it.

    >>> prefixed(3.2e-6, "s"), prefixed(1234.0, "s"), prefixed(64e9, "B"), prefixed(0.07, "J"), prefixed(0.0, "s")
    ('3.20 µs', '1,234 s', '64.0 GB', '0.0700 J', '0 s')
    """
    if value == 0:
        return f"0 {unit}"
    for factor, prefix in _OF_SECONDS if unit == "s" else PREFIXES:
        # joules per token are compared in joules; bytes and grams are whole or nearly so
        enough = factor * (0.01 if factor == 1.0 and unit in ("J", "g", "B") else 1.0)
        if abs(value) >= enough * 0.99949999:
            return f"{digits(value / factor)} {prefix}{unit}"
    return f"{value:.2e} {unit}"


def scale(largest: float, unit: str) -> tuple[float, str]:
    """What to divide by, and the unit with its prefix, so that the largest number is 1 to 1000.

    >>> scale(5.6e5, "W"), scale(2.4e-4, "s")
    ((1000.0, 'kW'), (1e-06, 'µs'))
    """
    if largest <= 0:
        return 1.0, unit
    steps = _OF_SECONDS if unit == "s" else PREFIXES
    factor, prefix = next((step for step in steps if largest >= step[0]), steps[-1])
    return factor, prefix + unit


def count(value: float) -> str:
    """A number without a unit of its own: thousands set apart, large ones in thousands or millions.

    >>> count(2083.57), count(14067255.0), count(0.01234), count(72)
    ('2,084', '14,067 k', '0.0123', '72')
    """
    return counts([value])[0]


def counts(values: Sequence[float]) -> list[str]:
    """Numbers of one column, all with the same prefix, so that lengths compare.

    >>> counts([368869.9, 2151277.0])
    ['369 k', '2,151 k']
    """
    largest = max(map(abs, values), default=0)
    factor, prefix = (1e6, " M") if largest >= 1e9 else (1e3, " k") if largest >= 1e6 else (1, "")
    return [
        f"{value:,}" if isinstance(value, int) and not prefix else digits(value / factor) + prefix for value in values
    ]


def digits(value: float) -> str:
    """Three digits, thousands set apart.

    >>> digits(0.31343), digits(46.07), digits(999.7), digits(48000.2), digits(9.996)
    ('0.313', '46.1', '1,000', '48,000', '10.0')
    """
    size = abs(value)
    if size < 0.9995:
        if size == 0:
            return "0"
        return f"{value:#.3g}" if size >= 1e-4 else f"{value:.2e}"
    places = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:,.{places}f}"


def shown(value: float | str) -> str:
    """A number without its unit: four digits, thousands set apart.

    >>> shown(1234567.0), shown(0.00012345), shown(12.3456), shown("ring")
    ('1,234,567', '0.0001234', '12.35', 'ring')
    """
    if isinstance(value, str):
        return value
    if value and abs(value) < 1e-4:
        return f"{value:.3e}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
