"""A rendered product with logical anomalies: a tray of six compartments that hold one yellow pin each; and its reader.

Nothing here is a photograph. Because the scene is rendered, the pose is known and `read` is exact on it: it says what
is in a compartment, also after a method has painted there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.records import Sample

HEIGHT, WIDTH = 224, 304
ROWS, COLUMNS, PITCH, WALL = 2, 3, 80, 8  # of the tray, in pixels
TOP, LEFT = (HEIGHT - ROWS * PITCH) // 2, (WIDTH - COLUMNS * PITCH) // 2
HEAD, NEEDLE = 9, 17  # radius of a pin's head, length of its needle
MARGIN = 6  # the mask goes so far beyond a compartment's walls
PIGMENTS = {"yellow": (230, 188, 38), "blue": (46, 92, 196), "red": (204, 48, 44), "green": (52, 152, 74)}
HUES = {"yellow": (18, 36), "blue": (96, 128), "green": (45, 90), "red": (168, 8)}  # of OpenCV: 0..180, red wraps


@dataclass(frozen=True)
class State:
    """What a compartment holds. `kind` is a defect type or "good"; count and colour of the pins, or where they lie."""

    kind: str
    caption: str
    count: int = 1
    colour: str = "yellow"
    on_wall: bool = False


STATES = (
    State("missing", "the yellow pin is missing, the compartment is empty", count=0),
    State("extra", "two yellow pins in one compartment, one too many", count=2),
    State("extra", "three yellow pins in one compartment, two too many", count=3),
    State("wrong_colour", "a blue pin instead of a yellow one", colour="blue"),
    State("wrong_colour", "a red pin instead of a yellow one", colour="red"),
    State("wrong_colour", "a green pin instead of a yellow one", colour="green"),
    State("misplaced", "the yellow pin lies on the wall between two compartments", on_wall=True),
)
GOOD = State("good", "")


def of_kind(kind: str) -> list[State]:
    return [state for state in STATES if state.kind == kind]


@dataclass(frozen=True)
class Scene:
    """A rendered tray: `image` (HEIGHT, WIDTH, 3) uint8; `pose` (2, 3) takes the upright tray's pixels (x, y) there."""

    image: np.ndarray
    pose: np.ndarray

    def mask(self, cell: int) -> np.ndarray:
        """(HEIGHT, WIDTH) bool: a compartment with its walls. The same for every state, so that it tells none."""
        box = np.zeros((HEIGHT, WIDTH), np.uint8)
        top, left = corner(cell)
        reach = WALL + MARGIN
        box[top - reach : top + PITCH - WALL + reach, left - reach : left + PITCH - WALL + reach] = 1
        return cv2.warpAffine(box, self.pose, (WIDTH, HEIGHT), flags=cv2.INTER_NEAREST).astype(bool)

    def sample(self, cell: int, state: State) -> Sample:
        return Sample(self.image, self.mask(cell), "tray", state.kind, state.caption)


