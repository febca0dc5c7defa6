"""Captions say what can be seen."""

from motive.zoo.appearance import COLORS
from motive.zoo.captions import SAME_CAPTION, caption_of
from motive.zoo.motions import CAMERAS, KINDS
from motive.zoo.scene import draw_scene


def test_a_caption_names_look_motion_and_camera() -> None:
    scene = draw_scene("free_fall", 9, seed=0, index=1, camera="pan")
    caption = caption_of(scene)
    assert all(w in caption for w in (scene.look.color, scene.look.color2, scene.look.shape))
    assert f"{scene.look.background_color} scene" in caption
    assert "falls to the floor" in caption
    assert caption.endswith("while the camera pans")


def test_captions_tell_every_kind_and_camera_apart() -> None:
    by_kind = {caption_of(draw_scene(k, 9, seed=0, index=1, camera="none")) for k in KINDS}
    assert len(by_kind) == 11  # the ten motions, and an object at rest for the other four kinds
    by_camera = {caption_of(draw_scene("roll", 9, seed=0, index=1, camera=c)) for c in CAMERAS}
    assert len(by_camera) == len(CAMERAS)


def test_articles_fit_their_colours() -> None:
    captions = [caption_of(draw_scene("spin", 9, seed=0, index=i)) for i in range(80)]
    assert any("an orange" in c for c in captions)
    assert not any("a orange" in c.replace("an orange", "") for c in captions)
    assert not any(
        f"an {color} " in c for c in captions for color in COLORS if color[0] not in "aeiou"
    )


def test_the_same_caption_names_nothing() -> None:
    assert not any(word in SAME_CAPTION for word in (*COLORS, *KINDS, "camera", "circle"))
