"""Drawing of a synthetic fundus photograph, its lesions and their outlines, for a given grade."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from bundle.labels import GRADES, LESIONS
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

Points = NDArray[np.floating]
Plane = NDArray[np.floating]

SUPERSAMPLING = 2
"""Canvases are drawn finer by this factor, so that a vessel of one pixel has a smooth edge."""

SEVERE_PER_QUADRANT = 20
"""ICDRS grade 3: *more* intraretinal haemorrhages than this in each of the four quadrants around the fovea."""

SMALLEST_HEIGHT_PX = 160

WIDTH_OVER_HEIGHT = 1.35
"""Smallest ratio, so that the field of view is clipped only above and below, as in IDRiD."""

BLOOD_DENSITY = np.array([0.33, 0.74, 0.45], np.float32)[:, None, None]  # (3, 1, 1)
"""Optical density of the largest vein in R, G, B: green is absorbed most, so it shows blood best."""

BLOOD_OF_LESION = 1.2
"""Amount of blood that light passes through in the darkest red lesion, relative to the largest vein."""

COLOUR = {"EX": (250, 218, 95), "SE": (250, 206, 138), "disc": (250, 172, 82), "cup": (255, 222, 142)}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A photograph and its ground truth.

    Attributes:
        image: uint8 RGB, (H, W, 3).
        masks: maps every lesion to its annotated extent, bool (H, W); absent ones are all False.
        optic_disc: bool (H, W).
        fovea_px: (x, y); the quadrants of grade 3 meet here.
        grade: ICDRS grade, 0-4.
    """

    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    optic_disc: NDArray[np.bool_]
    fovea_px: tuple[float, float]
    grade: int


class Eye(NamedTuple):
    """Positions of the landmarks, (x, y) in pixels. ``temporal`` is +1 if the temple is on the right, else -1."""

    width_px: int
    height_px: int
    field: Points
    field_radius_px: float
    disc: Points
    disc_radius_px: float
    fovea: Points
    temporal: int

    def to_px(self, points: Points) -> Points:
        """Map (N, 2) from the disc's frame (disc radii; x towards the fovea, y up) to pixels."""
        ahead = (self.fovea - self.disc) / np.linalg.norm(self.fovea - self.disc)
        up = self.temporal * np.array([ahead[1], -ahead[0]])
        return self.disc + self.disc_radius_px * (points @ np.stack([ahead, up]))

    def distance_px(self, centre: Points) -> Plane:
        """Return the distance of every pixel from a point, (H, W)."""
        x = np.arange(self.width_px, dtype=np.float32) - np.float32(centre[0])
        y = np.arange(self.height_px, dtype=np.float32) - np.float32(centre[1])
        return np.sqrt(x**2 + y[:, None] ** 2)


def draw_photograph(grade: int, rng: np.random.Generator, width_px: int, height_px: int) -> Drawing:
    """Draw a photograph with the lesions of a grade.

    0: none; 1: microaneurysms only; 2: haemorrhages and usually also exudates; 3: more than
    ``SEVERE_PER_QUADRANT`` haemorrhages in each quadrant around the fovea; 4: as 2, with new vessels, a
    preretinal haemorrhage or both, which are not in any mask, because IDRiD has no class for new vessels.
    (Wilkinson et al., Ophthalmology 110(9), 2003, table 2.)

    Args:
        grade: ICDRS grade, 0-4.
        rng: source of all random numbers.
        width_px: at least ``WIDTH_OVER_HEIGHT`` times the height.
        height_px: at least ``SMALLEST_HEIGHT_PX``.

    Raises:
        ValueError: if the grade or the size cannot be drawn.
    """
    _check(grade, width_px, height_px)
    eye = _eye(rng, width_px, height_px)
    trunks = list(_trunks(rng))
    vessels = _vascular_tree(eye, trunks, rng)
    lesions = _Lesions(eye, rng, vessels)
    lesions.draw(grade, trunks)
    planes = {lesion: canvas.plane() for lesion, canvas in lesions.canvas.items()}
    image = _expose(_reflectance(eye, rng, vessels, planes, lesions.unannotated.plane()), eye, rng)
    return Drawing(
        image=image,
        masks={lesion: plane > 0.25 for lesion, plane in planes.items()},
        optic_disc=eye.distance_px(eye.disc) <= eye.disc_radius_px,
        fovea_px=(float(eye.fovea[0]), float(eye.fovea[1])),
        grade=grade,
    )


