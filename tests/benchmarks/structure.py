"""Figures of the structure: `python -m tests.benchmarks.structure [CHECKOUT ...]`, a column for each checkout."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

UNTYPED = re.compile(r"dict\[str, Any\]")
SCRIPTS = ("*.js", "*.mjs")


class Checkout:
    """The Python of a checkout, parsed."""

    def __init__(self, root: Path) -> None:
        package = root / "lungseg"
        paths = [root / "app.py", *sorted((root / "pages").glob("*.py")), *sorted(package.rglob("*.py"))]
        self._texts = {path.relative_to(root): path.read_text(encoding="utf-8") for path in paths}
        self._trees = {path: ast.parse(text) for path, text in self._texts.items()}
        self._scripts = [path for pattern in SCRIPTS for path in package.rglob(pattern)]

    def figures(self) -> dict[str, str]:
        """Return what is counted, by name."""
        functions = list(self._functions())
        longest, name = max(((node.end_lineno or 0) - node.lineno + 1, node.name) for _, node in functions)
        rooms = {_room(path) for path in self._trees}
        return {
            "rooms (packages, and modules beside them)": str(len(rooms)),
            "arrows between rooms": str(len(self._arrows())),
            "modules": str(len(self._trees)),
            "lines of Python": str(sum(text.count("\n") for text in self._texts.values())),
            "lines of JavaScript": str(sum(path.read_text(encoding="utf-8").count("\n") for path in self._scripts)),
            "functions": str(len(functions)),
            "longest function": f"{longest} ({name})",
            "dict[str, Any]": str(sum(len(UNTYPED.findall(text)) for text in self._texts.values())),
            "functions that only forward": str(sum(_only_forwards(node) for _, node in functions)),
            "class names that stand twice": str(len(self._twice(ast.ClassDef))),
            "public function names that stand twice": str(len(self._twice(ast.FunctionDef))),
        }

    def _functions(self) -> Iterator[tuple[Path, ast.FunctionDef]]:
        for path, tree in self._trees.items():
            if "versions" not in path.parts:
                yield from ((path, node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))

    def _arrows(self) -> set[tuple[str, str]]:
        arrows = set()
        for path, tree in self._trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lungseg"):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                    arrows |= {(_room(path), self._room_of(name)) for name in names}
        return {(source, target) for source, target in arrows if source != target}

    def _room_of(self, name: str) -> str:
        parts = name.split(".")
        while parts:
            for path in (Path(*parts).with_suffix(".py"), Path(*parts, "__init__.py")):
                if path in self._trees:
                    return _room(path)
            parts.pop()
        return "lungseg"

    def _twice(self, kind: type[ast.ClassDef] | type[ast.FunctionDef]) -> set[str]:
        seen: dict[str, set[Path]] = {}
        for path, tree in self._trees.items():
            for node in tree.body:
                if isinstance(node, kind) and not node.name.startswith("_") and "migrations" not in path.parts:
                    seen.setdefault(node.name, set()).add(path)
        return {name for name, paths in seen.items() if len(paths) > 1}


def _room(path: Path) -> str:
    """A folder is one room; a module that lies in `lungseg/` itself is one of its own."""
    return path.stem if path.parent == Path("lungseg") else str(path.parent)


def _only_forwards(node: ast.FunctionDef) -> bool:
    """Tell whether a function does nothing but call another one with its own arguments, transactions aside."""
    body = [statement for statement in node.body if not _is_docstring(statement)]
    if len(body) == 1 and isinstance(body[0], ast.With):
        body = body[0].body
    if len(body) != 1 or not isinstance(body[0], ast.Return | ast.Expr):
        return False
    call = body[0].value
    if not isinstance(call, ast.Call) or not (call.args or call.keywords):
        return False
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return bool(node.args.args) and all(isinstance(value, ast.Name | ast.Attribute | ast.Starred) for value in values)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def main() -> None:
    """Print the figures."""
    roots = [Path(name) for name in sys.argv[1:]] or [Path()]
    columns = [Checkout(root).figures() for root in roots]
    for name in columns[0]:
        sys.stdout.write(f"| {name} | {' | '.join(column[name] for column in columns)} |\n")


if __name__ == "__main__":
    main()
