#!/usr/bin/env python3
"""Write down what a TensorRT bindings wheel offers: names, enums and signatures, as JSON for the contract tests.

The wheel is unpacked aside, made importable with link stubs (`make_tensorrt_stub.py`) and read in a fresh
interpreter; TensorRT itself is not needed, nor a GPU. The wheel must be one for the running Python.

Example::

    pip download --no-deps tensorrt-cu13-bindings==11.4.0.106
    python tools/dump_tensorrt_api.py tensorrt_cu13_bindings-11.4.0.106-*.whl -o tests/contracts/tensorrt-11.4.json
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from make_tensorrt_stub import make_stub

# The bindings of 11 spell argument types differently from those of 10; the contract is about names.
_SPELLINGS = (
    (r"tensorrt_bindings\.(tensorrt\.|plugin\.\w+\.)?", ""),
    (r"nv(infer1|onnxparser)::(v_1_0::)?|::(?=EngineCapability)", ""),
    (r"detail::accessor<[\w:]+>", "object"),
    (r"\b(List|Sequence|list)\[", "Sequence["),
    (r"\bTuple\[", "tuple["),
    (r"typing\.Supports(Int|Float)", lambda m: m.group(1).lower()),
    (r"typing_extensions\.Buffer", "buffer"),
    (r"typing_extensions\.CapsuleType", "capsule"),
    (r"collections\.abc\.(\w+)", r"\1"),
    (r"<(\w+\.\w+): -?\d+>", r"\1"),
    (r" at 0x[0-9a-f]+", ""),
)
_SELF = re.compile(r"^\((self|arg0): [\w.:]+(, )?")


def signatures(doc: str | None, name: str, method: bool = True) -> list[str]:
    """The overloads a pybind11 docstring lists, without `self`: "(flags: int = 0) -> INetworkDefinition"."""
    found = []
    for line in (doc or "").splitlines():
        match = re.match(rf"^(?:\d+\. )?{re.escape(name)}(\(.*\) -> .+)$", line.strip())
        if match:
            signature = spelled(match.group(1))
            found.append(_SELF.sub("(", signature) if method else signature)
    return found


def spelled(text: str) -> str:
    """A type or signature with one spelling for every version."""
    for pattern, replacement in _SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def describe_property(value: property) -> str:
    """Its type as "int", or "int, read only", or "write only"."""
    if value.fget is None:
        return "write only"
    doc = value.fget.__doc__ or ""
    kind = spelled(doc.strip().split(" -> ")[-1]) if " -> " in doc else "object"
    return kind if value.fset else f"{kind}, read only"


def describe_class(value: type) -> dict[str, Any]:
    """Base, constructor, methods and properties; of an enum only its members."""
    members = getattr(value, "__members__", None)
    if members is not None:
        return {"members": {name: int(member) for name, member in members.items()}}
    methods: dict[str, list[str]] = {}
    properties: dict[str, str] = {}
    values: dict[str, str] = {}
    for name, attribute in vars(value).items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(attribute, property):
            properties[name] = describe_property(attribute)
        elif isinstance(attribute, type):
            continue  # nested enums appear under their qualified name
        elif hasattr(type(attribute), "__members__"):
            values[name] = type(attribute).__qualname__  # an enum's member, exported into the class around it
        elif callable(attribute) or isinstance(attribute, staticmethod):
            methods[name] = signatures(getattr(value, name).__doc__, name)
    described = {"methods": methods, "properties": properties, "values": values}
    base = value.__mro__[1].__name__
    return {**described, "base": base} if base not in ("object", "pybind11_object") else described


def describe_module(module: Any) -> dict[str, Any]:
    """Everything public of `tensorrt`, but for the layers of the network-building API, which only the parser uses."""
    classes: dict[str, Any] = {}
    functions: dict[str, list[str]] = {}
    values: list[str] = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        if isinstance(value, type):
            if not issubclass(value, module.ILayer) and str(value.__module__).startswith("tensorrt_bindings"):
                classes |= _with_nested(name, value)
        elif callable(value):
            functions[name] = signatures(value.__doc__, name, method=False)
        elif type(value).__name__ == "DataType":
            values.append(name)
    network = classes["INetworkDefinition"]["methods"]
    for name in [name for name in network if name.startswith("add_") and name not in ("add_input", "add_plugin_v3")]:
        del network[name]
    return {"classes": classes, "functions": functions, "values": sorted(values)}


def _with_nested(name: str, value: type) -> dict[str, Any]:
    found = {name: describe_class(value)}
    for inner, attribute in vars(value).items():
        if isinstance(attribute, type) and not inner.startswith("_"):
            found[f"{name}.{inner}"] = describe_class(attribute)
    return found


def describe_plugin(module: Any) -> dict[str, Any]:
    """The public names of `tensorrt.plugin`, which is plain Python: how they are called, what classes have."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value) or not str(value.__module__).startswith("tensorrt_bindings"):
            continue
        try:
            found[name] = {"call": spelled(str(inspect.signature(value)))}
        except (TypeError, ValueError):
            found[name] = {"call": ""}
        if isinstance(value, type):
            found[name]["members"] = sorted(member for member in dir(value) if not member.startswith("_"))
    return found


def dump_here() -> dict[str, Any]:
    """The description of the `tensorrt` that this interpreter imports."""
    import tensorrt

    description = {"version": tensorrt.__version__, **describe_module(tensorrt)}
    try:
        import tensorrt.plugin
    except ImportError:
        return description
    return {**description, "plugin": describe_plugin(tensorrt.plugin)}


def dump_wheel(wheel: Path, compiler: str) -> str:
    """The JSON text for a bindings wheel."""
    with tempfile.TemporaryDirectory() as scratch:
        unpacked, stub = Path(scratch, "wheel"), Path(scratch, "stub")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        make_stub(unpacked / "tensorrt_bindings", stub, compiler=compiler, alias=True, force=False)
        path = os.pathsep.join([str(stub), str(unpacked), *sys.path[1:]])
        dumped = Path(scratch, "api.json")  # standard output is no place: TensorRT logs there
        command = [sys.executable, __file__, "--here", "--output", str(dumped)]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"error: {wheel.name} cannot be read:\n{done.stderr}")
        return dumped.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, nargs="?", help="a tensorrt-cu1x-bindings wheel for this Python")
    parser.add_argument("-o", "--output", type=Path, help="JSON file to write (default: standard output)")
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"), help="C compiler (default: $CC or cc)")
    parser.add_argument("--here", action="store_true", help="describe the TensorRT this Python imports instead")
    args = parser.parse_args()
    if args.here:
        text = json.dumps(dump_here(), indent=1, sort_keys=True) + "\n"
    elif args.wheel:
        text = dump_wheel(args.wheel, args.cc)
    else:
        parser.error("give a wheel, or --here")
    if args.output:
        args.output.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
