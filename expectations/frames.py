"""Table `frames`: one row per stored frame of a video, or per still image."""

from __future__ import annotations

from ._table import Check, Column, Rule, Table

TABLE = Table(
    name="frames",
    comment="One row per sampled frame: who it is (content, stream, time), how it looks, and its pixels.",
    columns=(
        Column(name="media_id", type="string", comment="SHA-256 (hex) of the media's content", nullable=False),
        Column(name="stream_index", type="int", comment="stream in the container; 0 for a still", nullable=False),
        Column(name="pts", type="bigint", comment="presentation time in ticks of the time base", nullable=False),
        Column(name="time_base_num", type="int", comment="time base, numerator (seconds per tick)"),
        Column(name="time_base_den", type="int", comment="time base, denominator"),
        Column(name="pts_s", type="double", comment="presentation time in seconds: pts * time base"),
        Column(name="pts_source", type="string", comment="container, or index where the container has no times"),
        Column(name="pts_offset", type="bigint", comment="ticks added to raw times after a backward jump; else 0"),
        Column(name="frame_index", type="bigint", comment="0-based presentation index in the stream; null if unknown"),
        Column(name="is_keyframe", type="boolean", comment="true where decoding can start; true for a still"),
        Column(name="width_px", type="int", comment="width of the stored frame, upright"),
        Column(name="height_px", type="int", comment="height of the stored frame, upright"),
        Column(name="full_width_px", type="int", comment="width of the upright frame before any resizing"),
        Column(name="full_height_px", type="int", comment="height of the upright frame before any resizing"),
        Column(name="image", type="binary", comment="the encoded picture; null with image_format = none"),
        Column(name="image_format", type="string", comment="jpeg, png or webp; null where no picture is stored"),
        Column(name="brightness", type="double", comment="mean luma, 0-255"),
        Column(name="contrast", type="double", comment="standard deviation of luma, 0-127.5"),
        Column(name="sharpness", type="double", comment="variance of the Laplacian of luma"),
        Column(name="phash", type="string", comment="64-bit DCT perceptual hash of luma, 16 hex digits"),
        Column(name="input_version", type="bigint", comment="version of media that this row saw", volatile=True),
    ),
    key=("media_id", "stream_index", "pts"),
    rules=(
        Rule(name="size_not_positive", holds="width_px > 0 AND height_px > 0", message="width_px and height_px > 0"),
        Rule(name="time_base_invalid", holds="time_base_num > 0 AND time_base_den > 0", message="time base > 0"),
        Rule(
            name="time_mismatch",
            holds="abs(pts_s - CAST(pts AS DOUBLE) * time_base_num / time_base_den) < 1e-6 * greatest(1, abs(pts_s))",
            message="pts_s equals pts * time base",
        ),
        Rule(name="measure_out_of_range", holds="brightness BETWEEN 0 AND 255", message="brightness within 0-255"),
        Rule(
            name="image_missing",
            holds="(image IS NULL AND image_format IS NULL) OR length(image) > 0",
            message="a stored picture is not empty",
        ),
    ),
    checks=(
        Check(
            name="pts_strictly_increasing",
            metric="pts_backward_steps",
            maximum=0,
            expected="pts grows with frame_index within every stream",
        ),
        Check(
            name="extracted_count_off_share",
            metric="extracted_count_off_share",
            maximum=0.05,
            severity="warn",
            share=True,
            expected="at most 5 % of media have a frame count far from duration * rate",
        ),
        Check(
            name="black_share",
            metric="avg(CASE WHEN brightness < 4 AND contrast < 4 THEN 1.0 ELSE 0.0 END)",
            maximum=0.2,
            severity="warn",
            share=True,
            expected="at most 20 % of frames are black",
            offending="brightness < 4 AND contrast < 4",
        ),
        Check(
            name="frozen_share",
            metric="frozen_share",
            maximum=0.5,
            severity="warn",
            share=True,
            expected="at most 50 % of frames show the same picture as the frame before",
        ),
    ),
    properties={"delta.dataSkippingStatsColumns": "media_id,stream_index,pts,input_version"},
    cluster_by=("media_id", "stream_index", "pts"),
)
