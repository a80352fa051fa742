"""Section `[ontology]`: the labels of a project, for all models of a pipeline or, below a model's section, for one."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from visionlake.udfs.ontology import COCO, Ontology

from ._stage import Settings, setting


class OntologySection(Settings):
    """Classes in the order of their ids, other names of theirs, and labels that are left out."""

    classes: tuple[str, ...] | Literal["coco"] = setting(
        "coco", affects_output=False, min_length=1, description="names; ids are their places, from 0"
    )
    aliases: dict[str, str] = setting({}, affects_output=False, description="label of a model -> class")
    drop: tuple[str, ...] = setting((), affects_output=False, description="labels of models to leave out")

    @model_validator(mode="after")
    def _check(self) -> Self:
        classes = self.ontology().classes
        if twice := sorted({name for name in classes if classes.count(name) > 1}):
            raise ValueError(f"classes: {', '.join(twice)} is there twice")
        if lost := sorted({name for name in self.aliases.values() if name not in classes}):
            raise ValueError(f"aliases: {', '.join(lost)} is none of the classes; an alias stands for one of them")
        if both := sorted({*self.drop} & {*self.aliases}):
            raise ValueError(f"drop: {', '.join(both)} is in aliases as well; leave one of them out")
        return self

    def ontology(self) -> Ontology:
        """The section as models take it."""
        classes = COCO if self.classes == "coco" else self.classes
        return Ontology(classes=classes, aliases=tuple(sorted(self.aliases.items())), drop=tuple(sorted(self.drop)))
