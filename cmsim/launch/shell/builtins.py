"""Commands of the shell itself, and the few programs that change what it knows of files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cmsim.launch.shell.checks import Checker
from cmsim.launch.shell.syntax import Assign
from cmsim.launch.shell.values import HOLE, is_unknown, shown, unknown

if TYPE_CHECKING:
    from cmsim.launch.shell.run import Shell

Builtin = Callable[["Shell", list[str], int, Mapping[int, Assign]], int]


def _nothing(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    return 0


def _false(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    return 1


def _test(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    words = argv[1:]
    if argv[0] == "[":
        if words[-1:] != ["]"]:
            raise shell.fail("[ is not closed", line)
        words = words[:-1]
    return int(not Checker(shell, words, line, double=False).value())


def _declare(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:
    flags = "".join(arg[1:] for arg in argv[1:] if re.fullmatch(r"-[a-zA-Z]+", arg))
    for at, arg in enumerate(argv[1:], 1):
        if re.fullmatch(r"[-+][a-zA-Z]+", arg):
            continue
        assign = declared.get(at)
        name, equals, value = arg.partition("=") if assign is None else (assign.name, "", "")
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            continue
        if "n" in flags and argv[0] != "export":
            if assign is not None and assign.value is not None:
                shell.refs[name] = shell.expand.text(assign.value)
            continue
        if (argv[0] == "local" or (argv[0] in ("declare", "typeset") and "g" not in flags)) and shell.saved:
            shell.saved[-1].setdefault(name, shell.variables.get(name))
            if assign is None and not equals:
                shell.variables.pop(name, None)
        if "A" in flags:
            shell.variables[shell.real(name)] = {}
        elif "a" in flags and assign is None and not equals:
            shell.variables[name] = []
        if "x" in flags or argv[0] == "export":
            (shell.exports.discard if "n" in flags else shell.exports.add)(name)
        if assign is not None:
            shell.assign(assign)
        elif equals:
            shell.put(name, value)
        if "i" in flags:
            shell.integers.add(name)
        if "i" in flags and shell.is_set(name):
            shell.put(name, shell.expand.sum(shell.get(name), line))
    return 0


def _unset(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    for arg in argv[1:]:
        if found := re.fullmatch(r"(\w+)\[(.+)\]", arg):
            value = shell.variables.get(found[1])
            if isinstance(value, dict):
                value.pop(found[2].strip("'\""), None)
            elif isinstance(value, list) and found[2].isdigit() and int(found[2]) < len(value):
                value[int(found[2])] = HOLE
                while value and value[-1] is HOLE:
                    value.pop()
        else:
            shell.variables.pop(arg, None)
            shell.functions.pop(arg, None)
    return 0


def _set(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    flags = [arg for arg in argv[1:] if re.fullmatch(r"[-+][a-z]+", arg)]
    if any("a" in flag for flag in flags):
        shell.exports_all = any(flag[0] == "-" and "a" in flag for flag in flags)
    if "--" in argv:
        shell.positional = argv[argv.index("--") + 1 :]
    elif argv[1:] and not argv[1].startswith(("-", "+")):
        shell.positional = argv[1:]
    return 0


def _shift(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    count = int(argv[1]) if argv[1:] and argv[1].isdigit() and len(argv[1]) < 6 else 1
    if count > len(shell.positional):
        return 1
    shell.positional = shell.positional[count:]
    return 0


def _leave(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    from cmsim.launch.shell.variables import Leave

    count = int(argv[1]) if argv[1:] and argv[1].isdigit() and len(argv[1]) < 6 else None
    if argv[0] in ("break", "continue"):
        raise Leave(argv[0], count or 1)
    if argv[0] == "exit":
        shell.note("the script ends here", line)
    raise Leave(argv[0], shell.status if count is None else count)


def _eval(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    text = " ".join(argv[1:])
    shell.within(text, line)
    return shell.status


def _again(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    """``exec``, ``command``, ``builtin``, ``nohup``, ``time``: the command behind them."""
    rest = argv[1:]
    if argv[0] == "command" and rest[:1] in (["-v"], ["-V"]):
        shell.note(f"'{' '.join(rest[1:])}' is taken to be installed", line)
        shell.write(f"{' '.join(rest[1:])}\n")
        return 0
    while rest and rest[0] in ("-p", "-l", "-c", "-a", "--"):
        rest = rest[1:]
    if rest:
        shell.call(rest, line)
    return shell.status


def _source(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    from cmsim.launch.shell.variables import Leave

    if not argv[1:]:
        return 1
    text = shell.content(argv[1]) if not is_unknown(argv[1]) else None
    if text is None:
        shell.note(f"the file '{shown(argv[1])}' is not there; what it sets is not known", line)
        return 0
    before = shell.file, shell.positional
    shell.file = posixpath.basename(argv[1])
    shell.positional = argv[2:] or shell.positional
    try:
        shell.within(text, 1)
    except Leave as left:
        if left.what != "return":
            raise
    finally:
        shell.file, shell.positional = before
    return 0


def _read(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    names: list[str] = []
    array = delimiter = None
    at = 1
    while at < len(argv):
        if argv[at] in ("-a", "-d", "-p", "-t", "-n", "-u", "-ra"):
            at += 1
            if argv[at - 1] in ("-a", "-ra") and at < len(argv):
                array = argv[at]
            elif argv[at - 1] == "-d" and at < len(argv):
                delimiter = argv[at]
        elif not argv[at].startswith("-"):
            names.append(argv[at])
        at += 1
    given = shell.given
    if given is None:
        for name in names:
            shell.put(name, unknown(f"read {name}"))
        return 0
    if not given:
        return 1
    text = given if delimiter == "" else given.partition("\n")[0]
    separators = shell.get("IFS") if shell.is_set("IFS") else " \t\n"
    fields = re.split(f"[{re.escape(separators)}]+", text.strip()) if separators else [text]
    if array is not None:
        shell.put_list(array, [one for one in fields if one])
        return 0
    for n, name in enumerate(names or ["REPLY"]):
        is_last = n + 1 == len(names or ["REPLY"])
        value = fields[n] if n < len(fields) else ""
        if is_last and len(fields) > n + 1:
            value = (separators[:1] or " ").join(fields[n:])
        shell.put(name, value)
    return 0


def _mapfile(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    name = argv[-1] if len(argv) > 1 and not argv[-1].startswith("-") else "MAPFILE"
    shell.put_list(name, (shell.given or "").splitlines()[:10_000])
    return 0


def _let(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    status = 0
    for one in argv[1:]:
        status = shell.math(one, line)
    return status


def _cat(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    names = [arg for arg in argv[1:] if not arg.startswith("-") or arg == "-"]
    if not names:
        shell.write(shell.given or "")
    for name in names:
        content = shell.given if name == "-" else shell.content(name)
        shell.write(unknown(f"cat {name}") if content is None else content)
    return 0


def _tee(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    given = shell.given or ""
    for name in argv[1:]:
        if not name.startswith("-") and not is_unknown(given):
            shell.files[name] = (shell.files.get(name, "") if "-a" in argv else "") + given
    shell.write(given)
    return 0


def _envsubst(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    given = shell.given or ""
    shell.write(re.sub(r"\$\{?(\w+)\}?", lambda m: shell.get(m[1]) if m[1] in shell.exports else "", given))
    return 0


def _mktemp(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    shell.temporary += 1
    name = next((arg for arg in argv[1:] if "XX" in arg), "/tmp/tmp.XXXX")
    shell.write(re.sub(r"X{3,}", f"made{shell.temporary}", name) + "\n")
    return 0


def _copy(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    names = [arg for arg in argv[1:] if not arg.startswith("-")]
    if len(names) == 2 and (content := shell.content(names[0])) is not None:
        shell.files[names[1]] = content
    return 0


def _sed(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    """``sed -i`` changes a file; without it sed is a filter."""
    if not any(arg == "-i" or arg.startswith("-i.") for arg in argv):
        shell.filter("sed", argv, line)
        return 0
    args = [arg for arg in argv if arg != "-i" and not arg.startswith("-i.")]
    content = shell.content(args[-1])
    if content is not None:
        before, shell.given = shell.given, content
        shell.files[args[-1]] = shell.captured(lambda: shell.filter("sed", args[:-1], line))
        shell.given = before
    return 0


def _cd(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    if argv[1:] and not argv[-1].startswith("-"):
        shell.folder = posixpath.normpath(posixpath.join(shell.folder, argv[-1]))
    return 0


def _pwd(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    shell.write(f"{shell.folder}\n")
    return 0


def _python(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    """``python -c "print(6 * 7)"``; everything else is a program."""
    from cmsim.launch.shell.filters import NotWorkedOutError, number_of

    if len(argv) == 3 and argv[1] == "-c" and (found := re.fullmatch(r"\s*print\((.*)\)\s*;?\s*", argv[2], re.DOTALL)):
        try:
            value = number_of(found[1])
        except NotWorkedOutError:
            value = None
        if value is not None:
            shell.write(f"{value}\n")
            return 0
    shell.start(argv, line)
    return shell.status


def _getopts(shell: Shell, argv: list[str], line: int, declared: Mapping[int, Assign]) -> int:  # noqa: ARG001
    """One option of the positional ones a call, as OPTIND counts them."""
    if len(argv) < 3:
        return 1
    at = int(shell.get("OPTIND") or 1) - 1 if (shell.get("OPTIND") or "1").isdigit() else 0
    words = argv[3:] or shell.positional
    if at >= len(words) or not re.fullmatch(r"-[A-Za-z]", words[at]):
        return 1
    letter = words[at][1]
    takes = f"{letter}:" in argv[1]
    shell.put(argv[2], letter if letter in argv[1] else "?")
    if takes:
        shell.put("OPTARG", words[at + 1] if at + 1 < len(words) else "")
    shell.put("OPTIND", str(at + 2 + takes))
    return 0


BUILTINS: dict[str, Builtin] = {
    **dict.fromkeys(
        (":", "true", "trap", "ulimit", "umask", "wait", "shopt", "alias", "hash", "pushd", "popd"), _nothing
    ),
    **dict.fromkeys(
        ("mkdir", "rm", "sleep", "touch", "chmod", "chown", "kill", "pkill", "ln", "clear", "sync"), _nothing
    ),
    "false": _false,
    "[": _test,
    "test": _test,
    **dict.fromkeys(("declare", "local", "export", "readonly", "typeset"), _declare),
    "unset": _unset,
    "set": _set,
    "shift": _shift,
    **dict.fromkeys(("break", "continue", "return", "exit"), _leave),
    "eval": _eval,
    **dict.fromkeys(("exec", "command", "builtin", "nohup", "time"), _again),
    "source": _source,
    ".": _source,
    "read": _read,
    "mapfile": _mapfile,
    "readarray": _mapfile,
    "let": _let,
    "cat": _cat,
    "tee": _tee,
    "mktemp": _mktemp,
    "envsubst": _envsubst,
    "cp": _copy,
    "mv": _copy,
    "sed": _sed,
    "cd": _cd,
    "pwd": _pwd,
    "python": _python,
    "python3": _python,
    "getopts": _getopts,
}
