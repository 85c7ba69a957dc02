"""Pictures: a folder of png and jpg files as a video, one frame per file, in natural order (frame 2
before frame 10), with 8 bits per channel, all of the same size.

VSPW, OVIS, and many other data sets come in this form. A folder has no frame rate of its own;
`FOLDER_FPS` is assumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from labeler.sources.rules import PICTURES
from labeler.video.container import VideoLimits, check_sizes
from labeler.video.scan import Scan
from teachers.errors import VideoError
from teachers.hashing import file_sha256

FOLDER_FPS = 24.0
"""The frame rate that is assumed for a folder of pictures, which has none of its own."""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, in natural order, without hidden ones and those in folders below
    it."""
    return sorted(
        (
            file
            for file in folder.iterdir()
            if file.suffix.lower() in PICTURES and not file.name.startswith(".")
        ),
        key=_natural,
    )


def read_picture(path: Path) -> np.ndarray:  # uint8 [H, W, 3] RGB
    """A picture file as it is; grey becomes RGB, transparency is dropped, 16 bits become 8."""
    picture = (
        cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
        if path.stat().st_size
        else None
    )
    if picture is None:
        raise VideoError("decode-error", f"{path}: not a picture that can be read.")
    return picture


def scan_folder(folder: Path, limits: VideoLimits) -> Scan:
    """The `Scan` of a folder: see `labeler.video.scan.scan`.

    Raises:
        VideoError: "not-a-video" (no picture in it), "too-large", or "decode-error" (its first
            picture cannot be read).
    """
    files = pictures_in(folder)
    if not files:
        raise VideoError(
            "not-a-video", f"{folder}: a folder without pictures ({', '.join(PICTURES)})."
        )
    height, width, _ = read_picture(files[0]).shape
    check_sizes(folder, (height, width), Fraction(1), len(files), limits)
    numbers = np.arange(len(files), dtype=np.int64)
    return Scan(
        codec=files[0].suffix.lower().removeprefix("."),
        container="folder",
        coded_size=(height, width),
        rotation=0,
        sample_aspect_ratio=Fraction(1),
        display_size=(height, width),
        pts=numbers,
        time_base=1 / Fraction(FOLDER_FPS),
        fps=FOLDER_FPS,
        key_pts=numbers,
        counted=False,
        interlaced=False,
        truncated=False,
        truncation="",
        unsafe=("it is a folder of pictures",),
    )


def content_sha256(path: Path) -> str:
    """sha256 of a file; for a folder, that of the names and contents of its pictures."""
    if not path.is_dir():
        return file_sha256(path)
    digest = hashlib.sha256()
    for file in pictures_in(path):
        digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


class PictureReader:
    """Reads the frames of a folder by their numbers."""

    def __init__(self, folder: Path) -> None:
        self._files = pictures_in(folder)

    def frames(self, indices: list[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3] RGB each, of the size of its file, whatever `size` is. VideoError for a
        picture that cannot be read."""
        del size
        for index in indices:
            yield read_picture(self._files[index])

    def close(self) -> None:
        """Nothing is open."""


def _natural(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key: numbers by their value, texts by their letters; 01 before 1."""
    pieces = [
        (int(piece), "") if piece.isdecimal() else (-1, piece)
        for piece in re.findall(r"\d+|\D+", file.name)
    ]
    return pieces, file.name
