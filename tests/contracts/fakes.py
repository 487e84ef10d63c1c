"""Strict fakes of `tensorrt`: only the names of a dumped version exist, and every call's arguments are checked.

    with fake_tensorrt("10.16") as trt:                      # sys.modules["tensorrt"] is the fake
        ...                                                  # code under test imports tensorrt
        assert "Builder.create_network" in trt.calls

What a healthy TensorRT does stands in `healthy.py`. A test injects a fault by overriding one behaviour, which gets
the object and the call's arguments in declared order:

    with fake_tensorrt("11.4", {"Runtime.deserialize_cuda_engine": lambda runtime, plan: None}): ...

After the code under test is done, `trt.alive()` counts the objects that were not released.
"""

from __future__ import annotations

import ast
import gc
import sys
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from contracts.api import VERSIONS, Signature, dump

__all__ = ["VERSIONS", "FakeTensorrt", "Signature", "dump", "fake_tensorrt"]

Behaviour = Callable[..., Any]


class FakeTensorrt(types.ModuleType):
    """The module: classes and enums of the dump, what was called, and what is still alive."""

    def __init__(self, version: str, overrides: Mapping[str, Behaviour] | None = None) -> None:
        super().__init__("tensorrt")
        from contracts.healthy import BEHAVIOURS

        api = dump(version)
        self.__version__ = api["version"]
        self.api = api
        self.calls: list[str] = []
        """Every call and every assignment in order: "Builder.create_network", "IBuilderConfig.progress_monitor="."""
        self.arguments: dict[str, list[dict[str, Any]]] = {}
        """The arguments of every call, by its name."""
        self.creators: set[tuple[str, str, str]] = set()
        """The plugin registry: (name, version, namespace)."""
        self.behaviours = {**BEHAVIOURS, **(overrides or {})}
        self.objects: weakref.WeakSet[Any] = weakref.WeakSet()
        for name in [name for name in api["classes"] if "." not in name]:
            self._add_class(name)
        self._add_nested_enums()
        for name, overloads in api["functions"].items():
            setattr(self, name, _function(self, name, [Signature.parse(text) for text in overloads]))
        for name in api["values"]:
            setattr(self, name, getattr(self.DataType, name.upper(), None) or getattr(self.DataType, _LONG[name]))

    def create(self, kind: str, **state: Any) -> Any:
        """An object the bindings make themselves, such as an `INetworkDefinition`."""
        cls = getattr(self, kind)
        made = cls.__new__(cls)
        _Object.__init__(made)
        made.state.__dict__.update(state)
        return made

    def alive(self) -> dict[str, int]:
        """How many objects of each class were not released; what the process keeps for good does not count."""
        gc.collect()
        kept = Counter(_public_name(type(made)) for made in list(self.objects))
        values = ("Dims", "IPluginRegistry", "Logger", "ILogger")
        return {name: count for name, count in kept.items() if name not in values}

    def _add_class(self, name: str) -> None:
        description = self.api["classes"][name]
        if "members" in description:
            setattr(self, name, _enum(name, description["members"]))
            return
        base = description.get("base", "")
        if base and not hasattr(self, base):
            self._add_class(base)
        if not hasattr(self, name):
            setattr(self, name, _class(self, name, description, getattr(self, base, _Object)))

    def _add_nested_enums(self) -> None:
        """`ILogger.Severity`, and its members as `Logger.WARNING`."""
        nested = {name: description for name, description in self.api["classes"].items() if "." in name}
        made = {name.split(".")[1]: description["members"] for name, description in nested.items()}
        enums = {short: _enum(short, members) for short, members in made.items()}
        for name in nested:
            owner, short = name.split(".")
            setattr(getattr(self, owner), short, enums[short])
        for name, description in self.api["classes"].items():
            for value, enum in description.get("values", {}).items():
                setattr(getattr(self, name), value, getattr(enums[enum.split(".")[1]], value))


_LONG = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16"}


