"""Table `exports`: data sets that were handed over, and what each was made of."""

from __future__ import annotations

from . import detections
from ._table import Check, Column, Rule, Table

TABLE = Table(
    name="exports",
    comment="The newest data set of each export. Its files, with their digests, are in export_files.",
    columns=(
        Column(name="export", type="string", comment="section: [export_dataset.<export>]", nullable=False),
        Column(name="uri", type="string", comment="folder of the data set; it holds _SUCCESS once it is whole"),
        Column(name="format", type="string", comment="coco, yolo, voc, ..."),
        Column(name="task", type="string", comment="detection or segmentation"),
        Column(
            name="splits",
            type="array<struct<split: string, frames: bigint, objects: bigint>>",
            comment="splits that it has, and what is in each",
        ),
        Column(
            name="classes",
            type="array<struct<id: int, label: string, objects: bigint>>",
            comment="classes with their ids, and how many objects each has",
        ),
        Column(name="frames", type="bigint", comment="frames in it"),
        Column(name="objects", type="bigint", comment="objects in it"),
        Column(
            name="labelled_by",
            type="array<struct<labels: string, frames: bigint>>",
            comment="sources of annotations and models, and how many frames have the labels of each",
        ),
        Column(name="settings", type="string", comment="settings that shape it, JSON"),
        Column(name="pins", type="map<string, bigint>", comment="Delta versions of the tables that it was made of"),
        *detections.TABLE.pick("run_id"),
    ),
    key=("export",),
    rules=(Rule(name="uri_missing", holds="length(uri) > 0", message="a folder"),),
    checks=(
        Check(name="frames_exported", metric="sum(frames)", minimum=1, expected="at least one frame to hand over"),
        Check(
            name="objects_exported",
            metric="sum(objects)",
            minimum=1,
            severity="warn",
            expected="at least one object to hand over",
        ),
    ),
)
