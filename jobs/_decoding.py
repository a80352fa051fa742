"""Settings of stages that decode media."""

from __future__ import annotations

from visionlake.udfs.frame_types import Limits

from ._stage import StageConfig, setting


class DecodingConfig(StageConfig):
    """The bounds of one decoder, which works on one media or on a part of it."""

    max_pixels: int = setting(89_478_485, gt=0, description="pixels per picture; larger media are refused")
    decoder_memory_mib: int = setting(1024, affects_output=False, gt=0, description="memory of a decoder, plus a frame")
    decoder_stall_s: float = setting(
        60.0, affects_output=False, gt=0, description="a decoder silent for so long is hung"
    )
    decoder_wall_s: float = setting(3600.0, affects_output=False, gt=0, description="time for a media or a part of one")

    def limits(self) -> Limits:
        """The same as the decoder takes them."""
        return Limits(
            memory_mib=self.decoder_memory_mib,
            stall_s=self.decoder_stall_s,
            wall_s=self.decoder_wall_s,
            max_pixels=self.max_pixels,
        )
