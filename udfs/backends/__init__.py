"""Model families: a module each, found by its name. It has `describe` and `load`, as `detector_types.Backend` says.

It may have `IMPORTS`, a tuple of names of large modules. The workers of a local session are then forked from a process
that has them, and share their memory: importing them must neither start threads nor ask for a GPU.

It may have `pin(options)`, which is asked once when a run begins. It returns options whose `model`, if what that names
may come to mean another one, is replaced by a name that does not. Raises ModelError.

It may have `licence(options)`, which is asked for a model's licence, once a run, where `describe` does not know it. It
returns None where nothing is known. What it raises is taken for that, too.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import cast

from .._errors import ModelError, first_line
from ..detector_types import Backend


def backend_names() -> tuple[str, ...]:
    """Names of the backends there are, sorted. Imports none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def find_backend(name: str) -> Backend:
    """The backend of that name, or a module of the user's own. Raises ModelError where there is neither."""
    if name in backend_names():
        return cast(Backend, importlib.import_module(f"{__name__}.{name}"))
    there = f"there are: {', '.join(backend_names())}, or the name of a module of your own"
    if not all(part.isidentifier() for part in name.split(".")):
        raise ModelError(f"backend {name!r} is no name of a module; {there}")
    try:
        found = importlib.import_module(name)
    except Exception as error:  # a module of somebody else's may raise anything
        raise ModelError(f"no backend {name!r}; {there} ({type(error).__name__}: {first_line(error)})") from None
    if missing := [part for part in ("describe", "load") if not callable(getattr(found, part, None))]:
        raise ModelError(f"module {name!r} is no backend: it has no function {' and no '.join(missing)}; {there}")
    imports = getattr(found, "IMPORTS", ())
    if not isinstance(imports, tuple) or not all(isinstance(module, str) for module in imports):
        raise ModelError(f"module {name!r}: IMPORTS = {imports!r}; allowed is a tuple of names of modules")
    return cast(Backend, found)
