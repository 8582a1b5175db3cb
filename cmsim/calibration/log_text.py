"""The lines of a benchmark of collectives: launchers' prefixes taken off, cut into runs, rows by the header's names.

A run begins with its program's first line (``# nThread``, ``# Collective test starting``, a command line, ``the
minbytes is``) and has a collective, the ranks it lists, a header of columns and rows. A row counts where its size over
its time is the bandwidth printed beside it: that tells the time from a root, a blank or a bandwidth in layouts of any
year.

Source: NVIDIA/nccl-tests (layouts of 2.0 to 2.17), ROCm/rccl-tests, mscclpp-test, Ascend hccl_test user guide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

#: names of programs and collectives in logs, and ours
NAMES: Mapping[str, str] = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "alltoall",
    "broadcast": "broadcast",
    "sendrecv": "sendrecv",
    "reduce": "reduce",
}
_SPELLED = r"(all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|send_?recv|reduce)"
#: all_reduce_perf, allreduce_test_perf, all_reduce_test
_PROGRAM = re.compile(rf"(?<![a-z]){_SPELLED}(?:_test)?(?:_perf|_test)\b", re.IGNORECASE)
_TEST_OF = re.compile(rf"Collective test (?:starting|concluded):\s*{_SPELLED}", re.IGNORECASE)
_CONCLUDED = re.compile(r"Collective test concluded", re.IGNORECASE)
#: what launchers and loggers put before a line: [1,0]<stdout>:, 0:, a date and time, in any number
_PREFIX = re.compile(
    r"\[[^\]\s]*\]\s*<std(?:out|err)>\s*:?|<std(?:out|err)>\s*:?"
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?\]?"
    r"|(?:\[\s*)?\d+(?:\])?:(?=\s)"
    r"|[A-Za-z][\w.-]*:(?=\s+#|\s+\d+\s+\d+\s)"
    r"|\x1b\[[0-9;]*m"
)
#: lines of a library's own logging, which speak of anything
_LOGGED = re.compile(r"\b[NR]?CCL (?:INFO|WARN|TRACE|VERSION)\b|\bHCCL\b.*\b(?:INFO|WARN)\b")
_STARTS = re.compile(
    r"#?\s*(?:n?ccl-tests version|nThread\s+\d|Collective test starting|the minbytes is)", re.IGNORECASE
)
_COMMAND = re.compile(
    r"(?:^|[\s/])(?:mpirun|mpiexec|srun|orterun)\b|^[$#>]?\s*\S*/?" + _SPELLED + r"(?:_perf|_test)\s+-"
)
_RANK = re.compile(r"#?\s*Rank\s+(\d+)\b(?:\s+Group\s+(\d+))?.*?(?:\bon\s+(\S+))?(?:\s+device|$)", re.IGNORECASE)
_LAUNCHED = re.compile(r"\b(?:mpirun|mpiexec|srun|orterun)\b.*?\s(?:-n|-np|--ntasks[ =])\s*(\d+)")
_RANK_SIZE = re.compile(r"\brank_?size\s*[:=]?\s*(\d+)", re.IGNORECASE)
_FAILED = ("failed", "fail", "error", "wrong")
#: how much a printed number may be off beside its rounding [1]
_SLACK = 1e-3


@dataclass
class LogRun:
    """One run of a benchmark, as far as its text says.

    ranks: (group, host) by rank    launched: ranks of the command line, 0 where it has none
    rows: message_bytes, dtype, latency_us, algbw_GBps, busbw_GBps    left_out: rows that are not used, by reason
    """

    collective: str = ""
    ranks: dict[int, tuple[str, str]] = field(default_factory=dict)
    launched: int = 0
    header: list[str] = field(default_factory=list)
    rows: list[tuple[int, str, float, float, float]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    one_time: int = 0

    @property
    def n_ranks(self) -> int:
        """Of one communicator; 0 where the text does not say."""
        groups = {group for group, _ in self.ranks.values()}
        return len(self.ranks) // len(groups) if groups else self.launched

    @property
    def per_node(self) -> int:
        """Ranks of a communicator on a host, 0 where hosts are unequal or not named."""
        first = next(iter(self.ranks.values()), ("", ""))[0]
        hosts = Counter(host for group, host in self.ranks.values() if group == first)
        counts = set(hosts.values())
        return counts.pop() if len(counts) == 1 and "" not in hosts else 0

    @property
    def began(self) -> bool:
        """Whether a line that starts a run would start another."""
        return bool(self.ranks or self.header or self.rows or self.left_out)


def runs(lines: Iterable[str]) -> list[LogRun]:
    """Runs in the order in which they begin; those without rows are left out."""
    found = [LogRun()]
    for line in map(plain, lines):
        if not line or _LOGGED.search(line):
            continue
        _take(line, found)
    return [run for run in found if run.rows or run.left_out]


def plain(line: str) -> str:
    """A line without what launchers and loggers put before it.

    >>> plain("[1,0]<stdout>:# nThread 1"), plain("2025-03-14T10:11:12.123Z 0:    1024   256")
    ('# nThread 1', '1024   256')
    """
    line = line.strip()
    while (at := _PREFIX.match(line)) is not None and at.end():
        line = line[at.end() :].lstrip()
    return line


def _take(line: str, found: list[LogRun]) -> None:
    starts = _STARTS.match(line) is not None or _COMMAND.search(line) is not None
    if starts and found[-1].began and not _CONCLUDED.search(line):
        found.append(LogRun())
    run = found[-1]
    program = _TEST_OF.search(line) or (_PROGRAM.search(line) if not _numbers_first(line) else None)
    if program is not None and not run.collective:
        run.collective = NAMES[program[1].lower().replace("_", "")]
    if (launched := _LAUNCHED.search(line) or _RANK_SIZE.search(line)) is not None:
        run.launched = int(launched[1])
    if (rank := _RANK.match(line)) is not None:
        run.ranks[int(rank[1])] = (rank[2] or "", rank[3] or "")
    elif (names := _columns(line)) is not None:
        run.header = names
    elif _numbers_first(line):
        _row(line, run)


def _numbers_first(line: str) -> bool:
    return line[:1].isdigit()


def _columns(line: str) -> list[str] | None:
    """Names of a header of columns, None for another line."""
    low = line.lstrip("# ").lower()
    if "|" in low and "size" in low and "time" in low:
        return [re.sub(r"\(.*?\)|:", "", cell).strip() for cell in low.strip("|").split("|")]
    words = low.split()
    return words if words[:2] == ["size", "count"] and "time" in words else None


def _row(line: str, run: LogRun) -> None:
    words = [word.strip() for word in line.strip("|").split("|")] if "|" in line else line.split()
    if len(words) < 3 or not words[0].isdigit():
        return
    if len(words[0]) > _DIGITS:
        run.left_out["of a size that no buffer has"] += 1
        return
    size_B = int(words[0])
    if not size_B:
        run.left_out["of 0 bytes"] += 1
        return
    at = _time_at(words, run.header, size_B)
    if at is None:
        run.left_out["whose size over time is not the bandwidth beside it"] += 1
        return
    if _failed(words[at + 2 :], run.header):
        run.left_out["whose result was wrong"] += 1
        return
    halves = run.header.count("time")
    run.one_time += halves > 1 and len(words) <= at + len(run.header) - run.header.index("time") - _half(run.header)
    dtype = next((word for word in words[2:at] if not _is_number(word)), "float")
    busbw = float(words[at + 2]) if at + 2 < len(words) and _is_number(words[at + 2]) else float("nan")
    run.rows.append((size_B, dtype, float(words[at]), float(words[at + 1]), busbw))


def _half(header: Sequence[str]) -> int:
    """Columns of one of two sets of times."""
    first = header.index("time")
    return (len(header) - first) // header.count("time")


def _time_at(words: Sequence[str], header: Sequence[str], size_B: int) -> int | None:
    """Where the time stands: where the header says or, of blank columns and without one, before."""
    said = next((at for at, name in enumerate(header) if name.endswith("time")), None)
    places = [said, *range(1, said)] if said is not None else list(range(1, len(words) - 1))
    return next((at for at in places if at + 1 < len(words) and _agree(words[at], words[at + 1], size_B)), None)


def _agree(time: str, bandwidth: str, size_B: int) -> bool:
    """Whether a bandwidth is a size over a time, as far as both are printed. [us, GB/s]"""
    if not (_is_number(time) and _is_number(bandwidth)):
        return False
    time_us, GBps = float(time), float(bandwidth)
    if not time_us > 0:
        return False
    off_us, off_GBps = _half_digit(time), _half_digit(bandwidth)
    if max(off_us, off_GBps) > _VAGUE:
        return False
    high = size_B / 1e3 / max(time_us - off_us, 1e-9) * (1 + _SLACK) + off_GBps
    low = size_B / 1e3 / (time_us + off_us) * (1 - _SLACK) - off_GBps
    return low <= GBps <= high


#: of a size in bytes, at most
_DIGITS = 18
#: of ten, in a float
_MOST_POWER = 300.0
#: last digits of such a unit are no measurement [us], [GB/s]
_VAGUE = 1e9


def _half_digit(text: str) -> float:
    """Half a unit of the last digit of a number as printed."""
    mantissa, _, power = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    # of a power that no float has only its side counts
    exponent = min(max(float(power or 0), -_MOST_POWER), _MOST_POWER) - decimals
    return float(0.5 * 10.0**exponent)


def _failed(after: Sequence[str], header: Sequence[str]) -> bool:
    """Whether what stands after a bandwidth says that the result was wrong."""
    if any(word.lower() in _FAILED for word in after):
        return True
    counted = "#wrong" in header
    return counted and len(after) > 1 and after[1].isdigit() and after[1].strip("0") != ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def left_out(found: Sequence[LogRun]) -> Iterator[str]:
    """What is to be said of rows that are not used."""
    total: Counter[str] = Counter()
    for run in found:
        total.update(run.left_out)
    for reason, count in total.items():
        yield f"{count} row{'s' * (count != 1)} {reason} {'are' if count != 1 else 'is'} left out"
    one = sum(run.one_time for run in found)
    if one:
        yield f"{one} row{'s' * (one != 1)} of one time instead of two: that is taken"
