"""Draw docs/s-curve.svg: the share of pairs that each preset finds, against their similarity."""

from pathlib import Path

from curation.dedup.config import PRESETS
from curation.dedup.curve import curve

WIDTH, HEIGHT, MARGIN = 640, 360, 46
COLOURS = {"fineweb": "#1f5fae", "high-recall": "#b4540a", "strict": "#6b3fa0"}
OUTPUT = Path(__file__).parent.parent / "docs" / "s-curve.svg"


def across(similarity: float) -> float:
    """Horizontal place of a similarity."""
    return round(MARGIN + similarity * (WIDTH - 2 * MARGIN), 1)


def down(probability: float) -> float:
    """Vertical place of a probability."""
    return round(HEIGHT - MARGIN - probability * (HEIGHT - 2 * MARGIN), 1)


def drawing() -> str:
    """The SVG document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for step in range(6):
        value = step / 5
        parts += [
            f'<line x1="{across(0)}" x2="{across(1)}" y1="{down(value)}" y2="{down(value)}" stroke="#dcdfe3"/>',
            f'<text x="{across(0) - 8}" y="{down(value) + 4}" text-anchor="end">{value:g}</text>',
            f'<text x="{across(value)}" y="{down(0) + 18}" text-anchor="middle">{value:g}</text>',
        ]
    parts.append(f'<text x="{across(1)}" y="{HEIGHT - 8}" text-anchor="end">Jaccard similarity of a pair</text>')
    parts.append(f'<text x="{across(0)}" y="{MARGIN - 14}">share of such pairs that become candidates</text>')
    for number, (name, (bands, rows)) in enumerate(PRESETS.items()):
        points = " ".join(f"{across(x)},{down(y)}" for x, y in curve(bands, rows))
        colour = COLOURS[name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        height = MARGIN + 30 + 20 * number
        parts.append(f'<line x1="{across(0.05)}" x2="{across(0.1)}" y1="{height}" y2="{height}" stroke="{colour}"/>')
        parts.append(f'<text x="{across(0.12)}" y="{height + 4}">{name}: {bands} bands of {rows} rows</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    OUTPUT.write_text(drawing(), encoding="utf-8")
