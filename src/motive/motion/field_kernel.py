"""What is done to every pixel of a motion field, compiled by numba: one pass, nothing kept between steps.

Each number is what NumPy makes of the same terms, bit for bit: single operations, in their order. Pixels
are counted through a flat view, which numba reads in vectors, as it does not through three indices.
"""

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy")


@_compiled
def put_lengths(vectors_n2, lengths_n):  # type: ignore[no-untyped-def]
    """The length of each vector, into `lengths_n`."""
    vectors, lengths = vectors_n2.reshape(-1), lengths_n.reshape(-1)
    for i in range(len(lengths)):
        x, y = vectors[2 * i], vectors[2 * i + 1]
        lengths[i] = np.sqrt(x * x + y * y)


@_compiled
def put_steps(map_33, sign, steps_hw2):  # type: ignore[no-untyped-def]
    """How far the map takes each pixel, times the sign, into `steps_hw2`, float32; the rest is float64."""
    height, width = steps_hw2.shape[:2]
    (xx, xy, x1), (yx, yy, y1), (px, py, p1) = map_33[0], map_33[1], map_33[2]
    flat = px == 0 and py == 0 and p1 == 1
    for y in range(height):
        steps = steps_hw2[y].reshape(-1)
        rest_x, rest_y, rest_depth = xy * y + x1, yy * y + y1, py * y + p1
        for x in range(width):
            depth = 1.0 if flat else px * x + rest_depth
            steps[2 * x] = sign * np.float32((xx * x + rest_x) / depth - x)
            steps[2 * x + 1] = sign * np.float32((yx * x + rest_y) / depth - y)


@_compiled
def put_jerks(velocity_fhw2, jerks_fhw):  # type: ignore[no-untyped-def]
    """The length of the second difference over frames of a velocity, into `jerks_fhw`, two frames fewer."""
    velocity, jerks = velocity_fhw2.reshape(-1), jerks_fhw.reshape(-1)
    frame = 2 * velocity_fhw2.shape[1] * velocity_fhw2.shape[2]
    for i in range(len(jerks)):
        x = 2 * i
        y = x + 1
        along = (velocity[x + 2 * frame] - velocity[x + frame]) - (
            velocity[x + frame] - velocity[x]
        )
        down = (velocity[y + 2 * frame] - velocity[y + frame]) - (velocity[y + frame] - velocity[y])
        jerks[i] = np.sqrt(along * along + down * down)
