"""How clips look: drawn independently of the motion, drawn as the labels say."""

from dataclasses import replace

import numpy as np
import pytest

from motive.zoo.appearance import (
    BACKGROUNDS,
    COLORS,
    DISTRACTOR_LIGHT,
    SCENE_COLORS,
    SHAPES,
    TEXTURES,
    Appearance,
    Distractor,
    draw_appearance,
    inside_shape,
    object_color,
    scene_color,
)
from motive.zoo.motions import CAMERAS, KINDS
from motive.zoo.scene import draw_scene

LOOK = Appearance("square", "halves", "red", "white", "plain", "blue", 10.0, 0.0, ())


def test_the_look_does_not_depend_on_kind_length_or_camera() -> None:
    for index in range(5):
        looks = {
            repr(draw_scene(kind, frames, seed=4, index=index, camera=camera).look)
            for kind in KINDS
            for frames in (9, 33)
            for camera in (None, *CAMERAS)
        }
        assert len(looks) == 1
    assert len({repr(draw_scene("slide", 9, seed=4, index=i).look) for i in range(5)}) == 5
    assert (
        draw_scene("slide", 9, seed=5, index=0).look != draw_scene("slide", 9, seed=4, index=0).look
    )


def test_every_look_occurs_and_the_object_differs_from_its_background() -> None:
    looks = [draw_appearance(np.random.default_rng(i), 64) for i in range(400)]
    assert {x.shape for x in looks} == set(SHAPES)
    assert {x.texture for x in looks} == set(TEXTURES)
    assert {x.background for x in looks} == set(BACKGROUNDS)
    assert {x.color for x in looks} == {x.background_color for x in looks} == set(COLORS)
    assert {len(x.distractors) for x in looks} == {0, 1, 2, 3}
    for look in looks:
        assert len({look.color, look.color2, look.background_color}) == 3
        assert 9 <= look.radius < 13


def test_labels_are_what_metadata_holds() -> None:
    look = replace(LOOK, radius=9.87654, distractors=(Distractor(1, 2, 3, "teal"),) * 2)
    assert look.labels() == {
        "shape": "square", "texture": "halves", "color": "red", "color2": "white",
        "background": "plain", "background_color": "blue", "radius": 9.877, "distractors": 2,
    }  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_lie_within_their_square_and_fill_a_good_part_of_it(shape: str) -> None:
    axis = np.linspace(-1.5, 1.5, 301)
    u, v = np.meshgrid(axis, axis)
    inside = inside_shape(shape, u, v)
    assert inside_shape(shape, np.zeros(1), np.zeros(1)).all()
    assert np.abs(u[inside]).max() <= 1
    assert np.abs(v[inside]).max() <= 1
    assert 1.2 < inside.sum() * 0.01**2 < 3.6
    others = [inside_shape(other, u, v) for other in SHAPES if other != shape]
    assert not any(np.array_equal(inside, other) for other in others)


@pytest.mark.parametrize("texture", TEXTURES)
def test_every_texture_shows_both_colours(texture: str) -> None:
    axis = np.linspace(-0.6, 0.6, 60)
    u, v = np.meshgrid(axis, axis)
    for phase in np.linspace(0, 6, 7):
        paint = object_color(replace(LOOK, texture=texture, phase=float(phase)), u, v)
        shown = np.unique(paint.reshape(-1, 3), axis=0)
        assert len(shown) == 2
        first, white = np.array(COLORS["red"]), np.array(COLORS["white"])
        assert (shown == first).all(-1).any()
        # The other one lies on the way to the second colour.
        other = shown[~(shown == first).all(-1)][0]
        way = (other - first) @ (white - first) / ((white - first) @ (white - first))
        assert np.allclose(other, first + way * (white - first))
        assert 0.5 < way <= 1
        second = (paint == other).all(-1)
        assert 0.08 < second.mean() < 0.92


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_are_colours_and_distractors_lie_on_them(background: str) -> None:
    axis = np.arange(64.0)
    x, y = np.meshgrid(axis, axis)
    look = replace(LOOK, background=background, phase=1.0)
    color = scene_color(look, x, y)
    assert color.shape == (64, 64, 3)
    assert color.min() >= 0
    assert color.max() <= 1
    assert (np.ptp(color, axis=(0, 1)).max() < 1e-12) == (background == "plain")
    spotted = scene_color(replace(look, distractors=(Distractor(20, 30, 3, "yellow"),)), x, y)
    changed = (spotted != color).any(-1)
    assert np.array_equal(changed, (x - 20) ** 2 + (y - 30) ** 2 < 9)
    assert np.allclose(spotted[changed], np.add(SCENE_COLORS["yellow"], DISTRACTOR_LIGHT))


def test_every_object_is_lighter_than_every_scene_and_every_distractor() -> None:
    def light(rgb: np.ndarray) -> np.ndarray:
        return rgb @ np.array([0.299, 0.587, 0.114])

    looks = [draw_appearance(np.random.default_rng(i), 64) for i in range(100)]
    u, v = np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-1, 1, 30))
    x, y = np.meshgrid(np.arange(64.0), np.arange(64.0))
    objects = np.stack([object_color(look, u, v) for look in looks])
    scenes = np.stack([scene_color(look, x, y) for look in looks])
    assert light(objects).min() > light(scenes).max() + 0.05
