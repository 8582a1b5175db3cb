"""A Python file's values, worked out on its syntax tree; nothing is imported or run.

Known are numbers, text, lists and dicts, their operators and a few functions without side effects. Whatever else is
called is a `Thing`: it remembers its name, its arguments and the attributes that were set on it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.launch.python.things import (
    BINARY,
    CALLED,
    COMPARED,
    DEEPEST,
    METHODS,
    SIZE,
    LeftLoop,
    NextTurn,
    Returned,
    Thing,
    Unsure,
    is_large,
)

#: steps of a file
STEPS = 100_000


class Values:
    """Works out a module. ``given`` are environment variables, for ``os.environ`` and ``os.getenv``."""

    def __init__(self, file: str, given: Mapping[str, str] | None = None):
        self.file = file
        self.given = dict(given or {})
        self.steps = 0
        self.depth = 0
        self.top: dict[str, Any] = {}
        #: what was called and is not known, in order
        self.made: list[Thing] = []

    def module(self, text: str) -> dict[str, Any]:
        """Names of a module and their values, functions as syntax trees. InputError where it is no Python."""
        try:
            tree = ast.parse(text)
        except SyntaxError as error:
            raise InputError(Problem(f"is not Python: {error.msg}", self.file, error.lineno)) from None
        except (ValueError, RecursionError, MemoryError):
            raise InputError(
                Problem("is not Python that can be read: too deep, or holds a null byte", self.file)
            ) from None
        try:
            self.body(tree.body, self.top)
        except (Returned, LeftLoop):
            pass
        except RecursionError:
            raise InputError(Problem("lies too deep in itself to be worked out", self.file)) from None
        return self.top

    def number(self, node: ast.expr) -> float:
        value = self.of(node, {})
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("no number")
        return value

    # statements

    def body(self, nodes: list[ast.stmt], names: dict[str, Any]) -> None:
        for node in nodes:
            self.one(node, names)

    def one(self, node: ast.stmt, names: dict[str, Any]) -> None:
        self._step(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            value = self.of(node.value, names)
            for target in node.targets:
                self.put(target, value, names)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self.put(node.target, self.of(node.value, names), names)
        elif isinstance(node, ast.AugAssign):
            left = self.of(_loaded(node.target), names)
            self.put(node.target, self._binary(node.op, left, self.of(node.value, names), node), names)
        elif isinstance(node, ast.Expr):
            self.of(node.value, names)
        elif isinstance(node, ast.Return):
            raise Returned(None if node.value is None else self.of(node.value, names))
        elif isinstance(node, ast.If):
            check = self.of(node.test, names)
            if _is_main(node.test):
                check = True
            self.body(node.body if self._true(check) else node.orelse, names)
        elif isinstance(node, ast.For):
            self._for(node, names)
        elif isinstance(node, ast.While):
            while self._true(self.of(node.test, names)):
                self._step(node)
                try:
                    self.body(node.body, names)
                except NextTurn:
                    continue
                except LeftLoop:
                    break
        elif isinstance(node, ast.With):
            for item in node.items:
                if item.optional_vars is not None:
                    self.put(item.optional_vars, self.of(item.context_expr, names), names)
            self.body(node.body, names)
        elif isinstance(node, ast.Try):
            self.body(node.body, names)
        elif isinstance(node, ast.Break):
            raise LeftLoop
        elif isinstance(node, ast.Continue):
            raise NextTurn

    def _for(self, node: ast.For, names: dict[str, Any]) -> None:
        over = self.of(node.iter, names)
        if not isinstance(over, list | tuple | dict | str | set):
            return
        for value in list(over):
            self._step(node)
            self.put(node.target, value, names)
            try:
                self.body(node.body, names)
            except NextTurn:
                continue
            except LeftLoop:
                break

    def put(self, target: ast.expr, value: Any, names: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            names[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            values = value if isinstance(value, list | tuple) else []
            for n, one in enumerate(target.elts):
                self.put(one, values[n] if n < len(values) else Unsure(ast.unparse(one)), names)
        elif isinstance(target, ast.Attribute):
            thing = self.of(target.value, names)
            if isinstance(thing, Thing):
                thing.values[target.attr] = value
                thing.lines[target.attr] = target.lineno
        elif isinstance(target, ast.Subscript):
            of, key = self.of(target.value, names), self.of(target.slice, names)
            fits = isinstance(of, list) and isinstance(key, int) and -len(of) <= key < len(of)
            if fits or (isinstance(of, dict) and isinstance(key, str | int)):
                of[key] = value
            elif isinstance(of, Thing) and isinstance(key, str):
                of.values[key] = value
                of.lines[key] = target.lineno

    # expressions

    def of(self, node: ast.expr, names: dict[str, Any]) -> Any:
        self._step(node)
        self.depth += 1
        try:
            if self.depth > 300:
                return Unsure("too deep")
            value = self._of(node, names)
            return Unsure("too large") if is_large(value) else value
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
            return Unsure(ast.unparse(node)[:80])
        finally:
            self.depth -= 1

    def _of(self, node: ast.expr, names: dict[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._name(node, names)
        if isinstance(node, ast.Attribute):
            return self._attribute(self.of(node.value, names), node)
        if isinstance(node, ast.BinOp):
            return self._binary(node.op, self.of(node.left, names), self.of(node.right, names), node)
        if isinstance(node, ast.UnaryOp):
            value = self.of(node.operand, names)
            if isinstance(node.op, ast.Not):
                return value if isinstance(value, Unsure) else not self._true(value)
            return -value if isinstance(node.op, ast.USub) else +value
        if isinstance(node, ast.BoolOp):
            return self._either(node, names)
        if isinstance(node, ast.Compare):
            return self._compared(node, names)
        if isinstance(node, ast.IfExp):
            return self.of(node.body if self._true(self.of(node.test, names)) else node.orelse, names)
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            values: list[Any] = []
            for one in node.elts:
                if isinstance(one, ast.Starred):
                    more = self.of(one.value, names)
                    values += more if isinstance(more, list | tuple) else [more]
                else:
                    values.append(self.of(one, names))
            return tuple(values) if isinstance(node, ast.Tuple) else values
        if isinstance(node, ast.Dict):
            return self._dict(node, names)
        if isinstance(node, ast.Subscript):
            return self._item(node, names)
        if isinstance(node, ast.Call):
            return self._call(node, names)
        if isinstance(node, ast.JoinedStr):
            return self._joined(node, names)
        if isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and len(node.generators) == 1:
            return self._comprehension(node, names)
        return Unsure(ast.unparse(node)[:80])

    def _name(self, node: ast.Name, names: dict[str, Any]) -> Any:
        if node.id in names:
            return names[node.id]
        return self.top[node.id] if node.id in self.top else Thing(node.id, node.lineno)

    def _attribute(self, of: Any, node: ast.Attribute) -> Any:
        if not isinstance(of, Thing):
            return Unsure(ast.unparse(node)[:80])
        if node.attr not in of.values:
            of.values[node.attr] = Thing(f"{of.name}.{node.attr}", node.lineno)
        return of.values[node.attr]

    def _binary(self, op: ast.operator, left: Any, right: Any, node: ast.AST) -> Any:
        if isinstance(left, Thing | Unsure) or isinstance(right, Thing | Unsure):
            return Unsure(ast.unparse(node)[:80])
        if isinstance(op, ast.Mult) and any(isinstance(one, str | list | tuple) for one in (left, right)):
            of, times = (left, right) if isinstance(right, int) else (right, left)
            if len(of) * max(times, 0) > SIZE:
                return Unsure("too large")
        if isinstance(op, ast.Mod) and isinstance(left, str) and re.search(r"%[-#0 +]*\*|%\D*\d{4,}", left):
            return Unsure("too large")
        return BINARY[type(op)](left, right)

    def _either(self, node: ast.BoolOp, names: dict[str, Any]) -> Any:
        value: Any = None
        for one in node.values:
            value = self.of(one, names)
            if isinstance(value, Unsure) or self._true(value) != isinstance(node.op, ast.And):
                return value
        return value

    def _compared(self, node: ast.Compare, names: dict[str, Any]) -> Any:
        left = self.of(node.left, names)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.of(right_node, names)
            if isinstance(left, Thing | Unsure) or isinstance(right, Thing | Unsure):
                return Unsure(ast.unparse(node)[:80])
            if not COMPARED[type(op)](left, right):
                return False
            left = right
        return True

    def _dict(self, node: ast.Dict, names: dict[str, Any]) -> Any:
        out: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            made = self.of(value, names)
            if key is None:
                out |= made if isinstance(made, dict) else {}
            else:
                out[self.of(key, names)] = made
        return out

    def _item(self, node: ast.Subscript, names: dict[str, Any]) -> Any:
        of = self.of(node.value, names)
        if isinstance(of, Thing):
            key = self.of(node.slice, names)
            if of.name == "os.environ":
                return self.given.get(str(key), Unsure(ast.unparse(node)))
            if isinstance(key, str):
                return of.values.setdefault(key, Thing(f"{of.name}.{key}", node.lineno))
            return Unsure(ast.unparse(node)[:80])
        if isinstance(node.slice, ast.Slice):
            parts = [None if part is None else self.of(part, names) for part in (node.slice.lower, node.slice.upper)]
            return of[parts[0] : parts[1]]
        return of[self.of(node.slice, names)]

    def _joined(self, node: ast.JoinedStr, names: dict[str, Any]) -> Any:
        out = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                out.append(str(part.value))
            elif isinstance(part, ast.FormattedValue):
                value = self.of(part.value, names)
                if isinstance(value, Thing | Unsure):
                    return Unsure(ast.unparse(node)[:80])
                spec = self._joined(part.format_spec, names) if isinstance(part.format_spec, ast.JoinedStr) else ""
                if not isinstance(spec, str) or re.search(r"\d{4,}", spec):
                    return Unsure(ast.unparse(node)[:80])
                out.append(format(value, spec))
        return "".join(out)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, names: dict[str, Any]) -> Any:
        one = node.generators[0]
        over = self.of(one.iter, names)
        if not isinstance(over, list | tuple | dict | str | set):
            return Unsure(ast.unparse(node)[:80])
        inner = dict(names)
        pairs: list[Any] = []
        for value in list(over):
            self._step(node)
            self.put(one.target, value, inner)
            if all(self._true(self.of(check, inner)) for check in one.ifs):
                if isinstance(node, ast.DictComp):
                    pairs.append((self.of(node.key, inner), self.of(node.value, inner)))
                else:
                    pairs.append(self.of(node.elt, inner))
        return dict(pairs) if isinstance(node, ast.DictComp) else pairs

    def _call(self, node: ast.Call, names: dict[str, Any]) -> Any:
        args = self._args(node, names)
        given = {}
        for keyword in node.keywords:
            value = self.of(keyword.value, names)
            if keyword.arg is not None:
                given[keyword.arg] = value
            elif isinstance(value, dict):
                given |= {str(key): one for key, one in value.items()}
        if isinstance(node.func, ast.Attribute):
            of = self.of(node.func.value, names)
            if not isinstance(of, Thing | Unsure | ast.AST) and node.func.attr in METHODS:
                if any(isinstance(arg, Thing | Unsure) for arg in args) and isinstance(of, str):
                    return Unsure(ast.unparse(node)[:80])
                if _wide(of) * max((_wide(arg) for arg in args), default=1) > 100 * SIZE:
                    return Unsure("too large")
                out = getattr(of, node.func.attr)(*args, **given)
                return list(out) if node.func.attr in ("items", "keys", "values") else out
        called = self.of(node.func, names)
        name = ast.unparse(node.func)
        if (
            name in ("setattr", "getattr", "hasattr")
            and args
            and isinstance(args[0], Thing)
            and isinstance(args[1], str)
        ):
            return self._by_name(name, args, node)
        if (
            name in ("replace", "dataclasses.replace", "copy.deepcopy", "deepcopy")
            and args
            and isinstance(args[0], Thing)
        ):
            return args[0].copied(given, node.lineno)
        if name in ("os.environ.get", "os.getenv"):
            return self.given.get(str(args[0]), args[1] if len(args) > 1 else None)
        if isinstance(called, ast.FunctionDef):
            return self.call(called, args, given)
        if isinstance(called, ast.ClassDef):
            return self._made(called, args, given, node.lineno)
        if name in CALLED and isinstance(node.func, ast.Name):
            if any(isinstance(arg, Thing | Unsure) for arg in args):
                return Unsure(ast.unparse(node)[:80])
            return CALLED[name](*args, **given)
        if name in ("field", "dataclasses.field") and ("default" in given or "default_factory" in given):
            factory = given.get("default_factory")
            return given["default"] if "default" in given else Thing(str(getattr(factory, "name", "")), node.lineno)
        thing = Thing(name, node.lineno, called=True)
        self.made.append(thing)
        thing.values |= {f"[{n}]": arg for n, arg in enumerate(args)} | given
        thing.lines |= {keyword.arg: keyword.value.lineno for keyword in node.keywords if keyword.arg}
        return thing

    def _by_name(self, name: str, args: list[Any], node: ast.Call) -> Any:
        """``setattr``, ``getattr`` and ``hasattr`` of a thing."""
        thing, key = args[0], args[1]
        if name == "setattr" and len(args) == 3:
            thing.values[key] = args[2]
            thing.lines[key] = node.lineno
            return None
        if name == "hasattr":
            return key in thing.values
        return thing.values.setdefault(key, Thing(f"{thing.name}.{key}", node.lineno))

    def _args(self, node: ast.Call, names: dict[str, Any]) -> list[Any]:
        args: list[Any] = []
        for arg in node.args:
            if isinstance(arg, ast.Starred):
                more = self.of(arg.value, names)
                args += more if isinstance(more, list | tuple) else []
            else:
                args.append(self.of(arg, names))
        return args

    def call(self, function: ast.FunctionDef, args: list[Any], given: Mapping[str, Any]) -> Any:
        """What a function of the file returns. An argument without value and default is a `Thing` of its name."""
        if self.depth > DEEPEST:
            return Unsure(f"{function.name}()")
        inner: dict[str, Any] = {}
        all_args = [*function.args.posonlyargs, *function.args.args]
        defaults: list[ast.expr | None] = [None] * (len(all_args) - len(function.args.defaults))
        defaults += function.args.defaults
        for n, (arg, default) in enumerate(zip(all_args, defaults, strict=True)):
            inner[arg.arg] = self._argument(arg.arg, args[n : n + 1], given, default, function.lineno)
        for arg, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
            inner[arg.arg] = self._argument(arg.arg, [], given, default, function.lineno)
        if function.args.kwarg:
            inner[function.args.kwarg.arg] = {key: one for key, one in given.items() if key not in inner}
        if function.args.vararg:
            inner[function.args.vararg.arg] = args[len(all_args) :]
        try:
            self.body(function.body, inner)
        except Returned as done:
            return done.value
        except LeftLoop:
            pass
        return None

    def _argument(
        self, name: str, args: list[Any], given: Mapping[str, Any], default: ast.expr | None, line: int
    ) -> Any:
        if args:
            return args[0]
        if name in given:
            return given[name]
        return self.of(default, {}) if default is not None else Thing(name, line)

    def _made(self, made: ast.ClassDef, args: list[Any], given: Mapping[str, Any], line: int) -> Thing:
        """An instance of a class of the file: its fields, then what was given."""
        thing = Thing(made.name, line, called=True)
        for base in made.bases:
            parent = self.top.get(base.id) if isinstance(base, ast.Name) else None
            if isinstance(parent, ast.ClassDef) and parent is not made and self.depth < DEEPEST:
                above = self._made(parent, [], {}, line)
                thing.values |= above.values
                thing.lines |= above.lines
        fields = []
        for node in made.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                fields.append(node.target.id)
            inner = dict(thing.values)
            if isinstance(node, ast.Assign | ast.AnnAssign):
                self.one(node, inner)
                for key, value in inner.items():
                    if key not in thing.values or thing.values[key] is not value:
                        thing.values[key] = value
                        thing.lines[key] = node.lineno
        for name, value in [*zip(fields, args, strict=False), *given.items()]:
            thing.values[name] = value
            thing.lines[name] = line
        return thing

    def _true(self, value: Any) -> bool:
        return not isinstance(value, Unsure) and bool(value)

    def _step(self, node: ast.AST) -> None:
        self.steps += 1
        if self.steps > STEPS:
            message = f"takes more than {STEPS} steps to work out; nothing of a file is run"
            raise InputError(Problem(message, self.file, getattr(node, "lineno", None)))


def _loaded(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Name):
        return ast.copy_location(ast.Name(node.id, ast.Load()), node)
    if isinstance(node, ast.Attribute):
        return ast.copy_location(ast.Attribute(node.value, node.attr, ast.Load()), node)
    return node


def _is_main(node: ast.expr) -> bool:
    return "__name__" in ast.unparse(node)


def _wide(value: Any) -> int:
    """Characters of a text, or of all texts of a list."""
    if isinstance(value, str):
        return max(len(value), 1)
    if isinstance(value, list | tuple):
        return sum(len(one) if isinstance(one, str) else 1 for one in value) or 1
    return 1
