"""Cut Noto Sans SC down to what reports and the page need: Latin, Greek, Cyrillic and the characters of GB 2312."""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools import subset

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "app/viewer/node_modules/@expo-google-fonts/noto-sans-sc/400Regular/NotoSansSC_400Regular.ttf"
TARGET = ROOT / "medseg/exports/fonts/NotoSansSC-Regular-subset.ttf"
RANGES = (
    (0x20, 0x180),  # Latin
    (0x370, 0x400),  # Greek
    (0x400, 0x460),  # Cyrillic
    (0x2010, 0x203B),  # punctuation
    (0x2190, 0x2194),  # arrows
    (0x2212, 0x2214),  # minus
    (0x2264, 0x2266),  # comparisons
    (0x3000, 0x3021),  # Chinese punctuation
    (0xFF00, 0xFF61),  # full width
)


def characters() -> list[int]:
    """Code points to keep."""
    places = [(row, cell) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF) if is_character(row, cell)]
    chinese = [ord(bytes(place).decode("gb2312")) for place in places]
    return sorted({*chinese, *(code for first, last in RANGES for code in range(first, last))})


def is_character(row: int, cell: int) -> bool:
    """Whether GB 2312 has one there."""
    try:
        bytes([row, cell]).decode("gb2312")
    except UnicodeDecodeError:
        return False
    return True


def main() -> int:
    """Write the subset; `make viewer` calls this after `npm ci`."""
    if not SOURCE.is_file():
        print(f"{SOURCE} is not there: run `make viewer`.", file=sys.stderr)
        return 1
    options = subset.Options(hinting=False, layout_features=[], name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14])
    font = subset.load_font(str(SOURCE), options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=characters())
    cutter.subset(font)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    subset.save_font(font, str(TARGET), options)
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
