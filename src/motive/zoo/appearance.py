"""How a zoo clip looks: shape, texture, colours, background and distractors.

Drawn from a random stream of its own, so that nothing of the look tells the motion.
"""

from dataclasses import asdict, dataclass

import numpy as np

# Hues to start from, `(red, green, blue)` in 0..1.
_HUES = {
    "red": (0.85, 0.20, 0.18),
    "orange": (0.93, 0.55, 0.15),
    "yellow": (0.92, 0.83, 0.25),
    "green": (0.25, 0.65, 0.30),
    "teal": (0.15, 0.62, 0.62),
    "blue": (0.20, 0.38, 0.82),
    "purple": (0.52, 0.28, 0.70),
    "pink": (0.92, 0.50, 0.65),
    "white": (0.93, 0.93, 0.90),
    "grey": (0.10, 0.10, 0.12),
}


def _muted(rgb: tuple[float, ...], lightest: float, chroma: float) -> tuple[float, ...]:
    """The hue within 0.2 below `lightest`, with `chroma` of its colourfulness left."""
    light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    return tuple(lightest - 0.2 * (1 - light) + chroma * (v - light) for v in rgb)


# Light objects in dim scenes, as a spotlight makes them. With objects that were sometimes lighter and
# sometimes darker than a saturated background, gradients of a model this small were about colour alone
# (docs/results).
COLORS = {name: _muted(hue, 0.86, 0.30) for name, hue in _HUES.items()}
SCENE_COLORS = {name: _muted(hue, 0.38, 0.20) for name, hue in _HUES.items()}
DISTRACTOR_LIGHT = 0.15  # how much lighter than a scene of that colour
SECOND_COLOR = 0.65  # how far the texture goes from the first colour to the second
SHAPES = ("circle", "square", "triangle", "diamond", "hexagon", "cross")
TEXTURES = ("stripes", "checks", "spots", "halves", "sectors")
BACKGROUNDS = ("plain", "gradient", "waves", "tiles")


@dataclass(frozen=True)
class Distractor:
    """A small motionless disc in the scene."""

    x: float
    y: float
    radius: float
    color: str


@dataclass(frozen=True)
class Appearance:
    """The look of one clip; every field is drawn independently of the motion."""

    shape: str
    texture: str
    color: str
    color2: str
    background: str
    background_color: str
    radius: float
    phase: float
    distractors: tuple[Distractor, ...]

    def labels(self) -> dict[str, str | int | float]:
        """The columns of `metadata.csv` that describe the look."""
        row = asdict(self)
        row["distractors"] = len(self.distractors)
        row["radius"] = round(self.radius, 3)
        del row["phase"]
        return row


def draw_appearance(rng: np.random.Generator, size: int) -> Appearance:
    """A random look for a frame of `size` pixels; the object differs in colour from its background."""
    color, color2, background = rng.choice(list(COLORS), 3, replace=False)
    spots = [
        Distractor(
            x=float(rng.uniform(4, size - 4)),
            y=float(rng.uniform(4, size - 4)),
            radius=float(rng.uniform(2, 4)),
            color=str(rng.choice(list(COLORS))),
        )
        for _ in range(rng.integers(0, 4))
    ]
    return Appearance(
        shape=str(rng.choice(SHAPES)),
        texture=str(rng.choice(TEXTURES)),
        color=str(color),
        color2=str(color2),
        background=str(rng.choice(BACKGROUNDS)),
        background_color=str(background),
        radius=float(rng.uniform(9, 13)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        distractors=tuple(spots),
    )


def inside_shape(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether object coordinates lie in the shape."""
    au, av = np.abs(u), np.abs(v)
    if shape == "circle":
        return u * u + v * v < 1
    if shape == "square":
        return np.maximum(au, av) < 0.88
    if shape == "triangle":
        return (v < 0.8) & (v > 2 * au - 0.95)
    if shape == "diamond":
        return au + av < 1
    if shape == "hexagon":
        return np.maximum(au * 0.866 + av * 0.5, av) < 0.86
    return (np.minimum(au, av) < 0.38) & (np.maximum(au, av) < 0.98)


def object_color(look: Appearance, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The object's colour at object coordinates, `(..., 3)` in 0..1."""
    if look.texture == "stripes":
        second = np.sin(5 * u + look.phase) > 0
    elif look.texture == "checks":
        second = np.sin(4.5 * u + look.phase) * np.sin(4.5 * v + look.phase) > 0
    elif look.texture == "spots":
        second = np.cos(6 * u + look.phase) + np.cos(6 * v) > 0.9
    elif look.texture == "halves":
        second = u * np.cos(look.phase) + v * np.sin(look.phase) > 0
    else:
        second = np.sin(3 * np.arctan2(v, u) + look.phase) > 0
    first, other = np.array(COLORS[look.color]), np.array(COLORS[look.color2])
    return np.where(second[..., None], first + SECOND_COLOR * (other - first), first)


def scene_color(look: Appearance, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The background with its distractors at scene pixels, `(..., 3)` in 0..1."""
    base = np.array(SCENE_COLORS[look.background_color])
    c, s = np.cos(look.phase), np.sin(look.phase)
    if look.background == "gradient":
        shade = 0.12 * np.tanh((x * c + y * s - 32 * (c + s)) / 32)
    elif look.background == "waves":
        shade = 0.05 * np.sin(0.25 * (x * c + y * s)) + 0.03 * np.sin(0.17 * (y * c - x * s))
    elif look.background == "tiles":
        shade = 0.05 * np.sign(np.sin(0.2 * (x * c + y * s)) * np.sin(0.2 * (y * c - x * s)))
    else:
        shade = np.zeros_like(x)
    color = np.clip(base + shade[..., None], 0, 1)
    for spot in look.distractors:
        disc = (x - spot.x) ** 2 + (y - spot.y) ** 2 < spot.radius**2
        color = np.where(disc[..., None], np.add(SCENE_COLORS[spot.color], DISTRACTOR_LIGHT), color)
    return color
