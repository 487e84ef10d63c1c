#!/usr/bin/env python3
"""Build link stubs that make the TensorRT Python bindings importable without TensorRT.

The ``tensorrt-cu1x-bindings`` wheels contain the compiled extension module
(``tensorrt_bindings/tensorrt.so``) but not the libraries it is linked against
(``libnvinfer``, ``libnvinfer_plugin``, ``libnvonnxparser``), so ``import`` fails on
machines where TensorRT itself is not installed.  This script reads the extension's
dynamic section, finds the C entry points that nothing else on the system provides and
compiles one tiny shared library per missing dependency in which every entry point
returns zero.

Classes, enums, properties and docstrings of the bindings can then be inspected, which is
all that an API contract test needs.  Nothing that requires the real library works:
factories such as ``tensorrt.Builder`` raise ``TypeError`` because they receive a null
pointer.

The output directory is meant to be put on ``PYTHONPATH`` (or ``sys.path``); it receives

* ``tensorrt_libs/``  the stub libraries plus an ``__init__.py`` that loads them.  The
  bindings import a package of that name before they load their extension module, so
  neither ``LD_LIBRARY_PATH`` nor root access is needed.  ``tensorrt_libs.IS_STUB`` is
  true, so that a test can tell the stub from the real thing.
* ``tensorrt/``  the public module name, re-exporting ``tensorrt_bindings`` (skipped with
  ``--no-alias``).

Needs a C compiler and binutils (``readelf``, ``nm``).

Example::

    python make_tensorrt_stub.py --out build/trt-stub
    PYTHONPATH=build/trt-stub python -c "import tensorrt; print(tensorrt.__version__)"
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ctypes.util
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

STUBBED = re.compile(r"^libnv(infer|onnxparser)[\w]*\.so(\.\d+)*$")

LIBS_INIT = '''\
"""Link stubs for the TensorRT Python bindings. Not TensorRT: see IS_STUB."""
import ctypes as _ctypes
from pathlib import Path as _Path

IS_STUB = True

for _name in {libraries!r}:
    _ctypes.CDLL(str(_Path(__file__).with_name(_name)), mode=_ctypes.RTLD_GLOBAL)
'''

ALIAS_INIT = '''\
"""Public name of the bindings, as installed by the TensorRT front-end package."""
from {package} import *
from {package} import __version__
'''

ALIAS_PLUGIN_INIT = """\
from {package}.plugin import *
"""


class StubError(RuntimeError):
    """The stubs cannot be built."""


def find_bindings(package: str) -> Path:
    """Return the directory of the installed bindings package without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise StubError(f"package {package!r} is not installed in {sys.executable}")
    return Path(next(iter(spec.submodule_search_locations)))


def find_extension(package_dir: Path) -> Path:
    """Return the compiled extension module inside the bindings package."""
    found = sorted(package_dir.glob("tensorrt*.so"))
    if len(found) != 1:
        raise StubError(f"expected one tensorrt*.so in {package_dir}, found {len(found)}")
    return found[0]


def run(*command: str) -> str:
    """Run a tool and return its output."""
    if shutil.which(command[0]) is None:
        raise StubError(f"{command[0]!r} not found on PATH")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StubError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def needed_libraries(extension: Path) -> list[str]:
    """Sonames of the TensorRT libraries the extension is linked against."""
    out = run("readelf", "-dW", str(extension))
    names = re.findall(r"\(NEEDED\).*\[(.+?)\]", out)
    return [name for name in names if STUBBED.match(name)]


def system_symbols() -> list[ctypes.CDLL]:
    """Handles on everything that is available without TensorRT."""
    handles = [ctypes.CDLL(None)]
    for name in ("libdl.so.2", "libm.so.6", "libpthread.so.0", "libgcc_s.so.1", "libstdc++.so.6"):
        with contextlib.suppress(OSError):
            handles.append(ctypes.CDLL(name))
    return handles


