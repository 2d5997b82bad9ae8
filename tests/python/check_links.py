"""Follows every relative link of every Markdown page: the file must be there, and the heading too where one is named.

Run by `cargo xtask test`; prints what leads nowhere and exits 1.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")


def prose(text):
    """Without code, where brackets mean other things."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page):
    headings = re.findall(r"^#+ +(.*?)\s*$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def main():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    pages = [ROOT / name for name in listed.splitlines()]
    followed, broken = 0, []
    for page in pages:
        for link in LINK.findall(prose(page.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            followed += 1
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(ROOT)}: {link} is not there")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                broken.append(f"{page.relative_to(ROOT)}: {link}: no such heading")
    if followed == 0:
        broken.append("no link was found at all")
    print("\n".join(f"FAILED {line}" for line in broken) or f"ok     {followed} links of {len(pages)} pages")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
