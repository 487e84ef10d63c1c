"""Fakes of `cuda.bindings.driver` and `cuda.bindings.nvrtc`: argument types are checked, calls are recorded.

The signatures are those of cuda-bindings 12.9 and 13.5; like theirs a call answers `(status, *results)`.
"""

from __future__ import annotations

import ctypes
import enum
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

Status = enum.IntEnum("Status", {"SUCCESS": 0, "NVRTC_ERROR_COMPILATION": 6, "CUDA_ERROR_NO_DEVICE": 100})
Attribute = enum.IntEnum(
    "Attribute",
    {"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR": 75, "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR": 76},
)


class Handle:
    def __init__(self, value: int) -> None:
        self.value = value

    def __int__(self) -> int:
        return self.value


class Device(Handle): ...


class Context(Handle): ...


class Module(Handle): ...


@dataclass(frozen=True)
class Function:
    module: Module
    name: bytes


class Program(Handle): ...


class Cuda:
    """Both fakes: what was called, and what they shall answer."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.status: dict[str, Status] = {}
        """Function -> the status it shall answer, success where absent."""
        self.missing: dict[str, str] = {}
        """"cu" or "nvrtc", whose library shall be missing -> what the bindings say at the first call."""
        self.version = (13, 0)
        self.driver = 13020
        self.capability = {75: 8, 76: 7}
        self.context = 0
        self.texts = {
            "PTX": b"//\n.version 9.5\n.target sm_75\n\0",
            "CUBIN": b"\x7fELF",
            "ProgramLog": b"\n  trilinear.cu(9): error: first\n trilinear.cu(10): error: second\n\0",
        }

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def arguments(self, name: str) -> tuple[Any, ...]:
        """The arguments of the only call of this function."""
        (found,) = [arguments for called, arguments in self.calls if called == name]
        return found

    def functions(self) -> dict[str, tuple[tuple[type, ...], Callable[..., tuple[Any, ...]]]]:
        """Function -> types of its arguments, and its results."""
        table: dict[str, tuple[tuple[type, ...], Callable[..., tuple[Any, ...]]]] = {
            "cuInit": ((int,), lambda flags: ()),
            "cuCtxGetCurrent": ((), lambda: (Context(self.context),)),
            "cuDeviceGet": ((int,), lambda ordinal: (Device(ordinal),)),
            "cuDevicePrimaryCtxRetain": ((Device,), lambda device: (Context(0xC0),)),
            "cuCtxSetCurrent": ((Context,), self._set_context),
            "cuCtxGetDevice": ((), lambda: (Device(0),)),
            "cuDeviceGetAttribute": ((Attribute, Device), lambda attribute, device: (self.capability[attribute],)),
            "cuDriverGetVersion": ((), lambda: (self.driver,)),
            "cuModuleLoadData": ((bytes,), lambda image: (Module(self.context + 1),)),
            "cuModuleGetFunction": ((Module, bytes), lambda module, name: (Function(module, name),)),
            "cuLaunchKernel": ((Function, *[int] * 8, tuple, int), _launch),
            "nvrtcVersion": ((), lambda: self.version),
            "nvrtcCreateProgram": ((bytes, bytes, int, list, list), lambda *_: (Program(1),)),
            "nvrtcCompileProgram": ((Program, int, list), lambda *_: ()),
            "nvrtcDestroyProgram": ((Program,), lambda program: ()),
        }
        for what, text in self.texts.items():
            table[f"nvrtcGet{what}Size"] = ((Program,), lambda program, text=text: (len(text),))
            table[f"nvrtcGet{what}"] = ((Program, bytes), lambda program, target, text=text: _write(target, text))
        return table

    def call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        for library, message in self.missing.items():
            if name.startswith(library):
                raise RuntimeError(message)
        expected, results = self.functions()[name]
        assert len(arguments) == len(expected), f"{name} takes {len(expected)} arguments"
        for argument, kind in zip(arguments, expected, strict=True):
            assert isinstance(argument, kind), f"{name}: {argument!r} is no {kind.__name__}"
        self.calls.append((name, arguments))
        status = self.status.get(name, Status.SUCCESS)
        return (status, *results(*arguments)) if status == Status.SUCCESS else (status,)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for `cuda.bindings` for one test."""
        modules = {
            name: types.ModuleType(name)
            for name in ("cuda", "cuda.bindings", "cuda.bindings.driver", "cuda.bindings.nvrtc")
        }
        for name in self.functions():
            home = modules["cuda.bindings.nvrtc" if name.startswith("nvrtc") else "cuda.bindings.driver"]
            setattr(home, name, lambda *arguments, name=name: self.call(name, *arguments))
        modules["cuda.bindings.driver"].CUdevice_attribute = Attribute
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def _set_context(self, context: Context) -> tuple[Any, ...]:
        self.context = int(context)
        return ()


def _launch(function: Function, *rest: Any) -> tuple[Any, ...]:
    values, kinds = rest[8]
    for value, kind in zip(values, kinds, strict=True):
        kind(value)  # ctypes refuses another Python type
    return ()


def _write(target: bytes, text: bytes) -> tuple[Any, ...]:
    """NVRTC writes into the caller's bytes; so does this."""
    assert len(target) == len(text)
    ctypes.memmove(ctypes.c_char_p(target), text, len(text))
    return ()