@contextmanager
def fake_tensorrt(version: str = "10.16", overrides: Mapping[str, Behaviour] | None = None) -> Iterator[FakeTensorrt]:
    """Install a fake `tensorrt` in `sys.modules` for the block.

    `version` is one of `VERSIONS`; `overrides` replace behaviours by "Class.method".
    """
    hidden = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "tensorrt"}
    for name in hidden:
        del sys.modules[name]
    trt = FakeTensorrt(version, overrides)
    sys.modules["tensorrt"] = trt
    gc.freeze()  # `alive` collects often: what was there before is none of its business
    try:
        yield trt
    finally:
        gc.unfreeze()
        for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
            del sys.modules[name]
        sys.modules.update(hidden)


class _Object:
    """Base of every fake object: state of the behaviours, and nothing but the dumped names."""

    _trt: FakeTensorrt
    _properties: Mapping[str, str]

    def __init__(self) -> None:
        object.__setattr__(self, "state", types.SimpleNamespace(trt=self._trt))
        self._trt.objects.add(self)

    def __setattr__(self, name: str, value: Any) -> None:
        kind = next((c._properties[name] for c in type(self).__mro__ if name in getattr(c, "_properties", {})), None)
        if kind is None:
            if type(self).__module__ == "tensorrt":
                raise AttributeError(f"'{_public_name(type(self))}' object has no attribute '{name}'")
            return object.__setattr__(self, name, value)  # a subclass in Python has a __dict__ of its own
        full = f"{_public_name(type(self))}.{name}"
        if kind.endswith("read only"):
            raise AttributeError(f"property '{full}' has no setter")
        if kind != "write only" and not _fits(self._trt, value, kind):
            raise TypeError(f"{full} takes {kind}, got {value!r}")
        _record(self._trt, f"{full}=", {"value": value})
        # TensorRT holds no Python reference to callbacks: whoever sets one must keep it.
        callback = isinstance(value, _Object) and kind in ("IProgressMonitor", "IProfiler", "IErrorRecorder")
        setattr(self.state, name, weakref.ref(value) if callback else value)