def corner(cell: int) -> tuple[int, int]:
    """Top and left of a compartment's floor on the upright tray; the floor is PITCH - WALL wide."""
    return TOP + PITCH * (cell // COLUMNS) + WALL // 2, LEFT + PITCH * (cell % COLUMNS) + WALL // 2


def render(seed: int, cell: int = 0, state: State = GOOD) -> Scene:
    """Draw a tray whose compartment `cell` is in `state`; pins, pose, light and grain vary with the seed."""
    rng = np.random.default_rng([seed, 17])
    big = (WIDTH * 2, HEIGHT * 2)  # drawn at twice the size, so that edges are antialiased
    mat = 64 + _noise(rng, 9, 1.5) + _noise(rng, 10, 30)
    canvas = mat[..., None] * np.array([0.92, 1.0, 1.1], np.float32)
    grain = 1 + (_noise(rng, 3.2, 1.0) + _noise(rng, 3.0, 12)) / 200
    edge = np.s_[2 * (TOP - WALL // 2) : 2 * (TOP + ROWS * PITCH + WALL // 2),
                 2 * (LEFT - WALL // 2) : 2 * (LEFT + COLUMNS * PITCH + WALL // 2)]  # fmt: skip
    canvas[edge] = np.array([212, 210, 204], np.float32) * grain[edge][..., None]
    for number in range(ROWS * COLUMNS):
        top, left = corner(number)
        side = PITCH - WALL
        floor = np.s_[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
        y, x = np.mgrid[: 2 * side, : 2 * side].astype(np.float32)
        shade = 1 - 0.22 * np.exp(-np.minimum(x, y) / 7) + 0.05 * np.exp(-(2 * side - np.maximum(x, y)) / 6)
        canvas[floor] = np.array([168, 164, 156], np.float32) * (grain[floor] * shade)[..., None]
    for number in range(ROWS * COLUMNS):
        _pins(canvas, rng, number, state if number == cell else GOOD)
    pose = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), rng.uniform(-2, 2), 1.0)
    pose[:, 2] += rng.uniform(-5, 5, 2)
    twice = pose.copy()
    twice[:, 2] = 2 * pose[:, 2] + 0.5 * (pose[:, :2].sum(axis=1) - 1)  # pixel centres lie at halves
    turned = cv2.warpAffine(canvas, twice, big, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    small = cv2.resize(turned, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    light = rng.uniform(0.92, 1.08) * (1 + rng.uniform(-0.05, 0.05) * np.linspace(-1, 1, WIDTH, dtype=np.float32))
    small = small * light[None, :, None] + rng.normal(0, 2.0, small.shape)
    return Scene(np.clip(np.rint(small), 0, 255).astype(np.uint8), pose)


def _noise(rng: np.random.Generator, strength: float, blur: float) -> np.ndarray:
    """Smooth noise of a given standard deviation, (2 HEIGHT, 2 WIDTH) float32."""
    step = max(1, int(blur / 2))  # smooth noise is drawn small
    small = rng.standard_normal((-(-2 * HEIGHT // step), -(-2 * WIDTH // step)), np.float32)
    field = cv2.resize(cv2.GaussianBlur(small, (0, 0), blur / step), (2 * WIDTH, 2 * HEIGHT))
    return field * (strength / field.std())


def _pins(canvas: np.ndarray, rng: np.random.Generator, cell: int, state: State) -> None:
    """Draw the pins of one compartment on the canvas of twice the size, apart from each other."""
    while True:
        lines = [np.linspace(*_place(rng, cell, state.on_wall), 8) for _ in range(state.count)]
        pairs = [(one, other) for one in lines for other in lines if one is not other]
        gaps = [np.linalg.norm(one[:, None] - other[None], axis=2) for one, other in pairs]
        if all(gap[0].min() > HEAD + 4 and gap[0, 0] > 2 * HEAD + 7 and gap.min() > 4 for gap in gaps):
            break
    for line in lines:
        centre = (2 * line[0]).astype(int)
        reach = 2 * (HEAD + NEEDLE) + 24
        part = canvas[centre[1] - reach : centre[1] + reach, centre[0] - reach : centre[0] + reach]
        _pin(part, rng, 2 * line[0] - centre + reach, 2 * line[-1] - centre + reach, PIGMENTS[state.colour])


def _place(rng: np.random.Generator, cell: int, on_wall: bool) -> tuple[np.ndarray, np.ndarray]:
    """Head and tip (x, y) of a pin on the floor of its compartment, or with its head on the wall beside it."""
    top, left = corner(cell)
    side = PITCH - WALL
    while True:
        head = rng.uniform(HEAD + 8, side - HEAD - 8, 2)
        angle = rng.uniform(0, 2 * np.pi)
        if on_wall:  # towards a neighbour: the outer walls are no walls between two
            row, column = divmod(cell, COLUMNS)
            sides = [(0, -WALL / 2)] * (column > 0) + [(0, side + WALL / 2)] * (column < COLUMNS - 1)
            sides += [(1, -WALL / 2)] * (row > 0) + [(1, side + WALL / 2)] * (row < ROWS - 1)
            axis, place = sides[rng.integers(len(sides))]
            head[axis] = place
        tip = head + (HEAD + NEEDLE) * np.array([np.cos(angle), np.sin(angle)])
        if ((tip > 7) & (tip < side - 7)).all():
            return np.add(head, (left, top)), np.add(tip, (left, top))


def _pin(
    canvas: np.ndarray, rng: np.random.Generator, head: np.ndarray, tip: np.ndarray, pigment: tuple[int, ...]
) -> None:
    shadow = np.zeros(canvas.shape[:2], np.float32)
    cv2.circle(shadow, tuple(int(v) for v in np.add(head, (7, 9))), 2 * HEAD, 1.0, cv2.FILLED, cv2.LINE_AA)
    cv2.line(shadow, *(tuple(int(v) for v in np.add(p, (4, 5))) for p in (head, tip)), 1.0, 5, cv2.LINE_AA)
    canvas *= 1 - 0.3 * cv2.GaussianBlur(shadow, (0, 0), 4)[..., None]
    ends = [tuple(int(v) for v in point) for point in (head, tip)]
    cv2.line(canvas, *ends, (84, 86, 92), 6, cv2.LINE_AA)
    cv2.line(canvas, *(tuple(int(v) for v in p - 1) for p in (head, tip)), (222, 224, 228), 2, cv2.LINE_AA)
    y, x = np.mgrid[: canvas.shape[0], : canvas.shape[1]].astype(np.float32)
    away = np.hypot(x - head[0], y - head[1]) / (2 * HEAD)
    cover = np.clip((1 - away) * 2 * HEAD, 0, 1)[..., None]
    lit = np.hypot(x - head[0] + HEAD * 0.7, y - head[1] + HEAD * 0.7) / (2 * HEAD)
    shade = 1.08 - 0.38 * np.clip(away, 0, 1) ** 2 - 0.1 * (np.abs(away - 0.55) < 0.07)
    colour = np.array(pigment, np.float32) * (shade * rng.uniform(0.94, 1.04))[..., None]
    colour += 110 * np.exp(-((lit / 0.22) ** 2))[..., None]  # the glint
    canvas[:] = canvas * (1 - cover) + np.minimum(colour, 255) * cover


# -- the reader --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """What was seen in one compartment: colours of the pins inside and on its walls, and what is neither."""

    inside: tuple[str, ...]
    on_wall: tuple[str, ...]
    unknown: int  # coloured blobs that are no pin: too small, too large, not round, of no pin's colour
    clutter: float  # share of the floor that is neither floor nor pin's head: needles and shadows of them

    def kind(self) -> str:
        """The defect type this is, "good", or "none of these"."""
        heads = self.inside + self.on_wall
        if self.unknown:
            return "none of these"
        if not heads:
            return "missing" if self.clutter < CLUTTER else "none of these"
        if set(heads) == {"yellow"}:
            return ("misplaced" if self.on_wall else "good") if len(heads) == 1 else (
                "none of these" if self.on_wall else "extra")  # fmt: skip
        return "wrong_colour" if len(heads) == 1 and not self.on_wall else "none of these"

    def says(self, state: State) -> bool:
        """Whether it is just this state, count and colour included."""
        heads = self.inside + self.on_wall
        return self.kind() == state.kind and len(heads) == state.count and set(heads) <= {state.colour}


AREA = np.pi * HEAD**2
CLUTTER = 0.006


def read(image: np.ndarray, scene: Scene, cell: int) -> Reading:
    """Read one compartment of an image (HEIGHT, WIDTH, 3) uint8 that shows the scene's tray, by colour and shape."""
    upright = cv2.warpAffine(image, scene.pose, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    top, left = corner(cell)
    side, reach = PITCH - WALL, WALL + 5
    view = upright[top - reach : top + side + reach, left - reach : left + side + reach]
    hsv = cv2.cvtColor(cv2.medianBlur(view, 3), cv2.COLOR_RGB2HSV)
    coloured = ((hsv[..., 1] > 105) & (hsv[..., 2] > 50)).astype(np.uint8)
    coloured = cv2.morphologyEx(coloured, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    count, names, stats, centres = cv2.connectedComponentsWithStats(coloured, connectivity=8)
    inside, on_wall, unknown = [], [], 0
    for number in range(1, count):
        area, longest = stats[number, cv2.CC_STAT_AREA], max(stats[number, 2:4])
        if area < 0.12 * AREA:
            continue
        colour = _colour(hsv[names == number])
        round_ = area > 0.6 * np.pi / 4 * longest**2
        if colour is None or not round_ or not 0.55 * AREA < area < 1.5 * AREA:
            unknown += 1
            continue
        place = centres[number] - reach
        (inside if ((place >= 0) & (place < side)).all() else on_wall).append(colour)
    floor = np.s_[reach + 6 : reach + side - 6, reach + 6 : reach + side - 6]
    grey = cv2.cvtColor(view, cv2.COLOR_RGB2GRAY)[floor].astype(np.float32)
    near = cv2.dilate(coloured, np.ones((5, 5), np.uint8))[floor].astype(bool)
    odd = (np.abs(grey - np.median(grey)) > 28) & ~near
    return Reading(tuple(inside), tuple(on_wall), unknown, float(odd.mean()))


def _colour(hsv: np.ndarray) -> str | None:
    """The pin colour that most pixels (N, 3) have; None where fewer than 60 % agree."""
    hue = hsv[:, 0].astype(int)
    for name, (low, high) in HUES.items():
        agree = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        if agree.mean() > 0.6:
            return name
    return None
