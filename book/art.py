"""Draw the book's cover, logo and favicon: a hidden layer whose generations grow outwards, coloured by birth.

Run `python book/art.py` after a change; the SVG files in book/_static are committed.
"""

from pathlib import Path

from growlib.plots import PALETTE

STATIC = Path(__file__).parent / "_static"
GENERATIONS = [PALETTE[name] for name in ("blue", "orange", "green", "magenta", "violet", "brown")]


def spread(count, step):
    """Return `count` offsets around zero, `step` apart."""
    return [(index - (count - 1) / 2) * step for index in range(count)]


def births(first, later, generations):
    """Return the generation of every hidden neuron from top to bottom: the oldest are in the middle."""
    column = [0] * first
    for generation in range(1, generations):
        half = [generation] * (later // 2)
        column = half + column + half
    return column


def curve(start, end):
    """Return an SVG path from one point to another that leaves and arrives horizontally."""
    (x, y), (to_x, to_y) = start, end
    middle = (x + to_x) / 2
    return f"M{x:.0f} {y:.1f}C{middle:.0f} {y:.1f} {middle:.0f} {to_y:.1f} {to_x:.0f} {to_y:.1f}"


def dot(point, radius, colour):
    """Return one neuron."""
    return f'<circle cx="{point[0]:.0f}" cy="{point[1]:.1f}" r="{radius:g}" fill="{colour}"/>'


def network(width, height, inputs, outputs, column, step, radius, stroke, opacity, margin):
    """Return the SVG groups of a three-layer network, one group a generation and one for inputs and outputs."""
    middle = height / 2
    left = [(margin, middle + offset) for offset in spread(inputs, step * 2.6)]
    right = [(width - margin, middle + offset) for offset in spread(outputs, step * 2.6)]
    hidden = [(width / 2, middle + offset) for offset in spread(len(column), step)]
    groups = []
    for generation in range(max(column) + 1):
        colour = GENERATIONS[generation]
        born = [point for point, birth in zip(hidden, column, strict=True) if birth == generation]
        paths = "".join(curve(start, point) for point in born for start in left)
        paths += "".join(curve(point, end) for point in born for end in right)
        groups.append(
            f'<g><path d="{paths}" fill="none" stroke="{colour}" '
            f'stroke-width="{stroke}" stroke-opacity="{opacity}"/>'
            + "".join(dot(point, radius, colour) for point in born)
            + "</g>"
        )
    groups.append("<g>" + "".join(dot(point, radius * 1.15, PALETTE["ink"]) for point in left + right) + "</g>")
    return groups


def svg(width, height, title, parts):
    """Return a whole SVG document."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{title}</title>{"".join(parts)}</svg>\n'
    )


def pictures():
    """Return the text of every SVG file by its name."""
    column = births(first=6, later=4, generations=6)
    cover = network(1200, 440, 7, 5, column, step=15.5, radius=5.6, stroke=1.1, opacity=0.5, margin=60)
    title = "A hidden layer grows from six neurons to twenty-six, each generation in its own colour"
    logo = network(128, 96, 1, 1, births(1, 2, 4), step=13, radius=6, stroke=3.4, opacity=0.9, margin=11)
    icon = network(64, 64, 1, 1, births(1, 2, 3), step=13.5, radius=6, stroke=4, opacity=1, margin=7)
    return {
        "cover.svg": svg(1200, 440, title, cover),
        "logo.svg": svg(128, 96, "Networks That Grow", logo),
        "favicon.svg": svg(64, 64, "Networks That Grow", icon),
    }


def main():
    """Write the pictures into book/_static."""
    for name, text in pictures().items():
        (STATIC / name).write_text(text)


if __name__ == "__main__":
    main()
