"""Table `media`: one row per content, with facts of that content only."""

from __future__ import annotations

from ._table import Column, Rule, Table

VIDEO_STREAM = (
    "struct<stream_index:int, codec:string, profile:string, pixel_format:string, bit_depth:int, color_space:string, "
    "color_range:string, color_primaries:string, color_transfer:string, width_px:int, height_px:int, "
    "sample_aspect_num:int, sample_aspect_den:int, rotation_deg:int, is_mirrored:boolean, time_base_num:int, "
    "time_base_den:int, average_rate:string, nominal_rate:string, is_variable_rate:boolean, frame_count:bigint, "
    "duration_s:double, start_s:double>"
)
AUDIO_STREAM = "struct<stream_index:int, codec:string, sample_rate_hz:int, channel_count:int, duration_s:double>"
DATA_STREAM = "struct<stream_index:int, kind:string, codec:string>"
PICTURE = (
    "struct<width_px:int, height_px:int, mode:string, bit_depth:int, has_alpha:boolean, page_count:int, "
    "is_animated:boolean, exif_orientation:int, icc_profile:string>"
)
POSITION = "struct<latitude_deg:double, longitude_deg:double, altitude_m:double>"

TABLE = Table(
    name="media",
    comment="One row per content (not per file): what the bytes say about themselves.",
    columns=(
        Column(name="media_id", type="string", comment="SHA-256 (hex) of the content", nullable=False),
        Column(name="kind", type="string", comment="video or image"),
        Column(name="size_bytes", type="bigint", comment="length of the content"),
        Column(name="container", type="string", comment="container or image format, lower case: mp4, matroska, jpeg"),
        Column(name="duration_s", type="double", comment="longest video stream's duration; null for a still"),
        Column(name="video_streams", type=f"array<{VIDEO_STREAM}>", comment="every video stream; empty for a still"),
        Column(name="audio_streams", type=f"array<{AUDIO_STREAM}>", comment="every audio stream"),
        Column(name="data_streams", type=f"array<{DATA_STREAM}>", comment="subtitle, data and attachment streams"),
        Column(name="picture", type=PICTURE, comment="a still's facts, size as stored (not turned); null for video"),
        Column(name="captured_local", type="string", comment="capture time as written, ISO 8601 without zone"),
        Column(name="captured_zone", type="string", comment="zone of the capture time, +hh:mm; null if unknown"),
        Column(name="captured_at", type="timestamp", comment="capture instant; null unless the zone is known"),
        Column(name="camera_make", type="string", comment="maker of the camera"),
        Column(name="camera_model", type="string", comment="model of the camera"),
        Column(name="has_position", type="boolean", comment="whether the content carries a GPS position"),
        Column(name="position", type=POSITION, comment="GPS position, kept only with keep_position = true"),
        Column(name="run_id", type="string", comment="run that wrote the row", volatile=True),
    ),
    key=("media_id",),
    rules=(
        Rule(name="media_id_invalid", holds="media_id RLIKE '^[0-9a-f]{64}$'", message="64 hex digits"),
        Rule(name="kind_unknown", holds="kind IN ('video', 'image')", message="video or image"),
        Rule(name="size_not_positive", holds="size_bytes > 0", message="size_bytes > 0"),
        Rule(
            name="nothing_to_see",
            holds="picture IS NOT NULL OR size(video_streams) > 0",
            message="at least one picture or video stream",
        ),
    ),
    cluster_by=("media_id",),
    properties={"delta.dataSkippingStatsColumns": "media_id,kind"},
)
