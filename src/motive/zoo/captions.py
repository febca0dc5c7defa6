"""What a zoo clip's caption says, and the one caption that says nothing."""

from motive.zoo.scene import Scene

SAME_CAPTION = "a shape in a scene"

_VERBS = {
    "compress": "is squeezed flat",
    "bounce": "bounces up and down",
    "roll": "rolls along the floor",
    "explode": "explodes into pieces",
    "float": "floats slowly upwards",
    "free_fall": "falls to the floor",
    "slide": "slides sideways",
    "spin": "spins in place",
    "stretch": "is stretched wide",
    "swing": "swings like a pendulum",
}
_CAMERAS = {"pan": "the camera pans", "zoom": "the camera zooms", "jitter": "the camera shakes"}


def caption_of(scene: Scene) -> str:
    """A true sentence about the scene's look, the object's motion and the camera's."""
    look = scene.look
    verb = _VERBS.get(scene.kind, "stands still")
    article = "an" if look.color[0] in "aeiou" else "a"
    sentence = f"{article} {look.color} and {look.color2} {look.shape} {verb}"
    sentence += f" in a dim {look.background_color} scene"
    if scene.camera in _CAMERAS:
        sentence += f" while {_CAMERAS[scene.camera]}"
    return sentence