def _check(grade: int, width_px: int, height_px: int) -> None:
    if grade not in GRADES:
        raise ValueError(f"expected a grade in {list(GRADES)}, got {grade!r}")
    if height_px < SMALLEST_HEIGHT_PX or width_px < WIDTH_OVER_HEIGHT * height_px:
        raise ValueError(
            f"expected a height of at least {SMALLEST_HEIGHT_PX} px and a width of at least {WIDTH_OVER_HEIGHT} "
            f"heights, got {width_px}x{height_px} px"
        )


def _eye(rng: np.random.Generator, width_px: int, height_px: int) -> Eye:
    temporal = int(rng.choice([-1, 1]))
    radius = height_px * rng.uniform(0.57, 0.62)
    field = np.array([0.5 * width_px + 0.04 * height_px * rng.uniform(-1, 1), 0.5 * height_px])
    disc_radius = radius * rng.uniform(0.145, 0.175)
    fovea = field + radius * np.array([temporal * rng.uniform(0.0, 0.26), rng.uniform(-0.14, 0.14)])
    angle = np.deg2rad(rng.uniform(0, 14))  # the fovea lies a little below the disc
    disc = fovea - disc_radius * rng.uniform(4.6, 5.2) * np.array([temporal * np.cos(angle), np.sin(angle)])
    return Eye(width_px, height_px, field, radius, disc, disc_radius, fovea, temporal)


# ---------------------------------------------------------------- vessels

ARCADES = 8

HUB = np.array([-0.2, 0.0])
"""Point where the vessels leave the disc, nasal of its centre."""


class Vessel(NamedTuple):
    """A curve in the disc's frame: (N, 2) points and (N,) calibres in disc radii; darkness in 0-1."""

    points: Points
    calibre: NDArray[np.float64]
    darkness: float


def _curve(
    rng: np.random.Generator, start: Points, heading: float, length: float, turn: float, settle: float,
    wobble: float = 0.22,
) -> Points:  # fmt: skip
    """Walk from ``start``: the heading (radians) turns by ``turn`` within about ``settle`` and wobbles all the way."""
    step = 0.12
    s = np.arange(0, length, step)  # arc length, (N,)
    waves = sum(np.sin(s / rng.uniform(0.25, 0.8) + rng.uniform(0, 2 * np.pi)) for _ in range(2))
    headings = heading + turn * (1 - np.exp(-s / settle)) + wobble * waves
    steps = step * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return np.cumsum(np.vstack([start, steps]), axis=0)  # (N + 1, 2)


def _trunks(rng: np.random.Generator) -> Iterator[Vessel]:
    """Yield the ``ARCADES`` (above and below, artery and vein, temporal and nasal), then the disc's small vessels."""
    for up in (1, -1):
        for darkness, calibre, shift in ((0.5, 0.11, 0.14), (0.95, 0.16, -0.12)):
            aside = shift + rng.uniform(-0.1, 0.1)
            start = HUB + rng.uniform(-0.1, 0.1, 2)
            arcade = 1.45 + aside, 14.0, -rng.uniform(1.5, 1.9), rng.uniform(2.8, 4.6)
            nasal = 1.75 + aside, 9.0, rng.uniform(0.4, 0.9), rng.uniform(2.0, 4.0)
            for (heading, length, turn, settle), share in ((arcade, 1.0), (nasal, rng.uniform(0.55, 0.8))):
                points = _curve(rng, start, up * heading, length, up * turn, settle)
                yield Vessel(points, np.linspace(1.0, 0.35, len(points)) * calibre * share, darkness)
    for heading in (*rng.uniform(-0.9, 0.9, 4), *(np.pi + rng.uniform(-0.9, 0.9, 3))):
        points = _off_the_fovea(_curve(rng, HUB, heading, rng.uniform(2.5, 4.5), 0.0, 1.0))
        yield Vessel(points, np.linspace(0.05, 0.025, len(points)), rng.uniform(0.6, 1.0))


