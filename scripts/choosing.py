"""Put what `registry tune` and `registry quality` told into docs/choosing.md.

    registry tune sql-json && registry tune four-skills && …      (the page names them all)
    python scripts/choosing.py

A block between `<!-- from PATH -->` and `<!-- end -->` becomes the tables of the report
`.registry/PATH`; a picture `choosing-NAME.svg` is copied from where `<!-- picture PATH -->` says.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = REPOSITORY / ".registry"
PAGE = REPOSITORY / "docs/choosing.md"

_BLOCK = re.compile(r"(<!-- from (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PICTURE = re.compile(r"<!-- picture (\S+) -->\n!\[[^]]*\]\((choosing-[a-z0-9-]+\.svg)\)")


def main() -> None:
    """Rewrite the page and copy its pictures."""
    text = PAGE.read_text("utf-8")
    text = _BLOCK.sub(lambda found: f"{found[1]}\n{tables(found[2])}\n{found[3]}", text)
    PAGE.write_text(text, "utf-8")
    for source, name in _PICTURE.findall(text):
        shutil.copyfile(STATE / source, PAGE.parent / name)


def tables(path: str) -> str:
    """Return the tables of a report."""
    blocks = (STATE / path).read_text("utf-8").split("\n\n")
    kept = [block.strip() for block in blocks if block.startswith("| ")]
    return "\n\n".join(kept) + "\n"


if __name__ == "__main__":
    main()
