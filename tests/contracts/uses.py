"""Every TensorRT name that a source file uses, found in its syntax tree: what the contract holds against the dumps.

Where an object comes from is followed through assignments (`builder = trt.Builder(log)`, `network =
builder.create_network(flags)`) with the types of the dumps; what arrives as a parameter is declared in `RECEIVERS`.
An attribute that only TensorRT has, on something unknown, is reported as such, so that no use escapes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.fakes import Signature

RECEIVERS = {
    "builder": "Builder",
    "c": "IPluginCreatorV3One",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "first": "ParserError",
    "network": "INetworkDefinition",
    "registry": "IPluginRegistry",
}
"""Name of a variable, or of an attribute, that holds an object of TensorRT -> its class."""

OURS = "an object of this package"

MODULES = {"trt": "tensorrt", "trtp": "tensorrt.plugin", "_trt": "tensorrt"}


@dataclass(frozen=True)
class Use:
    """One access: a name of the module, a member of a class, or a call of one."""

    file: str
    line: int
    owner: str
    """A class, "tensorrt", "tensorrt.plugin", or "?" when nobody knows."""
    name: str
    kind: str
    """One of "read", "write", "call", "override"."""
    positional: int = 0
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.owner}.{self.name} ({self.kind})"


def uses_in(path: Path, apis: dict[str, Any]) -> list[Use]:
    """Every use in one file; `apis` are the dumps by version, whose types and names are looked up."""
    finder = _Finder(path.name, apis)
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    finder.learn(tree)
    return list(finder.find(tree))


class _Finder:
    def __init__(self, file: str, apis: dict[str, Any]) -> None:
        self.file = file
        self.classes: dict[str, Any] = {}
        for api in apis.values():
            self.classes |= {name: c for name, c in api["classes"].items() if "methods" in c}
        self.plugin = {
            name for api in apis.values() for name, said in api.get("plugin", {}).items() if "members" in said
        }
        # The oldest dump says most: later ones call the registry an object.
        self.functions = {name: texts for api in reversed(apis.values()) for name, texts in api["functions"].items()}
        self.members = {m for c in self.classes.values() for part in ("methods", "properties") for m in c[part]}
        self.known = dict(RECEIVERS)
        self.own: set[str] = set()
        """Attributes that classes of this file give themselves, and modules that it imports."""

    def learn(self, tree: ast.AST) -> None:
        """Types of variables, from their annotations and from what is assigned to them; twice, for chains."""
        nodes = list(ast.walk(tree))
        for node in nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self.own |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            if isinstance(node, ast.arg) and node.annotation is not None and (kind := self._annotated(node.annotation)):
                self.known[node.arg] = kind
        for node in [*nodes, *nodes]:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                self._learn(node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value)

    def _annotated(self, annotation: ast.expr) -> str | None:
        if isinstance(annotation, ast.Name) and annotation.id not in ("Any", "ModuleType"):
            return OURS
        kind = (self.type_of(annotation) or "").removeprefix("type:")
        return kind if kind in self.plugin else None

    def _learn(self, target: ast.expr, value: ast.expr) -> None:
        name = target.id if isinstance(target, ast.Name) else getattr(target, "attr", "")
        if isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
            self.own.add(target.attr)
        made = value.func.id if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) else ""
        kind = OURS if made.lstrip("_")[:1].isupper() else self.type_of(value)
        if name and kind and (name not in self.known or kind == OURS):
            self.known[name] = kind

    def type_of(self, node: ast.expr) -> str | None:
        """The class of an expression; "tensorrt" for the module, "type:Name" for a name of it; None: not known."""
        if isinstance(node, ast.Name):
            return MODULES.get(node.id) or self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.type_of(node.value)
            if owner in MODULES.values():
                return f"type:{node.attr}"
            if owner in self.classes:
                return self._class(self.classes[owner]["properties"].get(node.attr, "").split(",")[0])
            return None if owner in self.plugin else MODULES.get(node.attr) or self.known.get(node.attr)
        if isinstance(node, ast.Subscript):
            return self.known.get(getattr(node.value, "attr", getattr(node.value, "id", "")))
        return self._result(node.func) if isinstance(node, ast.Call) else None

    def _result(self, called: ast.expr) -> str | None:
        """The class that a call returns."""
        kind = self.type_of(called) or ""
        if kind.startswith("type:"):
            name = kind.removeprefix("type:")
            constructs = name in self.classes or name in self.plugin
            return name if constructs else self._returned(self.functions.get(name, []))
        owner = self.type_of(called.value) if isinstance(called, ast.Attribute) else None
        return self._returned(self.classes[owner]["methods"].get(called.attr, [])) if owner in self.classes else None

    def _returned(self, overloads: list[str]) -> str | None:
        return self._class(Signature.parse(overloads[0]).returns) if overloads else None

    def _class(self, name: str) -> str | None:
        return next((n for n in (name, name.removeprefix("I")) if n in self.classes), None)

    def find(self, tree: ast.AST) -> Iterator[Use]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                yield from self._attribute(node)
            if isinstance(node, ast.ClassDef):
                yield from self._overrides(node)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr"):
                yield from self._guard(node)

    def _attribute(self, node: ast.Attribute) -> Iterator[Use]:
        owner = self.type_of(node.value)
        if owner == OURS:
            return
        if owner is None:
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            ours = getattr(root, "id", "") in self.own - MODULES.keys() or node.attr in self.own
            if "_" in node.attr.strip("_") and node.attr in self.members and not ours:
                yield Use(self.file, node.lineno, "?", node.attr, "read")
            return
        owner = owner.removeprefix("type:")
        if owner in self.plugin and owner not in self.classes:
            yield Use(self.file, node.lineno, "tensorrt.plugin", f"{owner}.{node.attr}", "read")
            return
        if node.attr in self.own and owner in self.classes and not self._member(owner, node.attr):
            return
        parent = node.parent  # type: ignore[attr-defined]
        kind, positional, keywords = "read", 0, ()
        if isinstance(node.ctx, ast.Store):
            kind = "write"
        elif isinstance(parent, ast.Call) and parent.func is node:
            kind, positional = "call", len(parent.args)
            keywords = tuple(keyword.arg or "**" for keyword in parent.keywords)
        if owner in ("tensorrt", "tensorrt.plugin") or owner in self.classes or owner[:1].isupper():
            yield Use(self.file, node.lineno, owner, node.attr, kind, positional, keywords)

    def _member(self, owner: str, name: str) -> bool:
        return any(name in self.classes[owner][part] for part in ("methods", "properties", "values"))

    def _overrides(self, node: ast.ClassDef) -> Iterator[Use]:
        for base in node.bases:
            kind = (self.type_of(base) or "").removeprefix("type:")
            if kind not in self.classes:
                continue
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name in self.classes[kind]["methods"]:
                    names = tuple(argument.arg for argument in item.args.args[1:])
                    if item.name != "__init__":
                        yield Use(self.file, item.lineno, kind, item.name, "override", len(names), names)

    def _guard(self, node: ast.Call) -> Iterator[Use]:
        owner = (self.type_of(node.args[0]) or "").removeprefix("type:")
        if owner and isinstance(node.args[1], ast.Constant):
            yield Use(self.file, node.lineno, owner, node.args[1].value, "read")