def _branches(parent: Vessel, rng: np.random.Generator, depth: int = 2) -> Iterator[Vessel]:
    """Yield side vessels, thinner and shorter than their parent, and then their own side vessels."""
    side = rng.choice([-1, 1])
    at = 8 + rng.integers(4)
    while depth and at < len(parent.points) - 3:
        calibre = parent.calibre[at] * rng.uniform(0.35, 0.65)
        if calibre < 0.02:
            return
        along = np.subtract(*parent.points[[at, at - 1]])
        heading = np.arctan2(along[1], along[0]) + side * rng.uniform(0.5, 1.1)
        length = 1.5 + 36 * calibre * rng.uniform(0.6, 1.2)
        points = _off_the_fovea(_curve(rng, parent.points[at], heading, length, -side * rng.uniform(0, 0.6), 1.5))
        child = Vessel(points, np.linspace(calibre, 0.4 * calibre, len(points)), parent.darkness)
        yield child
        yield from _branches(child, rng, depth - 1)
        side, at = -side, at + 7 + int(rng.integers(9))


def _vascular_tree(eye: Eye, trunks: Sequence[Vessel], rng: np.random.Generator) -> Plane:
    """Draw the blood in the vessels, (H, W) in 0-1; veins lie over arteries and trunks over branches."""
    canvas = _Canvas(eye)
    branches = (branch for trunk in trunks for branch in _branches(trunk, rng))
    for vessel in (*sorted(branches, key=lambda branch: branch.darkness), *trunks):
        canvas.vessel(vessel)
    return canvas.plane()


def _off_the_fovea(points: Points) -> Points:
    """Cut a curve where it enters the foveal avascular zone."""
    inside = np.linalg.norm(points - (4.9, 0.0), axis=1) < 0.75
    return points[: inside.argmax()] if inside.any() else points


# ---------------------------------------------------------------- canvas


class _Canvas:
    """An antialiased grey plane, drawn on in pixels of the photograph."""

    def __init__(self, eye: Eye) -> None:
        self.eye = eye
        self.image = Image.new("L", (eye.width_px * SUPERSAMPLING, eye.height_px * SUPERSAMPLING))
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, points: Points, strength: float) -> None:
        self.pen.polygon((points * SUPERSAMPLING).ravel().tolist(), fill=int(255 * strength))

    def vessel(self, vessel: Vessel) -> None:
        """Draw a vessel in pieces of constant calibre; below one pixel, it fades instead of thinning further."""
        points = self.eye.to_px(vessel.points) * SUPERSAMPLING
        calibre_px = vessel.calibre * self.eye.disc_radius_px
        for first in range(0, len(points) - 1, 6):
            piece = slice(first, first + 7)
            wide = float(calibre_px[piece].mean())
            fill = int(255 * vessel.darkness * min(1.0, 0.32 + 0.14 * wide))
            joint = "curve" if wide > 2 else None
            self.pen.line(points[piece].ravel().tolist(), fill, max(1, round(SUPERSAMPLING * wide)), joint)

    def plane(self) -> Plane:
        """Return the plane at the resolution of the photograph, (H, W) in 0-1."""
        return np.asarray(self.image.reduce(SUPERSAMPLING), np.float32) / 255


def _blob(
    rng: np.random.Generator,
    centre: Points,
    radius_px: float,
    *,
    stretch: float,
    angle: float = 0.0,
    rough: float = 0.2,
) -> Points:
    """Return a wobbly ellipse, (N, 2), by its half length and length over width ``stretch``; at least 2 px thick."""
    radius_px = max(radius_px, 1.0)
    stretch = min(stretch, radius_px)
    theta = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    waves = sum(np.sin(k * theta + rng.uniform(0, 2 * np.pi)) / k for k in (2, 3, 4, 6))
    reach = radius_px * np.clip(1 - rough + rough * waves, 0.35, 1.0)
    along, across = reach * np.cos(theta), reach * np.sin(theta) / stretch
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return centre + np.stack([along, across], axis=1) @ turn


# ---------------------------------------------------------------- lesions


