"""Makes docs/demo.svg from a real run: cargo xtask demo | tee run.txt; python docs/demo-picture.py run.txt"""

import html
import sys
from pathlib import Path

WIDTH, SIZE, LEADING = 118, 13, 18
COLOURS = {"==": "#7ee787", "FAILED": "#ff7b72", "everything as promised": "#7ee787", "RELEASE": "#79c0ff", "$": "#79c0ff"}


def colour(line):
    return next((c for word, c in COLOURS.items() if word in line), "#e6edf3")


def main():
    text = Path(sys.argv[1]).read_text().replace("\t", "    ").splitlines()
    # Cargo's progress is no part of the picture.
    lines = ["$ cargo xtask demo"] + [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in text if not line.lstrip().startswith(("Compiling", "Finished", "Downloading"))]
    height = LEADING * (len(lines) + 2)
    rows = "\n".join(
        f'<text x="16" y="{LEADING * (i + 1.6):.0f}" fill="{colour(line)}">{html.escape(line)}</text>' for i, line in enumerate(lines) if line
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * 8} {height}" font-family="ui-monospace, Menlo, Consolas, monospace" '
        f'font-size="{SIZE}" xml:space="preserve">\n<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n{rows}\n</svg>\n'
    )
    (Path(__file__).parent / "demo.svg").write_text(svg)


if __name__ == "__main__":
    main()
