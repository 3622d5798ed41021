"""The curve of quality over cost, drawn once as plain shapes: for a page (SVG) and as a picture (PNG)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw, ImageFont

from flowcache.bench.names import AB2, START, Entry
from flowcache.bench.statistics import Interval
from flowcache.bench.summary import Closeness, Line

PANEL, HEIGHT, KEY = 520, 400, 210  # pixels: of a panel, of the picture, of the legend
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 44  # margins of a panel
SIZE = 13  # of letters
SCALE = 2  # pixels of the PNG for one here
COLOURS = (
    "#1f6feb", "#d1242f", "#bf8700", "#1a7f37", "#8250df", "#0e8a8a", "#c2255c", "#57606a", "#a0522d", "#0b3d91",
    "#e16f24", "#6b8e23",
)  # fmt: skip
INK, FAINT = "#24292f", "#d0d7de"
LEAST = 1e-9  # of a range that has no width


@dataclass(frozen=True)
class Stroke:
    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.0


@dataclass(frozen=True)
class Dot:
    """told: what is said where somebody points at it."""

    x: float
    y: float
    colour: str
    told: str


@dataclass(frozen=True)
class Words:
    x: float
    y: float
    text: str
    anchor: str = "start"  # or "middle" or "end": where x is


Shape = Stroke | Dot | Words


@dataclass(frozen=True)
class Drawing:
    width: int
    height: int
    shapes: Sequence[Shape]

    def svg(self) -> str:
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        kind = f'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="{SIZE}"'
        inside = "\n".join(map(_svg, self.shapes))
        return f"<svg {kind} {size}>\n{inside}\n</svg>"

    def png(self) -> bytes:
        picture = Image.new("RGB", (self.width * SCALE, self.height * SCALE), "white")
        draw, font = ImageDraw.Draw(picture), ImageFont.load_default(SIZE * SCALE)
        for shape in self.shapes:
            _paint(draw, shape, font)
        data = io.BytesIO()
        picture.save(data, "PNG")
        return data.getvalue()


def _svg(shape: Shape) -> str:
    if isinstance(shape, Stroke):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        return f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="{shape.width}"/>'
    if isinstance(shape, Dot):
        place = f'cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="4" fill="{shape.colour}"'
        return f"<circle {place}><title>{escape(shape.told)}</title></circle>"
    place = f'x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}" fill="{INK}"'
    return f"<text {place}>{escape(shape.text)}</text>"


def _paint(draw: ImageDraw.ImageDraw, shape: Shape, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    if isinstance(shape, Stroke):
        points = [(x * SCALE, y * SCALE) for x, y in shape.points]
        draw.line(points, shape.colour, round(shape.width * SCALE), joint="curve")
    elif isinstance(shape, Dot):
        x, y, radius = shape.x * SCALE, shape.y * SCALE, 4 * SCALE
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), shape.colour)
    else:
        width = draw.textlength(shape.text, font)
        x = shape.x * SCALE - {"start": 0, "middle": width / 2, "end": width}[shape.anchor]
        draw.text((x, (shape.y - SIZE + 2) * SCALE), shape.text, INK, font)


@dataclass(frozen=True)
class Axis:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / max(self.high - self.low, LEAST) * (self.end - self.start)


@dataclass(frozen=True)
class Panel:
    """points: of each setting its cost and how close it comes for that. across: what the cost is."""

    title: str
    across: str
    points: dict[Line, tuple[float, Closeness]]


def drawing(every: Sequence[Line]) -> Drawing:
    """PSNR over chunk forwards: a panel to `off`, and one to the converged walk where there is one; and over bytes of
    K/V, where these were chosen."""
    steps, kept = (
        [line for line in every if line.entry.keeps == keeps and line.entry != line.entry.reference]
        for keeps in (False, True)
    )
    forwards = "chunk forwards, share of off"
    panels = [
        Panel("PSNR to off, dB", forwards, {line: (line.forwards_share, line.off) for line in steps if line.off}),
        Panel("PSNR to converged, dB", forwards,
              {line: (line.forwards_share, line.converged) for line in every if line.converged}),
        Panel("PSNR to all K/V, dB", "bytes of K/V, share of all",
              {line: (line.kv_share, line.off) for line in kept if line.off}),
    ]  # fmt: skip
    panels = [panel for panel in panels if panel.points]
    names = list(dict.fromkeys(_series(line.entry) for panel in panels for line in panel.points))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    shapes = list[Shape]()
    for place, panel in enumerate(panels):
        shapes += _panel(place * PANEL, panel, colours)
    width = len(panels) * PANEL
    for place, name in enumerate(names):
        y = TOP + 20 * place
        shapes += [Dot(width + 14, y - 4, colours[name], name), Words(width + 26, y, name)]
    return Drawing(width + KEY, HEIGHT, shapes)


def _series(entry: Entry) -> str:
    return entry.policy + next(filter(entry.setting.endswith, (AB2, START)), "")


def _panel(left: int, panel: Panel, colours: dict[str, str]) -> list[Shape]:
    ends = [value for _, of in panel.points.values() for value in of.mean[1:]]
    x = Axis(0.0, max(1.0, *(cost for cost, _ in panel.points.values())), left + LEFT, left + PANEL - RIGHT)
    y = Axis(min(ends), max(ends), HEIGHT - BOTTOM, TOP)
    shapes: list[Shape] = [Words(left + LEFT, TOP - 14, panel.title), *_ticks(x, y, panel.across)]
    for name, colour in colours.items():
        own = sorted(
            ((cost, line, of) for line, (cost, of) in panel.points.items() if _series(line.entry) == name),
            key=lambda point: point[0],
        )
        places = [(x.place(cost), y.place(of.mean[0])) for cost, _, of in own]
        if len(places) > 1:
            shapes.append(Stroke(tuple(places), colour, 2))
        for (_, line, of), (at, high) in zip(own, places, strict=True):
            shapes.append(Stroke(((at, y.place(of.mean[1])), (at, y.place(of.mean[2]))), colour))
            shapes.append(Dot(at, high, colour, _told(line, of.mean)))
    return shapes


def _ticks(x: Axis, y: Axis, across: str) -> list[Shape]:
    shapes = list[Shape]()
    for place in range(6):
        value = y.low + (y.high - y.low) * place / 5
        at = y.place(value)
        shapes += [Stroke(((x.start, at), (x.end, at)), FAINT), Words(x.start - 6, at + 4, f"{value:.0f}", "end")]
        share = x.high * place / 5
        shapes.append(Words(x.place(share), y.start + 18, f"{share:.1f}", "middle"))
    return [*shapes, Words((x.start + x.end) / 2, y.start + 36, across, "middle")]


def _told(line: Line, of: Interval) -> str:
    cost = f"with {line.kv_share:.2f} of the K/V" if line.entry.keeps else f"at {line.forwards:.0f} chunk forwards"
    return f"{line.entry.label}: {of[0]:.1f} dB ({of[1]:.1f} to {of[2]:.1f}) {cost}"