class _Lesions:
    """The lesions of one photograph, which do not overlap."""

    def __init__(self, eye: Eye, rng: np.random.Generator, vessels: Plane) -> None:
        self.eye, self.rng = eye, rng
        self.canvas = {lesion: _Canvas(eye) for lesion in LESIONS}
        self.unannotated = _Canvas(eye)
        self.percent_px = 2 * eye.field_radius_px / 100  # of the field's diameter: the unit of lesion sizes
        self.vessels = vessels
        self.free = eye.distance_px(eye.field) < 0.95 * eye.field_radius_px
        self.free &= eye.distance_px(eye.disc) > 1.2 * eye.disc_radius_px

    def draw(self, grade: int, trunks: Sequence[Vessel]) -> None:
        """Draw the lesions of a grade; large ones first, because they need the most room and may cross vessels."""
        rng = self.rng
        if grade == 4:
            self._proliferate(trunks)
        if grade >= 2:
            severe = grade == 3
            self._haemorrhages(SEVERE_PER_QUADRANT + rng.integers(2, 9, 4) if severe else rng.integers(1, 11, 4))
            if rng.random() < (0.75 if severe else 0.4):
                self._cotton_wool(int(rng.integers(2, 6)), trunks)
            if rng.random() < 0.85:
                self._exudates(int(rng.integers(1, 7)))
        if grade >= 1:
            self.free &= self.vessels < 0.5
            self._microaneurysms(int(rng.integers(5, 20) if grade == 1 else rng.integers(12, 45)))

    def _take(self, centre: Points, radius_px: float) -> bool:
        """Claim the area around a point; return False if it is already taken or not retina."""
        window = self._ground(centre, radius_px)
        if not window.all():
            return False
        window[:] = False
        return True

    def _ground(self, centre: Points, radius_px: float) -> NDArray[np.bool_]:
        """Return a view of ``free`` around a point, or one taken pixel if the area reaches beyond the photograph."""
        half = int(np.ceil(radius_px)) + 1
        x, y = round(centre[0]), round(centre[1])
        if not (half <= x < self.eye.width_px - half and half <= y < self.eye.height_px - half):
            return np.zeros((1, 1), bool)
        return self.free[y - half : y + half + 1, x - half : x + half + 1]

    def _find(self, propose: Callable[[], Points], radius_px: float) -> tuple[Points, float]:
        """Propose points until the area around one is free; make the lesion smaller if there is too little room."""
        for smaller_px in radius_px * 0.8 ** np.arange(12):
            for _ in range(200):
                centre = propose()
                if self._take(centre, smaller_px):
                    return centre, smaller_px
        raise AssertionError(f"a photograph of {self.eye.width_px}x{self.eye.height_px} px has room for every lesion")

    def _anywhere(self) -> Points:
        return self.eye.field + self.eye.field_radius_px * self.rng.uniform(-1, 1, 2)

    def _in_quadrant(self, corner: tuple[int, int], radius_px: float) -> Points:
        return self.eye.fovea + np.array(corner) * self.rng.uniform(radius_px + 2, self.eye.field_radius_px, 2)

    def _haemorrhages(self, per_quadrant: NDArray[np.int64]) -> None:
        """Draw blots, and flames along the nerve fibres, which run towards the disc."""
        rng = self.rng
        for corner, count in zip(((-1, -1), (1, -1), (-1, 1), (1, 1)), per_quadrant, strict=True):
            for _ in range(count):
                flame = rng.random() < 0.3
                radius = self.percent_px * (rng.uniform(1.0, 2.0) if flame else 0.5 + min(rng.gamma(2.0, 0.25), 1.4))
                centre, radius = self._find(partial(self._in_quadrant, corner, radius), radius)
                fibres = np.arctan2(*(centre - self.eye.disc)[::-1]) + rng.normal(0, 0.2)
                stretch = rng.uniform(2.0, 3.2) if flame else rng.uniform(1.0, 1.5)
                outline = _blob(rng, centre, radius, stretch=stretch, angle=fibres, rough=0.25)
                self.canvas["HE"].polygon(outline, rng.uniform(0.5, 1.0))

    def _microaneurysms(self, count: int) -> None:
        for _ in range(count):
            centre, radius = self._find(self._anywhere, self.percent_px * self.rng.uniform(0.28, 0.5))
            dot = _blob(self.rng, centre, radius, stretch=1.0, rough=0.05)
            self.canvas["MA"].polygon(dot, self.rng.uniform(0.65, 1.0))

    def _cotton_wool(self, count: int, trunks: Sequence[Vessel]) -> None:
        """Draw pale patches next to the arcades."""
        rng = self.rng
        for _ in range(count):
            centre, radius = self._find(partial(self._beside, trunks), self.percent_px * rng.uniform(1.4, 3.0))
            patch = _blob(rng, centre, radius, stretch=rng.uniform(1.1, 1.8), angle=rng.uniform(0, np.pi))
            self.canvas["SE"].polygon(patch, rng.uniform(0.6, 1.0))

    def _beside(self, trunks: Sequence[Vessel]) -> Points:
        trunk = trunks[int(self.rng.integers(ARCADES))].points
        return self.eye.to_px(trunk[self.rng.integers(15, 70)] + self.rng.normal(0, 0.6, 2))

    def _exudates(self, clusters: int) -> None:
        """Draw clusters of specks around the macula; some form a ring (circinate), some merge into plaques."""
        rng = self.rng
        for _ in range(clusters):
            middle = self.eye.fovea + self.eye.field_radius_px * rng.normal(0, 0.33, 2)
            ring, spread = rng.random() < 0.35, self.percent_px * rng.uniform(2.5, 7.0)
            for _ in range(rng.integers(20, 70)):
                away = spread * (rng.normal(1.0, 0.1) if ring else abs(rng.normal(0, 0.7)))
                direction = rng.uniform(0, 2 * np.pi)
                self._speck(middle + away * np.array([np.cos(direction), np.sin(direction)]))
        self.free &= self.canvas["EX"].plane() == 0

    def _speck(self, centre: Points) -> None:
        """Draw one hard exudate, unless other lesions are in the way; it claims no area, so that specks can merge."""
        rng = self.rng
        radius = self.percent_px * (0.3 + min(rng.gamma(1.2, 0.33), 2.2))
        if self._ground(centre, radius).all():
            speck = _blob(rng, centre, radius, stretch=rng.uniform(1.0, 1.6), angle=rng.uniform(0, np.pi))
            self.canvas["EX"].polygon(speck, rng.uniform(0.6, 1.0))

    def _proliferate(self, trunks: Sequence[Vessel]) -> None:
        """Draw new vessels on the disc or elsewhere, a preretinal haemorrhage, or both."""
        rng = self.rng
        kind = rng.integers(3)
        if kind != 0:
            elsewhere = trunks[int(rng.integers(ARCADES))].points[rng.integers(20, 45)]
            self._new_vessels(np.zeros(2) if rng.random() < 0.6 else elsewhere)
        if kind != 1:
            self._preretinal_haemorrhage()

    def _new_vessels(self, middle: Points) -> None:
        """Draw a tuft of fine vessels that wind and loop."""
        rng = self.rng
        for _ in range(34):
            start, heading = middle + rng.normal(0, 0.35, 2), rng.uniform(0, 2 * np.pi)
            points = _curve(rng, start, heading, rng.uniform(0.8, 1.9), rng.normal(0, 2), 1.0, wobble=0.9)
            self.unannotated.vessel(Vessel(points, np.full(len(points), 0.035), 1.0))

    def _preretinal_haemorrhage(self) -> None:
        """Draw blood in front of the retina: it sinks until its top is level, like a boat, and hides the retina."""
        rng = self.rng
        length = self.percent_px * rng.uniform(4.0, 8.0)
        centre = self.eye.field + self.eye.field_radius_px * rng.uniform(-0.45, 0.45, 2)
        hull = _blob(rng, centre, length, stretch=rng.uniform(1.1, 1.6), rough=0.12)
        hull[:, 1] = np.maximum(hull[:, 1], centre[1] - 0.1 * length)
        self.unannotated.polygon(hull, rng.uniform(0.8, 1.0))
        self._ground(centre, length)[:] = False


