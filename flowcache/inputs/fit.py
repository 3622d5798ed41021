"""How a picture comes to a size: cut, bordered or stretched, always by bicubic resampling."""

from typing import Literal

from PIL import Image, ImageOps

Fit = Literal["crop", "pad", "stretch"]


def fitted(image: Image.Image, width: int, height: int, fit: Fit) -> Image.Image:
    """crop: around its centre to whole pixels in the wanted shape, then to size, as SkyReels-V2 does (`resizecrop` of
    image2video_pipeline.py). pad: whole, between black borders. stretch: whole, whatever its shape, as MAGI-1 does
    (`ffmpeg_i2v` of video_process.py; libswscale's bicubic filter is slightly sharper).
    """
    if fit == "pad":
        return ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC, "black")
    box = _middle(*image.size, width, height) if fit == "crop" else None
    return (image.crop(box) if box else image).resize((width, height), Image.Resampling.BICUBIC)


def _middle(has_width: int, has_height: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is kept."""
    keep_width, keep_height = has_width, has_height
    if has_height / has_width > height / width:
        keep_height = max(int(has_width * height / width), 1)
    else:
        keep_width = max(int(has_height * width / height), 1)
    left, top = (has_width - keep_width) / 2, (has_height - keep_height) / 2
    return round(left), round(top), round(left + keep_width), round(top + keep_height)