def missing_symbols(extension: Path) -> list[str]:
    """Strong undefined symbols of the extension that no system library provides."""
    handles = system_symbols()
    missing = []
    for line in run("nm", "-D", "--undefined-only", str(extension)).splitlines():
        kind, _, name = line.strip().partition(" ")
        if kind != "U" or "@" in name:  # weak, or versioned and so provided by libc/libstdc++
            continue
        if not any(hasattr(handle, name) for handle in handles):
            missing.append(name)
    return sorted(missing)


def library_for(symbol: str, libraries: list[str]) -> str:
    """Choose the stub library that defines ``symbol``."""
    if "NvOnnx" in symbol:
        prefix = "libnvonnxparser"
    elif "Plugins" in symbol:
        prefix = "libnvinfer_plugin"
    else:
        prefix = "libnvinfer.so"
    return next((name for name in libraries if name.startswith(prefix)), libraries[0])


def compile_stub(compiler: str, soname: str, symbols: list[str], target: Path) -> None:
    """Compile a shared library in which each symbol is a function returning zero."""
    source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in symbols)
    with tempfile.TemporaryDirectory() as scratch:
        c_file = Path(scratch, "stub.c")
        c_file.write_text(source or "typedef int empty;\n")
        run(compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(target), str(c_file))


def refuse_real_tensorrt(libraries: list[str], out: Path) -> None:
    """Raise if a real TensorRT would be hidden by the stubs."""
    spec = importlib.util.find_spec("tensorrt_libs")
    if spec is not None and spec.origin and not Path(spec.origin).is_relative_to(out):
        raise StubError(f"real TensorRT libraries are installed at {spec.origin}")
    for name in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        raise StubError(f"{name} can be loaded already")


def make_stub(package_dir: Path, out: Path, *, compiler: str, alias: bool, force: bool) -> list[str]:
    """Write the stub tree and return the symbols it defines."""
    extension = find_extension(package_dir)
    libraries = needed_libraries(extension)
    if not libraries:
        raise StubError(f"{extension} is not linked against TensorRT")
    if not force:
        refuse_real_tensorrt(libraries, out)
    symbols = missing_symbols(extension)

    libs_dir = out / "tensorrt_libs"
    shutil.rmtree(libs_dir, ignore_errors=True)
    libs_dir.mkdir(parents=True)
    for soname in libraries:
        mine = [name for name in symbols if library_for(name, libraries) == soname]
        compile_stub(compiler, soname, mine, libs_dir / soname)
    (libs_dir / "__init__.py").write_text(LIBS_INIT.format(libraries=libraries))

    if alias:
        alias_dir = out / "tensorrt"
        shutil.rmtree(alias_dir, ignore_errors=True)
        alias_dir.mkdir()
        (alias_dir / "__init__.py").write_text(ALIAS_INIT.format(package=package_dir.name))
        if (package_dir / "plugin").is_dir():
            (alias_dir / "plugin").mkdir()
            plugin_init = ALIAS_PLUGIN_INIT.format(package=package_dir.name)
            (alias_dir / "plugin" / "__init__.py").write_text(plugin_init)
    return symbols


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to create the stub tree in")
    parser.add_argument(
        "--package", default="tensorrt_bindings", help="installed bindings package (default: %(default)s)"
    )
    parser.add_argument(
        "--package-dir", type=Path, help="directory of an unpacked bindings package instead of an installed one"
    )
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"), help="C compiler (default: $CC or cc)")
    parser.add_argument("--no-alias", action="store_true", help="do not write the 'tensorrt' alias package")
    parser.add_argument("--force", action="store_true", help="build even if a real TensorRT is present")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    out = args.out.resolve()
    try:
        package_dir = args.package_dir.resolve() if args.package_dir else find_bindings(args.package)
        symbols = make_stub(package_dir, out, compiler=args.cc, alias=not args.no_alias, force=args.force)
    except StubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{out}: {len(symbols)} symbols stubbed ({', '.join(symbols)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