# ---------------------------------------------------------------- light


def _cover(reflectance: Plane, share: Plane, colour: tuple[int, int, int]) -> None:
    """Blend a colour into ``reflectance``, (3, H, W), in place, with the opacity ``share``, (H, W)."""
    if share.any():
        for channel, value in zip(reflectance, colour, strict=True):
            channel += share * (value - channel)


def _noise(rng: np.random.Generator, eye: Eye, grain_px: float) -> Plane:
    """Return smooth noise of about unit variance with grains of size ``grain_px``, (H, W)."""
    size = int(eye.height_px / grain_px) + 4, int(eye.width_px / grain_px) + 4
    coarse = Image.fromarray(rng.standard_normal(size, dtype=np.float32))
    return np.asarray(coarse.resize((eye.width_px, eye.height_px), Image.Resampling.BICUBIC)) * 1.3


def _reflectance(
    eye: Eye, rng: np.random.Generator, vessels: Plane, lesions: dict[str, Plane], unannotated: Plane
) -> Plane:
    """Compute the retina with bright lesions and blood, (3, H, W) in 0-255."""
    reflectance = _fundus(eye, rng)
    _cover(reflectance, 0.9 * ndimage.gaussian_filter(lesions["SE"], 0.007 * eye.field_radius_px), COLOUR["SE"])
    _cover(reflectance, lesions["EX"], COLOUR["EX"])
    haemorrhages = ndimage.gaussian_filter(np.maximum(lesions["HE"], unannotated), 0.0025 * eye.field_radius_px)
    blood = np.maximum(vessels, BLOOD_OF_LESION * np.maximum(haemorrhages, lesions["MA"]))
    return reflectance * np.exp(-blood * BLOOD_DENSITY)


