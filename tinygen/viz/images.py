"""Images side by side, every source pixel drawn as one sharp square.

The tiles are enlarged by a whole number, put together as one array, and drawn dot for dot: nothing
is resampled, so nothing is blurred. Values are grey levels in [0, 1]. Values outside are clipped, and
NaN is drawn red, so that one sees when a model has diverged.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinygen.viz.style import DPI, MISSING, figure, write_gif

if TYPE_CHECKING:
    from matplotlib.text import Text

# In dots:
TILE = 84  # the least length of a tile's longer side
GAP = 6  # between tiles
MARGIN = 24  # around everything
HEAD = 44  # for a title
CAPTION = 32  # for a line above each tile
NAN = (0.8, 0.1, 0.1)


def image_grid(
    images: np.ndarray,
    shape: tuple[int, ...],
    path: str | Path,
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
) -> None:
    """Draw images (n, ...) in a grid, row by row, as a PNG at `path`.

    shape: of one image, (height, width), or (height, width, 3) in colour. columns: by default about as
    many as rows; the last row need not be full. captions: a few letters above each image.
    Raises ValueError if there is no image, the images have another shape, there are not as many captions,
    or columns < 1; ImportError without matplotlib.
    """
    tiles = _tiles(images, shape, "images")
    if columns is not None and columns < 1:
        raise ValueError(f"a grid needs at least 1 column, not {columns}")
    if captions is not None and len(captions) != len(tiles):
        raise ValueError(f"{len(tiles)} images cannot have {len(captions)} captions")
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    _draw(rows, [], path, title, captions or ())


def image_rows(
    rows: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    path: str | Path,
    *,
    title: str | None = None,
) -> None:
    """Draw one row of images for each entry, its key as the label on its left, as a PNG at `path`.

    For images that belong together column by column: {"original": x, "reconstruction": y}, or the
    steps of a walk. rows: each (n, ...), where n may differ. shape, errors: as in `image_grid`.
    """
    if not rows:
        raise ValueError("there is no row of images to draw")
    tiles = [_tiles(images, shape, f"row {label!r}") for label, images in rows.items()]
    _draw(tiles, list(rows), path, title)


def image_film(
    images: np.ndarray, shape: tuple[int, ...], path: str | Path, *, milliseconds: int = 60
) -> None:
    """Show images (n, ...) one after the other, as an animation (GIF) at `path`, each for `milliseconds`.

    shape, errors: as in `image_grid`.
    """
    tiles = _tiles(images, shape, "images")
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(MISSING) from error
    zoom = math.ceil(2 * TILE / max(tiles.shape[1:3]))
    large = (255 * tiles + 0.5).astype(np.uint8).repeat(zoom, 1).repeat(zoom, 2)
    write_gif([Image.fromarray(tile) for tile in large], path, milliseconds)


def _tiles(images: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """`images` as colours (n, height, width, 3) in [0, 1]."""
    images = np.asarray(images, dtype=np.float32)
    if len(shape) not in (2, 3) or min(shape) < 1 or (len(shape) == 3 and shape[2] != 3):
        raise ValueError(f"an image has shape (height, width) or (height, width, 3), not {shape}")
    if images.ndim < 2 or len(images) == 0 or images[0].size != math.prod(shape):
        raise ValueError(f"{name} of shape {images.shape} are not one or more images {shape}")
    grey = images.reshape(len(images), shape[0], shape[1], -1)
    colours = np.broadcast_to(np.clip(grey, 0, 1), (*grey.shape[:3], 3))
    return np.where(np.isnan(grey).any(-1, keepdims=True), np.float32(NAN), colours)


def _draw(
    rows: list[np.ndarray],
    labels: list[str],
    path: str | Path,
    title: str | None,
    captions: Sequence[str] = (),
) -> None:
    height, width = rows[0].shape[1:3]
    zoom = math.ceil(TILE / max(height, width))
    above = CAPTION if captions else 0
    # From one tile to the next.
    down, across = height * zoom + GAP + above, width * zoom + GAP
    columns = max(map(len, rows))
    mosaic = np.ones((len(rows) * down - GAP, columns * across - GAP, 3), np.float32)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            corner = mosaic[i * down + above :, j * across :]
            corner[: height * zoom, : width * zoom] = tile.repeat(zoom, 0).repeat(zoom, 1)

    with figure(path) as drawing:
        # The texts are measured, so that no label is cut off.
        side = [drawing.text(0, 0, label, ha="right", va="center") for label in labels]
        head = drawing.text(0, 0, title, ha="left", va="center", fontsize=11) if title else None
        left = MARGIN + max((_width(text) + 2 * GAP for text in side), default=0)
        top = MARGIN + (HEAD if head else 0)
        total_width = left + mosaic.shape[1] + MARGIN
        total_height = top + mosaic.shape[0] + MARGIN
        if head:
            total_width = max(total_width, 2 * MARGIN + _width(head))
            head.set_position((MARGIN / total_width, 1 - (top - HEAD / 2) / total_height))
        for i, text in enumerate(side):
            middle = top + i * down + height * zoom / 2
            text.set_position(((left - 2 * GAP) / total_width, 1 - middle / total_height))
        for k, caption in enumerate(captions):
            i, j = divmod(k, columns)
            x = left + j * across + width * zoom / 2
            y = top + i * down + above / 2
            drawing.text(x / total_width, 1 - y / total_height, caption, ha="center", va="center")
        # Half a dot more, because matplotlib rounds down to whole ones.
        drawing.set_size_inches((total_width + 0.5) / DPI, (total_height + 0.5) / DPI)
        drawing.figimage(mosaic, xo=left, yo=MARGIN)


def _width(text: "Text") -> int:
    return math.ceil(text.get_window_extent().width)
