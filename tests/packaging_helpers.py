"""What tests of the package's forms share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def load_script(name: str) -> ModuleType:
    """A module of scripts/, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write_foreign_folders(folder: Path) -> None:
    """Packages in `folder` with our folders' names, as another project may have; importing one fails."""
    for name in ("jobs", "udfs", "expectations"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError('a foreign package was imported')\n")