def _fundus(eye: Eye, rng: np.random.Generator) -> Plane:
    """Compute the retina without vessels: pigment, choroid, macula and disc, (3, H, W) in 0-255."""
    radius = eye.field_radius_px
    pigment = rng.uniform((178, 82, 8), (206, 110, 42)).astype(np.float32)[:, None, None]
    choroid = np.exp(-((_noise(rng, eye, 0.09 * radius) / 0.2) ** 2)) - 0.3
    texture = 1 + rng.uniform(0.0, 0.06) * choroid + 0.03 * _noise(rng, eye, 0.4 * radius) + 0.02 * _noise(rng, eye, 3)
    from_fovea = eye.distance_px(eye.fovea) / eye.disc_radius_px
    macula = np.exp(-((from_fovea / rng.uniform(1.1, 1.7)) ** 2)) + 0.5 * np.exp(-((from_fovea / 0.3) ** 2))
    reflectance = pigment * (texture - rng.uniform(0.12, 0.3) * macula)
    from_disc = eye.distance_px(eye.disc) / eye.disc_radius_px
    halo = rng.uniform(0.1, 0.3) * np.exp(-((from_disc / 1.8) ** 2))
    _cover(reflectance, np.maximum(halo, np.clip((1.0 - from_disc) / 0.22 + 0.5, 0, 1)), COLOUR["disc"])
    cup = eye.distance_px(eye.disc + 0.15 * eye.disc_radius_px * np.array([eye.temporal, 0])) / eye.disc_radius_px
    _cover(reflectance, np.clip((rng.uniform(0.4, 0.65) - cup) / 0.3 + 0.5, 0, 1), COLOUR["cup"])
    return reflectance


def _expose(reflectance: Plane, eye: Eye, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add uneven light, the round field, the lens' blur and the sensor's noise; return (H, W, 3)."""
    radius = eye.field_radius_px
    glow = eye.field + radius * rng.uniform(-0.35, 0.35, 2)
    light = rng.uniform(0.88, 1.08) * (1.05 - rng.uniform(0.12, 0.3) * (eye.distance_px(glow) / radius) ** 2)
    light *= np.clip((radius - eye.distance_px(eye.field)) / 2 + 0.5, 0, 1)
    sharp = Image.fromarray(np.moveaxis(np.clip(reflectance * light, 0, 255).astype(np.uint8), 0, -1).copy())
    blurred = np.array(sharp.filter(ImageFilter.BoxBlur(eye.height_px / 480 * rng.uniform(0.3, 0.7))), np.float32)
    blurred += rng.uniform(1.0, 2.2) * rng.standard_normal(blurred.shape, dtype=np.float32)
    return np.clip(blurred, 0, 255).astype(np.uint8)
