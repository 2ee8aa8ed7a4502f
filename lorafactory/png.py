"""What a PNG file has in its chunks, found without decoding a pixel."""

from __future__ import annotations

from pathlib import Path

WORDS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""Chunks that may tell how a picture is to be turned."""
SIGNATURE = 8


def told_after_pixels(path: Path) -> bool:
    """True if there are words behind the pixels, for which Pillow decodes all of them: 50 ms a megapixel."""
    with path.open("rb") as file:
        file.seek(SIGNATURE)
        behind = False
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4]), head[4:]
            if behind and kind in WORDS:
                return True
            behind = behind or kind == b"IDAT"
            file.seek(length + 4, 1)  # over the chunk and its checksum
    return False