@dataclass
class _Enum:
    """A pybind11 enum's member: an `int()` of its own, but no integer (`1 << flag` fails)."""

    name: str
    value: int
    owner: str = field(repr=False)

    def __int__(self) -> int:
        return self.value

    def __hash__(self) -> int:
        return hash((self.owner, self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Enum) and (self.owner, self.value) == (other.owner, other.value)


def _enum(name: str, members: Mapping[str, int]) -> type:
    made = type(name, (_Enum,), {"__module__": "tensorrt", "__hash__": _Enum.__hash__})
    values = {member: made(member, value, name) for member, value in members.items()}
    for member, value in values.items():
        setattr(made, member, value)
    made.__members__ = values  # type: ignore[attr-defined]
    return made


def _class(trt: FakeTensorrt, name: str, description: Mapping[str, Any], base: type) -> type:
    buffer = (bytearray,) if name == "IHostMemory" else ()
    sequence = (list,) if name == "Dims" else ()
    namespace: dict[str, Any] = {"__module__": "tensorrt", "_trt": trt, "_properties": description["properties"]}
    if buffer or sequence:
        namespace["__hash__"] = object.__hash__
    for method, overloads in description["methods"].items():
        signatures = [Signature.parse(text) for text in overloads]
        make = _constructor if method == "__init__" else _method
        namespace[method] = make(trt, f"{name}.{method}", signatures)
    for attribute in description["properties"]:
        namespace[attribute] = _getter(trt, name, attribute)
    return type(name, (base, *buffer, *sequence), namespace)


def _constructor(trt: FakeTensorrt, full: str, signatures: list[Signature]) -> Behaviour:
    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        if not signatures:
            raise TypeError(f"tensorrt.{full}: No constructor defined!")
        given = _bind(trt, full, signatures, args, kwargs)
        _Object.__init__(self)
        _record(trt, full, given)
        behaviour = trt.behaviours.get(full)
        if behaviour is not None:
            behaviour(self, *given.values())

    return construct


def _method(trt: FakeTensorrt, full: str, signatures: list[Signature]) -> Behaviour:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = _bind(trt, full, signatures, args, kwargs)
        _record(trt, full, given)
        return _answer(trt, full, signatures, self, given)

    return method


def _function(trt: FakeTensorrt, name: str, signatures: list[Signature]) -> Behaviour:
    def function(*args: Any, **kwargs: Any) -> Any:
        given = _bind(trt, name, signatures, args, kwargs) if signatures else dict(enumerate(args))
        _record(trt, name, given)
        return _answer(trt, name, signatures, trt, given)

    return function


def _getter(trt: FakeTensorrt, owner: str, name: str) -> property:
    full = f"{owner}.{name}"

    def read(self: Any) -> Any:
        value = getattr(self.state, name, None)
        if value is not None:
            return value() if isinstance(value, weakref.ref) else value
        behaviour = trt.behaviours.get(full)
        return behaviour(self) if behaviour is not None else None

    return property(read)  # writing goes through `_Object.__setattr__`


def _answer(trt: FakeTensorrt, full: str, signatures: list[Signature], self: Any, given: Mapping[str, Any]) -> Any:
    behaviour = trt.behaviours.get(full)
    if behaviour is not None:
        return behaviour(self, *given.values())
    returns = signatures[0].returns
    if returns == "None":
        return None
    if returns == "bool":
        return True
    raise NotImplementedError(f"{full} -> {returns}: give the fake a behaviour")


def _record(trt: FakeTensorrt, full: str, given: Mapping[str, Any]) -> None:
    trt.calls.append(full)
    kept = {name: weakref.ref(v) if isinstance(v, _Object) else v for name, v in given.items()}
    trt.arguments.setdefault(full, []).append(kept)


def _bind(trt: FakeTensorrt, full: str, signatures: list[Signature], args: Any, kwargs: Any) -> dict[str, Any]:
    """The call's arguments by name, for the first overload they fit, as pybind11 chooses."""
    for signature in signatures:
        names = [parameter.name for parameter in signature.parameters]
        given = dict(zip(names, args, strict=False))
        if len(args) > len(names) or kwargs.keys() - set(names) or kwargs.keys() & given.keys():
            continue
        given |= kwargs
        if any(p.name not in given and p.default is None for p in signature.parameters):
            continue
        if all(_fits(trt, given[p.name], p.type, p.default) for p in signature.parameters if p.name in given):
            return {p.name: given.get(p.name, _default(trt, p.default)) for p in signature.parameters}
    wanted = " or ".join(f"({', '.join(f'{p.name}: {p.type}' for p in s.parameters)})" for s in signatures)
    shown = ", ".join([*(type(a).__name__ for a in args), *(f"{k}={type(v).__name__}" for k, v in kwargs.items())])
    raise TypeError(f"{full}(): incompatible function arguments: takes {wanted}, got ({shown})")


def _default(trt: FakeTensorrt, text: str | None) -> Any:
    try:
        return ast.literal_eval(text or "None")
    except ValueError:
        owner, _, member = (text or "").rpartition(".")
        return getattr(getattr(trt, owner, trt.ILogger.Severity), member)


_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "buffer": (bytes, bytearray, memoryview),
    "bytes": (bytes,),
    "tuple": (tuple,),
    "list": (list,),
    "object": (object,),
    "capsule": (object,),
}


def _fits(trt: FakeTensorrt, value: Any, kind: str, default: str | None = None) -> bool:
    if kind in _PLAIN:
        fits = isinstance(value, _PLAIN[kind]) and (
            kind in ("bool", "object", "capsule") or not isinstance(value, bool)
        )
        return fits or (value is None and default == "None")
    if kind == "Dims":
        return isinstance(value, (tuple, list)) and all(isinstance(size, int) for size in value)
    if kind.startswith(("Sequence[", "Iterable", "tuple[")):
        return isinstance(value, (list, tuple))
    owner, _, short = kind.partition(".")
    cls = getattr(trt, owner, None) or getattr(trt, owner.removeprefix("I"))
    cls = getattr(cls, short) if short else cls
    if value is None:
        return default == "None"
    # An object whose subclass forgot the base constructor has no state: pybind11 refuses it, too.
    return isinstance(value, cls) and (isinstance(value, _Enum) or hasattr(value, "state"))


def _public_name(cls: type) -> str:
    return next(base.__name__ for base in cls.__mro__ if base.__module__ == "tensorrt")
