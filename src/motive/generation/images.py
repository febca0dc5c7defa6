"""The first frames that image-to-video models begin with: one picture for each prompt."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from motive.errors import UserError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_EXAMPLES = 3


def find_images(folder: Path, prompts: Iterable[str]) -> dict[str, Path]:
    """The picture of each prompt: `PROMPT.png`, `.jpg`, `.jpeg` or `.webp` in `folder`.

    Raises UserError, naming the first ones, when prompts have none.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give --images a folder of PROMPT.png files")
    prompts = list(prompts)
    found: dict[str, Path] = {}
    for prompt in prompts:
        named = (folder / f"{prompt}{suffix}" for suffix in _SUFFIXES)
        if picture := next((file for file in named if file.is_file()), None):
            found[prompt] = picture
    missing = [prompt for prompt in prompts if prompt not in found]
    if missing:
        shown = ", ".join(f"'{prompt[:40]}'" for prompt in missing[:_EXAMPLES])
        raise UserError(
            f"{folder} has no picture for {len(missing)} of {len(prompts)} prompts, such as {shown}: "
            "add PROMPT.png, .jpg, .jpeg or .webp"
        )
    return found


def read_image(path: Path, height: int, width: int) -> Any:
    """A PIL picture, upright, RGB, scaled to cover `height` × `width` with the middle cut out.

    Raises UserError when the file is no picture.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no readable picture ({error}): replace it") from None
    return ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS)
