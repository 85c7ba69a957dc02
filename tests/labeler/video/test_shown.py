"""Frames as a player shows them: display matrices, palettes, times, joined and odd files. Each
frame carries its number, and the orientation is read from where the number stands."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from labeler.video.decode import open_video
from labeler.video.frames import open_frames
from tests.support.video_files import number_in, numbers_in, painted

N, H, W = 30, 48, 64
M = {"bf": "2", "qmax": "3"}
"""Options for MPEG-1, 2, and 4."""


def write(path: Path, codec: str = "libx264", pix: str = "yuv420p", **settings) -> Path:
    """Numbered frames; `times`, `size`, `form`, `options`, and `first` (number) as given."""
    height, width = settings.get("size", (H, W))
    times = settings.get("times", range(N))
    with av.open(str(path), "w", format=settings.get("form")) as container:
        stream = container.add_stream(codec, rate=25, options=settings.get("options", {}))
        stream.height, stream.width, stream.pix_fmt = height, width, pix
        for i, time in enumerate(times, settings.get("first", 0)):
            rgb = painted(i, height, width)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pix)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def with_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """The mp4 with another display matrix in its track header."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4
    at += 4 + (32 if data[at] else 20) + 16
    a, b, c, d = (int(value * 65536) for value in (a, b, c, d))
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def timed_as_decoded(path: Path) -> Path:
    """An mp4 with B-frames whose writer stored the times of decoding as pts."""
    made = write(path.with_name("right.mp4"), options={"bf": "3", "g": "12"})
    with av.open(str(made)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for i, packet in enumerate(p for p in source.demux() if p.size):
            packet.pts = packet.dts = i * packet.duration
            packet.stream = stream
            container.mux(packet)
    return path


def indexed_avi(path: Path) -> Path:
    """Raw 8-bit frames with a palette, bottom-up, as MATLAB and older cameras write them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def group(name: bytes, *parts: bytes) -> bytes:
        return chunk(b"LIST", name + b"".join(parts))

    # index i is the grey level 255 - i: who loses the palette shows other numbers
    frames = [255 - painted(i)[::-1, :, 0] for i in range(N)]
    palette = b"".join(bytes((255 - v,) * 3 + (0,)) for v in range(256))
    main = struct.pack("<10I16x", 40000, W * H * 25, 0, 0x10, N, 0, 1, W * H, W, H)
    head = b"vidsDIB " + struct.pack("<IHHIIIIIIIIhhhh", 0, 0, 0, 0, 1, 25, 0, N, W * H, *[0] * 6)
    form = struct.pack("<IiiHHIIiiII", 40, W, H, 1, 8, 0, W * H, 0, 0, 256, 256) + palette
    movi = b"".join(chunk(b"00db", frame.tobytes()) for frame in frames)
    index = b"".join(
        b"00db" + struct.pack("<III", 16, 4 + i * (8 + W * H), W * H) for i in range(N)
    )
    stream = group(b"strl", chunk(b"strh", head), chunk(b"strf", form))
    body = group(b"hdrl", chunk(b"avih", main), stream)
    body += group(b"movi", movi) + chunk(b"idx1", index)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body)
    return path


@pytest.mark.parametrize(
    ("matrix", "show"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
        ((1, 0, 0, -1), lambda x: x[::-1]),
        ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((0, -1, 1, 0), lambda x: np.rot90(x)),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
        ((0, 0, 0, 0), lambda x: x),
        ((2, 0, 0, 2), lambda x: x),
    ],
)
def test_every_display_matrix_is_followed(tmp_path, matrix, show):
    """(x, y) goes to (a x + c y, b x + d y), y down: ISO 14496-12, and worked by hand."""
    path = write(tmp_path / "a.mp4", times=range(3))
    with open_video(path) as video:
        plain = video.read([0, 1, 2])
    with_matrix(path, *matrix)
    for decoder in ("auto", "pyav"):
        with open_video(path, decoder=decoder) as video:
            frames = video.read([0, 1, 2])
            assert video.size == frames.shape[1:3]
        shown = np.stack([show(frame) for frame in plain])
        assert frames.shape == shown.shape
        assert np.abs(frames.astype(int) - shown).mean() < 2


FILES = {
    "mpeg1.m1v": lambda path: write(path, "mpeg1video", form="mpeg1video", options=M),
    "mpeg2.m2v": lambda path: write(path, "mpeg2video", form="mpeg2video", options=M),
    "mpeg4.m4v": lambda path: write(path, "mpeg4", form="m4v", options=M),
    "film.mjpeg": lambda path: write(path, "mjpeg", "yuvj420p", form="mjpeg", options={"q:v": "2"}),
    "film.rm": lambda path: write(path, "rv20", size=(144, 176)),
    "film.apng": lambda path: write(path, "apng", "rgb24"),
    "indexed.avi": indexed_avi,
    "grey.mov": lambda path: write(path, "rawvideo", "gray"),
    "plain.y4m": lambda path: write(path, "wrapped_avframe", form="yuv4mpegpipe"),
    "mjpeg.avi": lambda path: write(path, "mjpeg", "yuvj420p", options={"q:v": "2"}),
    "mpeg4.avi": lambda path: write(path, "mpeg4"),
    "ffv1.mkv": lambda path: write(path, "ffv1"),
    "vp9.webm": lambda path: write(path, "libvpx-vp9"),
    "h264.ts": lambda path: write(path, form="mpegts"),
    "raw.h264": lambda path: write(path, form="h264"),
    "mpeg2.mpg": lambda path: write(path, "mpeg2video", form="mpeg", options={"q:v": "2"}),
    "film.gif": lambda path: write(path, "gif", "rgb8"),
    "bframes.mp4": lambda path: write(path, options={"bf": "3"}),
    "qtrle.mov": lambda path: write(path, "qtrle", "rgb24"),
    "png.mov": lambda path: write(path, "png", "rgb24"),
}


@pytest.mark.parametrize("name", FILES)
def test_frames_are_the_same_in_any_order(tmp_path, name):
    path = FILES[name](tmp_path / name)
    with open_video(path) as video:
        assert numbers_in(video.read(range(len(video)))) == list(range(N))
        assert not video.truncated
        assert video.fps == pytest.approx(25, rel=0.02)
    for order in ([5], [29, 0, 7], [20, 3, 3]):
        with open_video(path) as video:
            assert numbers_in(video.read(order)) == order


def test_a_pipe_gives_what_the_file_gives(tmp_path):
    path = with_matrix(write(tmp_path / "a.mp4", options={"bf": "0"}), -1, 0, 0, 1)
    mkv = tmp_path / "a.mkv"
    with av.open(str(path)) as source, av.open(str(mkv), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                sink.mux(packet)
    for file in (mkv, FILES["plain.y4m"](tmp_path / "plain.y4m")):
        with open_frames(str(file)) as whole:
            expected = list(whole.frames)
        with Pipe(file.read_bytes()) as name, open_frames(name) as live:
            found = list(live.frames)
        np.testing.assert_array_equal(np.stack(found), np.stack(expected))


class Pipe:
    """A named pipe that is fed with `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __enter__(self) -> str:
        self._folder = tempfile.TemporaryDirectory()
        name = os.path.join(self._folder.name, "pipe")
        os.mkfifo(name)
        self._thread = threading.Thread(target=lambda: Path(name).write_bytes(self._data))
        self._thread.start()
        return name

    def __exit__(self, *exception: object) -> None:
        self._thread.join(10)
        self._folder.cleanup()


def test_a_camcorders_header_is_not_believed(tmp_path):
    path = write(tmp_path / "a.dv", "dvvideo", size=(576, 720), form="dv", times=range(5))
    with open_video(path) as video:
        assert video.fps == 25
        assert np.diff(video.timestamps_s) == pytest.approx(0.04)
        assert numbers_in(video.read([4, 1])) == [4, 1]


@pytest.mark.parametrize("second", [0, 40])
@pytest.mark.parametrize("bframes", ["0", "2"])
def test_joined_recordings_are_one(tmp_path, second, bframes):
    """`cat a.ts b.ts`: the second starts at the same time, or at an earlier one that overlaps
    nothing."""
    options = {"bf": bframes}
    one = write(tmp_path / "1.ts", form="mpegts", options=options, times=range(second, second + N))
    two = write(tmp_path / "2.ts", form="mpegts", options=options, first=N)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    with open_video(joined) as video:
        assert (len(video), video.truncated) == (2 * N, False)
        assert numbers_in(video.read(range(2 * N))) == list(range(2 * N))
        assert numbers_in(video.read([45, 3])) == [45, 3]


def test_frames_behind_a_change_of_size_are_shown_at_the_first_size(tmp_path):
    small = write(tmp_path / "1.ts", form="mpegts")
    large = write(tmp_path / "2.ts", form="mpegts", first=N, size=(2 * H, 2 * W))
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(joined) as video:
        frames = video.read(range(2 * N))
        assert frames.shape == (2 * N, H, W, 3)
        assert numbers_in(frames) == list(range(2 * N))


def test_the_film_of_an_avif_is_taken_and_not_its_still_picture(tmp_path):
    pictures = [Image.fromarray(painted(i)) for i in range(N)]
    pictures[0].save(
        tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40, quality=95
    )
    with open_video(tmp_path / "a.avif") as video:
        assert numbers_in(video.read(range(len(video)))) == list(range(N))
        assert video.fps == pytest.approx(25)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_times_of_decoding_are_not_taken_for_those_of_frames(tmp_path, name):
    path = timed_as_decoded(tmp_path / name)
    with av.open(str(path)) as container:
        out = [frame.pts for frame in container.decode(video=0)]
    assert out != sorted(out), "the file is not what it should be"
    with open_video(path) as video:
        assert (len(video), video.truncated, video.scan.counted) == (N, False, True)
        assert numbers_in(video.read(range(N))) == list(range(N))
        assert numbers_in(video.read([17, 4])) == [17, 4]
        assert video.timestamps_s * 25 == pytest.approx(np.arange(N))
        assert video.fps == pytest.approx(25)
        assert any("no pts of its frames" in reason for reason in video.scan.unsafe)


def test_dropped_frames_of_an_avi_are_gaps_in_time(tmp_path):
    times = [*range(10), *range(15, 35)]
    path = write(tmp_path / "a.avi", "mpeg4", times=times)
    with open_video(path) as video:
        assert not video.truncated
        assert numbers_in(video.read(range(len(video)))) == list(range(N))
        assert video.timestamps_s * 25 == pytest.approx(times)


def test_the_rate_is_that_of_the_frames_own_times(tmp_path):
    path = write(tmp_path / "a.mkv", times=[0, 1, 2, *range(20, 37)])
    with open_video(path) as video:
        assert video.fps == pytest.approx(19 / 36 * 25, rel=0.02)


def test_what_is_read_from_memory_is_what_the_file_gives(tmp_path):
    data = indexed_avi(tmp_path / "a.avi").read_bytes()
    assert io.BytesIO(data).getvalue() == data
    with open_video(data) as video:
        assert number_in(video.read([7])[0]) == 7


@pytest.mark.parametrize("orientation", [1, 6])
def test_frames_with_exif_are_shown_as_it_says(tmp_path, orientation):
    """Side data that PyAV has no name for is no obstacle; 6: a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x112] = orientation
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = H, W, "yuvj420p"
        for i in range(4):
            jpeg = io.BytesIO()
            Image.fromarray(painted(i)).save(jpeg, "jpeg", quality=95, exif=exif)
            packet = av.Packet(jpeg.getvalue())
            packet.pts = packet.dts = i
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            container.mux(packet)
    with open_video(tmp_path / "a.avi") as video:
        frames = video.read(range(4))
    assert numbers_in(np.rot90(frames, orientation == 6, (1, 2))) == [0, 1, 2, 3]


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("gap", [0, 10])
def test_the_parts_of_a_stream_are_one_recording(tmp_path, codec, gap):
    """`cat 0.ts 1.ts 2.ts`, as they come from an HLS server: time goes on, without a frame lost."""
    joined = tmp_path / "joined.ts"
    with joined.open("wb") as file:
        for part in range(3):
            times = range(part * (N + gap), part * (N + gap) + N)
            path = tmp_path / f"{part}.ts"
            settings = {"times": times, "first": part * N, "options": M}
            file.write(write(path, codec, form="mpegts", **settings).read_bytes())
    with open_video(joined) as video:
        assert (len(video), video.truncated) == (3 * N, False)
        assert numbers_in(video.read(range(3 * N))) == list(range(3 * N))
        assert numbers_in(video.read([70, 29, 2])) == [70, 29, 2]


def test_a_join_is_no_excuse_for_bytes_that_are_lost(tmp_path):
    options = {"bf": "2", "g": "8", "crf": "5"}
    data = write(tmp_path / "a.ts", form="mpegts", options=options).read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    lost = len(packets) // 2
    with open_video(b"".join(packets[:lost] + packets[lost + 4 :])) as video:
        assert video.truncated
        assert len(video) < N


def test_frames_after_a_change_of_size_are_not_lost_with_the_one_before(tmp_path):
    """MPEG-2 loses the last frame before it, in ffmpeg too."""
    options = {**M, "g": "100"}
    settings = {"codec": "mpeg2video", "form": "mpegts", "options": options}
    small = write(tmp_path / "1.ts", times=range(31), **settings)
    large = write(tmp_path / "2.ts", times=range(40, 70), first=31, size=(2 * H, 2 * W), **settings)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with av.open(str(joined)) as container:
        shown = [number_in(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert len(shown) == 60
    with open_video(joined) as video:
        assert numbers_in(video.read(range(len(video)))) == shown


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize("form", ["mpegts", "mpeg"])
def test_a_recording_that_starts_between_key_frames_starts_at_the_next(tmp_path, codec, form):
    options = {"bf": "2", "g": "20", "qmax": "5"}
    data = write(tmp_path / "a", codec, form=form, options=options).read_bytes()
    (tmp_path / "b").write_bytes(data[len(data) // 3 // 188 * 188 :])
    with av.open(str(tmp_path / "b")) as container:
        shown = [number_in(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert 3 < len(shown) < N
    with open_video(tmp_path / "b") as video:
        assert numbers_in(video.read(range(len(video)))) == shown
