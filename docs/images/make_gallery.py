"""Makes the pictures of docs/gallery.md that are not those of other pages.

    python -m docs.images.make_gallery

It runs in the folder in which those of the tutorial were made, and needs a Chromium.
"""

import base64
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from docs.images.make_tutorial import (
    IMAGES,
    animate,
    beside,
    looked_at,
    opened,
    shrunk,
    store,
)
from labeler import draw_tracks, rainbow
from student import SynthConfig, generate

LIVE = ("lk", "tapir-mini", "student/student.safetensors")
VIDEO = Path("kept_aside/singer.mp4")


def agreement() -> None:
    """Every second frame of the README's picture, smaller."""
    with Image.open(IMAGES / "readme.webp") as picture:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    animate("gallery-agreement", [shrunk(frame, 600) for frame in frames[::2]], fps=6, quality=45)


def plot() -> None:
    """What a notebook shows of a clip."""
    drawn = BytesIO()
    looked_at().plot().savefig(drawn, dpi=80)
    store("gallery-plot", np.array(Image.open(drawn).convert("RGB")))


def exact() -> None:
    """Three frames of a procedural clip with its true tracks."""
    clip = generate(3, SynthConfig(split="test", points=96))
    drawn = draw_tracks(clip.frames, clip.xy, clip.visible, rainbow(clip.queries), only=(6, 14, 22))
    store("gallery-exact", shrunk(beside(list(drawn)), 1100), quality=65)


def live() -> None:
    """The page, with three trackers on a video."""
    command = [sys.executable, "-m", "tapdistill", "live", "--port", "0", "--teacher", *LIVE]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = next(line.split()[1] for line in server.stdout if line.startswith("open "))
        data = base64.b64encode(VIDEO.read_bytes()).decode()
        with opened(address) as look:
            look.run(f"""
                await until(() => document.querySelectorAll("#trackers input").length === 3);
                for (const box of document.querySelectorAll("#trackers input")) box.checked = true;
                const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
                await openVideo(new File([bytes], "{VIDEO.name}"));
                await until(() => state.source === "video" && state.shown);
                $("across").value = 7;
                $("grid").click();
                await until(() => state.points.size > 10);
                $("play").click();
                await until(() => state.shown.frame >= 24);
                $("play").click();
                await wait(1500);""")
            store("gallery-live", look.picture(height=640))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    for name in sys.argv[1:] or ("agreement", "plot", "exact", "live"):
        globals()[name]()
