"""Python's side of the JVM: what a name stands for there is asked once.

Each `F.col("x")` asks the JVM what `functions` is, and then what its `col` is. Where a name is part of a longer one, or
of several packages that were imported, Java looks for it in all of Spark's archives. That is a third of the calls of a
run, and several seconds of one that starts cold.
"""

from __future__ import annotations

from typing import Any

from py4j.java_gateway import JavaClass, JavaMember, JavaPackage, JVMView


def remember_names() -> None:
    """Let packages, classes and their methods stay known once they were found; values of fields are asked each time.

    It holds for all gateways of this process. Calling it again changes nothing.
    """
    for owner in (JVMView, JavaPackage, JavaClass):
        if not hasattr(owner.__getattr__, "_is_remembering"):
            owner.__getattr__ = _remembering(owner.__getattr__)


def _remembering(ask: Any) -> Any:
    def __getattr__(self: Any, name: str) -> Any:
        found = ask(self, name)
        # What is no class is a package to py4j, even where no jar has such a thing yet. Packages are in lower case.
        if isinstance(found, (JavaClass, JavaMember)) or (isinstance(found, JavaPackage) and name.islower()):
            self.__dict__[name] = found
        return found

    __getattr__._is_remembering = True  # pyright: ignore[reportFunctionMemberAccess] -- a mark for the second call
    return __getattr__
