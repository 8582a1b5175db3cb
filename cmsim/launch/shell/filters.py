"""Programs that turn text into text, as far as scripts use them to work out a value. Nothing of the machine is read."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

_MOST = 10_000
_TEXT = 200_000


class NotWorkedOutError(ValueError):
    """This program is not worked out here, or not with these arguments."""


def echo(args: list[str], given: str) -> str:  # noqa: ARG001
    end, escapes = "\n", False
    while args and re.fullmatch(r"-[neE]+", args[0]):
        end = "" if "n" in args[0] else end
        escapes = "e" in args[0] or escapes
        args = args[1:]
    text = " ".join(args)
    return (_unescaped(text) if escapes else text) + end


def printf(args: list[str], given: str) -> str:  # noqa: ARG001
    if args[:1] == ["--"]:
        args = args[1:]
    if not args or args[0] == "-v":
        raise NotWorkedOutError("printf")
    pattern, values = _unescaped(args[0]), list(args[1:])
    made = re.compile(r"%(-?0?\d*(?:\.\d+)?)([sdiuxXqbf%])")
    slots = sum(found[2] != "%" for found in made.finditer(pattern))
    out = []

    def one(found: re.Match[str]) -> str:
        if found[2] == "%":
            return "%"
        value = values.pop(0) if values else ""
        width = found[1][:6]
        if int(re.sub(r"\D.*", "", width.lstrip("-0")) or 0) > _MOST:
            raise NotWorkedOutError("printf with so wide a field")
        if found[2] in "diuxX":
            return f"%{width}{'d' if found[2] in 'iu' else found[2]}" % _whole(value or "0")
        if found[2] == "f":
            return f"%{width}f" % _number(value or "0")
        return f"%{width}s" % value

    while True:
        out.append(made.sub(one, pattern))
        if not slots or not values or len(out) > _MOST:
            return "".join(out)


def seq(args: list[str], given: str) -> str:  # noqa: ARG001
    between, width = "\n", False
    while args and args[0].startswith("-") and not re.fullmatch(r"-\d+", args[0]):
        if args[0] == "-w":
            width = True
        elif args[0] == "-s" and len(args) > 1:
            between, args = args[1], args[1:]
        elif args[0].startswith("-s"):
            between = args[0][2:].lstrip("=")
        else:
            raise NotWorkedOutError(f"seq {args[0]}")
        args = args[1:]
    numbers = [_whole(arg) for arg in args]
    if not 1 <= len(numbers) <= 3:
        raise NotWorkedOutError("seq")
    first, step, last = (1, 1, numbers[0]) if len(numbers) == 1 else (numbers[0], 1, numbers[1])
    if len(numbers) == 3:
        first, step, last = numbers
    if not step or abs((last - first) // step) > _MOST:
        raise NotWorkedOutError("seq with so many numbers")
    out = [str(n) for n in range(first, last + (1 if step > 0 else -1), step)]
    longest = max(map(len, out), default=0)
    return between.join(one.zfill(longest) if width else one for one in out) + ("\n" if out else "")


def expr(args: list[str], given: str) -> str:  # noqa: ARG001
    from cmsim.launch.shell.arithmetic import Evaluator, SumError

    try:
        return f"{Evaluator(lambda _: '', lambda *_: None).value(' '.join(args))}\n"
    except SumError as error:
        raise NotWorkedOutError(f"expr: {error}") from None


def bc(args: list[str], given: str) -> str:  # noqa: ARG001
    scale = re.search(r"scale\s*=\s*(\d+)\s*;?", given)
    text = re.sub(r"scale\s*=\s*\d+\s*;?", "", given).strip().rstrip(";")
    value = number_of(text.replace("^", "**"))
    if scale is None:
        return f"{value}\n" if "." in given and "/" not in given else f"{int(value)}\n"
    digits = min(int(scale[1]), 12)
    cut = int(value * 10**digits) / 10**digits  # bc cuts, and writes no zero in front
    return f"{cut:.{digits}f}\n".replace("-0.", "-.").removeprefix("0" if abs(cut) < 1 and digits and cut >= 0 else "")


def dirname(args: list[str], given: str) -> str:  # noqa: ARG001
    return f"{posixpath.dirname(args[-1].rstrip('/')) or '.'}\n"


def basename(args: list[str], given: str) -> str:  # noqa: ARG001
    args = [arg for arg in args if arg not in ("-a", "--")]
    if not args:
        raise NotWorkedOutError("basename")
    name = posixpath.basename(args[0].rstrip("/"))
    suffix = args[1] if len(args) > 1 else ""
    return f"{name.removesuffix(suffix) if suffix != name else name}\n"


def realpath(args: list[str], given: str) -> str:  # noqa: ARG001
    return f"{args[-1]}\n"


def tr(args: list[str], given: str) -> str:
    flags = [arg for arg in args if re.fullmatch(r"-[ds]+", arg)]
    sets = [_set(arg) for arg in args if arg not in flags]
    if flags == ["-d"] and len(sets) == 1:
        return "".join(char for char in given if char not in sets[0])
    if flags == ["-s"] and len(sets) == 1:
        return re.sub(r"(.)\1+", lambda m: m[1] if m[1] in sets[0] else m[0], given, flags=re.DOTALL)
    if not flags and len(sets) == 2 and sets[1]:
        to = sets[1] + sets[1][-1] * max(len(sets[0]) - len(sets[1]), 0)
        return given.translate({ord(a): b for a, b in zip(sets[0], to, strict=False)})
    raise NotWorkedOutError("tr")


def cut(args: list[str], given: str) -> str:
    delimiter, fields, chars = "\t", "", ""
    at = 0
    while at < len(args):
        arg = args[at]
        flag, value = arg[:2], arg[2:]
        if flag in ("-d", "-f", "-c") and not value:
            at += 1
            value = args[at] if at < len(args) else ""
        if flag == "-d":
            delimiter = value
        elif flag == "-f":
            fields = value
        elif flag == "-c":
            chars = value
        else:
            raise NotWorkedOutError(f"cut {arg}")
        at += 1
    out = []
    for line in given.splitlines():
        parts: list[str] = line.split(delimiter) if fields else list(line)
        if fields and delimiter not in line:
            out.append(line)
            continue
        chosen = [part for n, part in enumerate(parts, 1) if _in_ranges(n, fields or chars)]
        out.append((delimiter if fields else "").join(chosen))
    return "".join(f"{line}\n" for line in out)


def head(args: list[str], given: str) -> str:
    return "".join(given.splitlines(keepends=True)[: _count(args)])


def tail(args: list[str], given: str) -> str:
    count = _count(args)
    return "".join(given.splitlines(keepends=True)[-count:]) if count else ""


def wc(args: list[str], given: str) -> str:
    if args == ["-l"]:
        return f"{given.count(chr(10))}\n"
    if args == ["-w"]:
        return f"{len(given.split())}\n"
    if args == ["-c"] or args == ["-m"]:
        return f"{len(given)}\n"
    raise NotWorkedOutError("wc")


def sed(args: list[str], given: str) -> str:
    scripts = []
    at, extended = 0, False
    while at < len(args):
        if args[at] in ("-e", "--expression") and at + 1 < len(args):
            scripts.append(args[at + 1])
            at += 1
        elif args[at] in ("-E", "-r"):
            extended = True
        elif args[at].startswith("-"):
            raise NotWorkedOutError(f"sed {args[at]}")
        elif not scripts:
            scripts.append(args[at])
        else:
            raise NotWorkedOutError("sed with a file")
        at += 1
    for script in scripts:
        for one in _commands(script):
            given = _substituted(one, given, extended)
    return given


def _commands(script: str) -> list[str]:
    """``s/a/b/g; s/c/d/`` apart."""
    out, at = [], 0
    while at < len(script):
        while at < len(script) and script[at] in " ;\n\t":
            at += 1
        if at >= len(script):
            break
        if found := re.compile(r"/((?:[^/\\]|\\.)*)/d\s*(?=;|\n|\Z)").match(script, at):
            out.append(found[0])
            at = found.end()
            continue
        if script[at] != "s" or at + 1 >= len(script):
            raise NotWorkedOutError("sed with more than s///")
        sign, start, seen = script[at + 1], at, 0
        at += 1
        while at < len(script) and seen < 3:
            if script[at] == "\\":
                at += 1
            elif script[at] == sign:
                seen += 1
            at += 1
        while at < len(script) and script[at] not in ";\n":
            at += 1
        out.append(script[start:at])
    return out


def _substituted(command: str, given: str, extended: bool) -> str:
    if command.startswith("/"):  # lines that are left out
        pattern = command.strip()[1:-2]
        if _is_costly(pattern):
            raise NotWorkedOutError("sed with repetitions in repetitions")
        try:
            made = re.compile(pattern)
        except re.error:
            raise NotWorkedOutError(f"sed '{command}'") from None
        return "".join(line for line in given[:_TEXT].splitlines(keepends=True) if not made.search(line))
    sign = command[1]
    parts = re.split(rf"(?<!\\){re.escape(sign)}", command)
    if len(parts) != 4 or set(parts[3].strip()) - set("gI"):
        raise NotWorkedOutError("sed with more than s///")
    pattern, by, flags = parts[1].replace("\\" + sign, sign), parts[2].replace("\\" + sign, sign), parts[3]
    if not extended:
        pattern = re.sub(r"(\\?)([(){}+?|])", lambda m: m[2] if m[1] else "\\" + m[2], pattern)
    if _is_costly(pattern):
        raise NotWorkedOutError("sed with repetitions in repetitions")
    by = re.sub(r"(?<!\\)&", lambda _: r"\g<0>", by)
    try:
        made = re.compile(pattern, re.IGNORECASE if "I" in flags else 0)
        return "".join(
            made.sub(by, line, count=0 if "g" in flags else 1) for line in given[:_TEXT].splitlines(keepends=True)
        )
    except (re.error, IndexError):
        raise NotWorkedOutError(f"sed '{command}'") from None


def awk(args: list[str], given: str) -> str:
    split: str | None = None
    if args[:1] and args[0].startswith("-F"):
        split = args[0][2:] or (args[1] if len(args) > 1 else "")
        args = args[1 if args[0][2:] else 2 :]
    if len(args) != 1:
        raise NotWorkedOutError("awk")
    if found := re.fullmatch(r"\s*BEGIN\s*\{\s*printf?\s*(.*?)\s*;?\s*\}\s*", args[0], re.DOTALL):
        inside = found[1].strip()
        if text := re.fullmatch(r'\(?\s*"%d"\s*,\s*(.*?)\)?', inside, re.DOTALL):
            return str(int(number_of(text[1])))
        value = number_of(re.sub(r"\bint\(", "(0+", inside) if "int(" not in inside else inside)
        return f"{value:g}\n" if "print " in args[0] else f"{value:g}"
    if found := re.fullmatch(r"\s*(?:NR==(\d+))?\s*\{\s*print\s+\$(\d+|NF)\s*;?\s*\}\s*", args[0]):
        out = []
        for n, line in enumerate(given.splitlines(), 1):
            if found[1] and n != int(found[1]):
                continue
            fields = line.split(split) if split else line.split()
            which = len(fields) if found[2] == "NF" else int(found[2])
            out.append(line if which == 0 else fields[which - 1] if which <= len(fields) else "")
        return "".join(f"{line}\n" for line in out)
    raise NotWorkedOutError("awk")


def rev(args: list[str], given: str) -> str:  # noqa: ARG001
    return "".join(f"{line[::-1]}\n" for line in given.splitlines())


def grep(args: list[str], given: str) -> str:
    flags = "".join(arg[1:] for arg in args if re.fullmatch(r"-[a-zA-Z]+", arg))
    rest = [arg for arg in args if not re.fullmatch(r"-[a-zA-Z]+", arg)]
    if len(rest) != 1 or set(flags) - set("oEqivPcFxw"):
        raise NotWorkedOutError("grep")
    pattern = re.escape(rest[0]) if "F" in flags else rest[0].replace(r"\K", "")
    if _is_costly(pattern):
        raise NotWorkedOutError("grep with repetitions in repetitions")
    pattern = rf"\b(?:{pattern})\b" if "w" in flags else pattern
    try:
        made = re.compile(pattern, re.IGNORECASE if "i" in flags else 0)
    except re.error:
        raise NotWorkedOutError(f"grep '{rest[0]}'") from None
    lines = given[:_TEXT].splitlines()
    if "o" in flags:
        found = [match[0] for line in lines for match in made.finditer(line)]
    else:
        found = [line for line in lines if (made.search(line) is not None) != ("v" in flags)]
    if "c" in flags:
        return f"{len(found)}\n"
    return "".join(f"{line}\n" for line in found)


FILTERS: dict[str, Callable[[list[str], str], str]] = {
    "echo": echo,
    "printf": printf,
    "seq": seq,
    "expr": expr,
    "bc": bc,
    "dirname": dirname,
    "basename": basename,
    "realpath": realpath,
    "readlink": realpath,
    "tr": tr,
    "cut": cut,
    "head": head,
    "tail": tail,
    "wc": wc,
    "sed": sed,
    "awk": awk,
    "gawk": awk,
    "rev": rev,
    "grep": grep,
    "egrep": grep,
    "xargs": lambda args, given: " ".join(given.split()) + "\n" if not args or args == ["echo"] else _no("xargs"),
    "sort": lambda args, given: "".join(sorted(given.splitlines(keepends=True))) if not args else _no("sort"),
    "uniq": lambda args, given: "".join(dict.fromkeys(given.splitlines(keepends=True))) if not args else _no("uniq"),
    "paste": lambda args, given: (
        args[-1].removeprefix("-d").join(given.splitlines()) + "\n" if args[:1] == ["-s"] else _no("paste")
    ),
}


def _no(name: str) -> str:
    raise NotWorkedOutError(name)


def number_of(text: str) -> float:
    """A sum of numbers, worked out without running anything."""
    import ast

    from cmsim.launch.python import Values

    try:
        value = Values("").number(ast.parse(text.strip()[:500], mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise NotWorkedOutError(f"'{text.strip()[:40]}'") from None
    return value


def _is_costly(pattern: str) -> bool:
    """Whether a pattern repeats what repeats, which may take for ever."""
    return len(pattern) > 300 or re.search(r"[*+}]\)+[*+{]", pattern) is not None


def _unescaped(text: str) -> str:
    signs = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "a": "\a", '"': '"'}
    return re.sub(r"\\(.)", lambda found: signs.get(found[1], found[0]), text)


def _whole(text: str) -> int:
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text):
        raise NotWorkedOutError(f"'{text[:20]}' as a number")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise NotWorkedOutError(f"'{text[:20]}' as a number") from None


def _set(text: str) -> str:
    named = {"[:upper:]": "A-Z", "[:lower:]": "a-z", "[:digit:]": "0-9", "[:space:]": " \t\n\r"}
    for name, chars in named.items():
        text = text.replace(name, chars)
    text = _unescaped(text)
    return re.sub(
        r"(.)-(.)",
        lambda m: "".join(map(chr, range(ord(m[1]), min(ord(m[2]), ord(m[1]) + 300) + 1))),
        text,
        flags=re.DOTALL,
    )


def _in_ranges(n: int, text: str) -> bool:
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not (low or high) or not (low + high).isdigit():
            raise NotWorkedOutError(f"cut {text}")
        if int(low or 1) <= n <= (int(high) if high else n if dash else int(low)):
            return True
    return False


def _count(args: list[str]) -> int:
    text = "".join(args).removeprefix("-n").removeprefix("-")
    return _whole(text) if text else 10
