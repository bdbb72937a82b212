"""Pictures for slides, as PNG files, and films, as GIF files: images in a grid, images in rows, curves,
points, densities, and GANs at play.

matplotlib is imported only when a picture is drawn, and without pyplot: no window, no backend to
choose, no figure left behind in a global list.
"""

from tinygen.viz.curves import curves
from tinygen.viz.density import density_map
from tinygen.viz.games import line_game, plane_game
from tinygen.viz.images import image_film, image_grid, image_rows
from tinygen.viz.scatter import Box, scatter, square_around

__all__ = [
    "Box",
    "curves",
    "density_map",
    "image_film",
    "image_grid",
    "image_rows",
    "line_game",
    "plane_game",
    "scatter",
    "square_around",
]
