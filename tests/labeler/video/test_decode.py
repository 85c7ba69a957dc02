"""Decoding: every frame that comes out is the one that was asked for, and a file that cannot be
trusted says so."""

from __future__ import annotations

import struct
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import fsspec
import numpy as np
import pytest

from labeler.video.container import VideoLimits
from labeler.video.decode import open_video, resized, shown, target_size
from labeler.video.scan import scan
from teachers.errors import ConfigError, VideoError
from tests.support.video_files import (
    FRAMES,
    RATE,
    cut,
    number_in,
    numbers_in,
    painted,
    trim_without_coding,
    write_audio,
    write_video,
)

VFR_MS = [i * 40 + (i % 3) * 11 for i in range(FRAMES)]
OPEN_X264 = {"x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0:scenecut=0"}
OPEN_X265 = {"x265-params": "open-gop=1:keyint=20:bframes=4:scenecut=0:log-level=none:pools=1"}
X265_DEFAULTS = {"x265-params": "log-level=none:pools=1"}

SAFE = {  # kinds on which decord was measured to be exact
    "h264.mp4": {},
    "h264.mkv": {},
    "vfr.mp4": {"pts": VFR_MS},
    "sound.mp4": {"audio": True},
    "odd-444.mp4": {"pix_fmt": "yuv444p", "size": (47, 65)},
    "10-bit.mp4": {"pix_fmt": "yuv420p10le"},
    "intra-refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=20:bframes=0"}},
    "interlaced.mp4": {"options": {"flags": "+ildct+ilme"}},
    "hevc.mp4": {"codec": "libx265"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9-odd.webm": {"codec": "libvpx-vp9", "size": (47, 65)},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "sar.mp4": {"sar": Fraction(4, 3)},
    "one-frame.mp4": {"frames": 1},
}
UNSAFE = {  # kinds on which it is wrong, hangs, or does not open; and what the scan says against it
    "open-gop.mp4": ({"options": OPEN_X264}, "open GOP"),
    "hevc-open-gop.mp4": ({"codec": "libx265", "options": OPEN_X265}, "open GOP"),
    "mpeg2-open-gop.mpg": ({"codec": "mpeg2video", "options": {"bf": "2"}}, "open GOP"),
    "h264.ts": ({}, "MPEG-TS"),
    "interlaced.ts": ({"options": {"flags": "+ildct+ilme"}}, "interlaced"),
    "edit-list.mp4": ({}, "edit list"),
    "h264.flv": ({}, "pts 83, not 0"),
    "fragmented.mp4": ({"container": {"movflags": "+frag_keyframe+empty_moov"}}, "pts 1024, not 0"),
    "h264.avi": ({}, "stores no pts"),
    "mpeg4.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, "stores no pts"),
    "raw.h264": ({}, "no pts of their own"),
    "av1.mp4": ({"codec": "libsvtav1", "size": (64, 64)}, "does not read av1"),
    "gif.gif": ({"codec": "gif", "pix_fmt": "rgb8"}, "does not read gif"),
    "two-streams.mp4": ({"video_streams": 2}, "several video streams"),
    "16x16.mp4": ({"size": (16, 16)}, "cannot decode its first frame"),
}
FIRST = {"edit-list.mp4": 25}
"""Number painted in the first shown frame, where it isn't 0."""


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one video of each kind."""
    folder = tmp_path_factory.mktemp("videos")
    for name, settings in (
        SAFE | {name: settings for name, (settings, _) in UNSAFE.items()}
    ).items():
        if name != "edit-list.mp4":
            write_video(folder / name, **settings)
    trim_without_coding(folder / "h264.mp4", folder / "edit-list.mp4", first=FIRST["edit-list.mp4"])
    write_video(
        folder / "10-bit-hevc.mp4", codec="libx265", pix_fmt="yuv420p10le", options=X265_DEFAULTS
    )
    write_video(folder / "index-first.mp4", container={"movflags": "+faststart"})
    write_audio(folder / "sound.m4a")
    return folder


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize("name", [*SAFE, *UNSAFE, "10-bit-hevc.mp4"])
def test_every_frame_is_the_one_asked_for(videos, name, decoder):
    rng = np.random.default_rng(7)
    first = FIRST.get(name, 0)
    with open_video(videos / name, decoder=decoder) as video:
        count = len(video)
        assert count == (1 if name == "one-frame.mp4" else FRAMES - first)
        for _ in range(5):
            wanted = np.arange(rng.integers(count), count, rng.integers(1, 4))[:8]
            assert numbers_in(video.read(wanted)) == (wanted + first).tolist()
        wanted = rng.integers(0, count, 6)
        assert numbers_in(video.read(wanted)) == (wanted + first).tolist(), (
            "any order, with repeats"
        )
        assert [(i, number_in(frame) - first) for i, frame in video.stream(step=7)] == [
            (i, i) for i in range(0, count, 7)
        ]


@pytest.mark.parametrize("name", [*SAFE, "open-gop.mp4", "h264.ts"])
def test_auto_is_pyav(videos, name):
    with open_video(videos / name) as video:
        assert video.decoder == "pyav"


@pytest.mark.parametrize("name", SAFE)
def test_decord_is_right_where_the_scan_finds_nothing_against_it(videos, name):
    with open_video(videos / name, decoder="decord") as video:
        wanted = [0] if name == "one-frame.mp4" else [40, 3, 17]
        assert numbers_in(video.read(wanted)) == wanted


@pytest.mark.parametrize(
    ("name", "reason"), [(name, reason) for name, (_, reason) in UNSAFE.items()]
)
def test_decord_is_refused_where_it_is_wrong_with_the_reason(videos, name, reason):
    with pytest.raises(VideoError, match=reason) as caught:
        open_video(videos / name, decoder="decord")
    assert caught.value.reason == "unsafe-decoder"


def test_a_forced_decord_may_be_told_to_be_unsafe(videos):
    with open_video(videos / "open-gop.mp4", decoder="decord", unsafe=True) as video:
        assert video.decoder == "decord"
        assert "open GOP" in video.why


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mjpeg.avi", "odd-444.mp4"])
def test_the_decoder_hardly_changes_8_bit_pixels(videos, name):
    with (
        open_video(videos / name, decoder="decord") as one,
        open_video(videos / name, decoder="pyav") as other,
    ):
        first, second = (video.read([3, 30], short_side=24).astype(int) for video in (one, other))
        assert np.abs(first - second).mean() < 4


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264.ts", "open-gop.mp4", "intra-refresh.mp4", "raw.h264"]
)
def test_the_order_of_reads_does_not_change_a_pixel(videos, name):
    with open_video(videos / name) as video:
        forth = [video.read([i])[0] for i in range(0, FRAMES, 3)]
    with open_video(videos / name) as video:
        back = [video.read([i])[0] for i in reversed(range(0, FRAMES, 3))]
    np.testing.assert_array_equal(forth, back[::-1])


def test_timestamps_come_from_the_file(videos):
    with open_video(videos / "vfr.mp4") as video:
        np.testing.assert_allclose(video.timestamps_s, np.array(VFR_MS) / 1000, atol=1e-9)
        # 56 ms: the last frame, about
        assert video.fps == pytest.approx(FRAMES / (VFR_MS[-1] + 56) * 1000, rel=0.01)
    for name in ("h264.mp4", "h264.ts", "h264.mkv", "edit-list.mp4", "h264.avi"):
        with open_video(videos / name) as video:
            # MKV rounds to 1 ms
            np.testing.assert_allclose(
                video.timestamps_s, np.arange(len(video)) / RATE, atol=0.6e-3
            )


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_frames_are_turned_as_a_player_turns_them(tmp_path, decoder, degrees):
    path = write_video(tmp_path / "turned.mp4", size=(64, 128), frames=8, rotation=degrees)
    with open_video(path, decoder=decoder) as video:
        frame = video.read([5])[0]
        assert video.size == frame.shape[:2] == ((64, 128) if degrees == 180 else (128, 64))
    upright = np.rot90(frame, -degrees // 90)
    # chroma subsampling, coding
    assert np.abs(upright.astype(int) - painted(5, 64, 128)).mean() < 12
    opencv = cv2.VideoCapture(str(path))
    opencv.set(cv2.CAP_PROP_POS_FRAMES, 5)
    theirs = opencv.read()[1][..., ::-1].astype(int)  # with the nearest chroma sample
    assert frame.shape == theirs.shape
    assert np.abs(frame - theirs).mean() < 4


def test_pixels_become_square(videos):
    with open_video(videos / "sar.mp4") as video:
        assert video.size == (48, 85)  # 64 x 4/3
        assert video.read([0]).shape == (1, 48, 85, 3)
        assert video.read([0], short_side=24, multiple=8).shape == (1, 24, 40, 3)


def test_x_is_scaled_before_the_rotation(tmp_path):
    path = write_video(tmp_path / "both.mp4", size=(64, 96), frames=2, rotation=90, sar=Fraction(2))
    with open_video(path) as video:
        assert video.size == (192, 64)


@pytest.mark.parametrize(
    ("size", "short_side", "multiple", "expected"),
    [
        ((1080, 1920), 384, 8, (384, 680)),  # 682.7 px wide
        ((1920, 1080), 384, 8, (680, 384)),
        ((480, 640), 384, 1, (384, 512)),
        ((100, 200), 384, 1, (100, 200)),  # never enlarged
        ((100, 203), None, 8, (96, 200)),
        ((20, 1000), 4, 8, (8, 200)),  # floored, but not to 0
        ((8, 8), 384, 8, (8, 8)),
    ],
)
def test_target_sizes(size, short_side, multiple, expected):
    assert target_size(size, short_side, multiple) == expected


def test_a_video_smaller_than_the_multiple_is_too_small(videos):
    with (
        open_video(videos / "16x16.mp4") as video,
        pytest.raises(VideoError, match="16 x 16 px are fewer than 32") as caught,
    ):
        video.read([0], multiple=32)
    assert caught.value.reason == "too-small"


def test_the_resize_averages_areas():
    frame = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    means = frame.reshape(8, 4, 16, 4, 3).mean((1, 3))
    np.testing.assert_allclose(resized(frame, (8, 16)), means, atol=0.51)


def test_bytes_and_urls_read_like_paths(videos):
    data = (videos / "h264.mp4").read_bytes()
    with fsspec.open("memory://videos/a.mp4", "wb") as file:
        file.write(data)
    for source in (
        data,
        "memory://videos/a.mp4",
        f"file://{videos / 'h264.mp4'}",
        str(videos / "h264.mp4"),
    ):
        with open_video(source) as video:
            assert numbers_in(video.read([40, 2])) == [40, 2]


def test_temporary_copies_are_deleted(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_video((videos / "h264.mp4").read_bytes()):
        assert [path for path in tmp_path.iterdir() if path.is_dir()]
    with pytest.raises(VideoError):
        open_video(b"this is no video")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # but this process's lock


def test_a_name_with_a_colon_is_a_file_and_no_protocol(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("concat:a.mp4").write_bytes((videos / "h264.mp4").read_bytes())
    for decoder in ("decord", "pyav"):
        with open_video("concat:a.mp4", decoder=decoder) as video:
            assert len(video) == FRAMES


@pytest.mark.parametrize(
    "name",
    ["index-first.mp4", "h264.mkv", "vp9.webm", "h264.ts", "h264.avi", "h264.flv", "mjpeg.avi"],
)
def test_of_a_cut_file_counts_what_decodes(videos, tmp_path, name):
    whole = videos / name
    with open_video(cut(whole, tmp_path / name, 0.6)) as video:
        assert video.decoder == "pyav"
        assert 0.4 * FRAMES < len(video) < 0.7 * FRAMES
        assert numbers_in(video.read(range(len(video)))) == list(range(len(video)))
        if name != "h264.ts":  # promises nothing
            assert video.truncated
            assert video.scan.truncation


@pytest.mark.parametrize("name", [*SAFE, *UNSAFE])
def test_a_whole_file_is_not_called_cut(videos, name):
    assert not scan(videos / name).truncated


def test_frames_before_and_after_a_damage_stay_readable(videos, tmp_path):
    data = bytearray((videos / "h264.mp4").read_bytes())
    with av.open(str(videos / "h264.mp4")) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[30]
    data[position + 4 : position + size] = bytes(size - 4)
    for decoder in ("auto", "pyav"):
        with open_video(bytes(data), decoder=decoder) as video:
            with pytest.raises(
                VideoError, match=f"video of {len(data)} bytes: frame .* cannot be decoded"
            ) as caught:
                video.read(range(FRAMES))
            assert caught.value.reason == "decode-error"
            assert numbers_in(video.read(range(25))) == list(range(25))
            assert numbers_in(video.read(range(45, 60))) == list(range(45, 60))


def test_frames_of_another_size_are_shown_at_the_first_size_within_the_limits(videos, tmp_path):
    larger = write_video(tmp_path / "larger.h264", size=(96, 128)).read_bytes()
    with open_video((videos / "raw.h264").read_bytes() + larger) as video:
        assert numbers_in(video.read(range(FRAMES))) == list(range(FRAMES))
        assert video.read([60]).shape == (1, 48, 64, 3)
    with open_video(
        (videos / "raw.h264").read_bytes() + larger, limits=VideoLimits(max_side_px=64)
    ) as video:
        assert video.truncated  # what is above the limits is never decoded
        assert FRAMES - 3 <= len(video) <= FRAMES  # the decoder still held some when it refused


def test_a_picture_that_is_never_shown_has_no_number(videos, tmp_path):
    """VP8 codes reference pictures that are not shown: a packet, but no frame."""
    with (
        av.open(str(videos / "vp8.webm")) as there,
        av.open(str(tmp_path / "hidden.webm"), "w") as out,
    ):
        stream = out.add_stream_from_template(there.streams.video[0])
        for i, packet in enumerate(there.demux(video=0)):
            if packet.dts is not None:
                if i == 30:
                    data = bytearray(bytes(packet))
                    data[0] &= ~0x10  # show_frame, RFC 6386, 9.1
                    packet.update(bytes(data))
                packet.stream = stream
                out.mux(packet)
    with open_video(tmp_path / "hidden.webm") as video:
        assert video.decoder == "pyav"
        assert numbers_in(video.read(range(len(video)))) == [i for i in range(FRAMES) if i != 30]


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_files_that_are_no_video_say_what_they_are(videos, tmp_path):
    whole = (videos / "h264.mp4").read_bytes()
    cases = {
        "not-found": (tmp_path / "missing.mp4", "there is no such file"),
        "empty": (_write(tmp_path / "empty.mp4", b""), "the file is empty"),
        "no-video-stream": (videos / "sound.m4a", "no video in it, only audio"),
        "decode-error": (
            _write(tmp_path / "no-index.mp4", whole[: len(whole) // 2]),
            "without its index",
        ),
    }
    for reason, (path, text) in cases.items():
        with pytest.raises(VideoError, match=f"{path.name}: .*{text}") as caught:
            open_video(path)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.txt", b"not a video at all\n" * 50),  # libav would show it as a terminal's output
        ("text.mp4", b"not a video at all\n" * 50),
        ("noise.mp4", np.random.default_rng(0).bytes(5000)),
        # would open other files
        ("list.m3u8", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:2,\n/etc/hostname\n#EXT-X-ENDLIST\n"),
        ("photo.png", cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()),
    ],
)
def test_texts_playlists_and_photos_are_not_videos(tmp_path, name, data):
    with pytest.raises(VideoError, match=f"{name}: not a video") as caught:
        open_video(_write(tmp_path / name, data))
    assert caught.value.reason == "not-a-video"


def test_a_folder_is_not_a_video(tmp_path):
    with pytest.raises(VideoError, match="a folder without pictures"):
        open_video(tmp_path)


@pytest.mark.parametrize(
    ("side", "reason", "text"),
    [
        (10_000, "too-large", "frames of 10000 x 10000 px are above the limit of 8192"),
        (100_000, "decode-error", "no frame size that libav accepts"),
    ],
)
def test_sizes_are_refused_before_anything_is_allocated(tmp_path, side, reason, text):
    path = write_video(tmp_path / "huge.avi", codec="rawvideo", frames=2)
    data = path.read_bytes()
    header = data.index(b"strf") + 12  # BITMAPINFOHEADER: size, width, height
    path.write_bytes(data[:header] + struct.pack("<ii", side, side) + data[header + 8 :])
    with pytest.raises(VideoError, match=f"huge.avi: .*{text}") as caught:
        open_video(path)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (VideoLimits(max_side_px=63), "64 x 48 px are above the limit of 63"),
        (VideoLimits(max_frames=59), "more than 59 frames"),
        (VideoLimits(max_gib=1e-6), "GiB are above the limit"),
    ],
)
@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv"])
def test_limits_are_kept(videos, name, limits, text):
    with pytest.raises(VideoError, match=text) as caught:
        scan(videos / name, limits)
    assert caught.value.reason == "too-large"


def test_a_download_stops_at_the_limit():
    with fsspec.open("memory://videos/large.mp4", "wb") as file:
        file.write(bytes(2000))
    with pytest.raises(
        VideoError, match=r"memory://videos/large\.mp4: the file is above the limit"
    ):
        open_video("memory://videos/large.mp4", limits=VideoLimits(max_gib=1e-6))


def test_a_limit_of_0_is_refused():
    with pytest.raises(ConfigError, match="must be above 0"):
        VideoLimits(max_frames=0)


def test_urls_that_fail_say_whose_fault_it_is():
    with pytest.raises(VideoError, match=r"memory://nowhere\.mp4: there is no such file") as caught:
        open_video("memory://nowhere.mp4")
    assert caught.value.reason == "not-found"
    with pytest.raises(VideoError, match=r"nosuch://a/b\.mp4: not an address that can be read"):
        open_video("nosuch://a/b.mp4")
    with pytest.raises(VideoError, match=r"\*\*\*@127.0.0.1:9/b.mp4: reading failed") as failed:
        open_video("http://user:secret@127.0.0.1:9/b.mp4?signature=secret")
    assert (failed.value.reason, "secret" in str(failed.value)) == ("unreachable", False)


@pytest.fixture
def server(videos):
    """A web server: /<status> answers with it, anything else is the video."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = int(self.path[1:]) if self.path[1:].isdigit() else 200
            body = (videos / "h264.mp4").read_bytes() if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_web_addresses_tell_a_missing_file_from_a_sick_server(server):
    with open_video(f"{server}/a.mp4") as video:
        assert numbers_in(video.read([7])) == [7]
    for status, reason in (
        (404, "not-found"),
        (410, "not-found"),
        (401, "forbidden"),
        (403, "forbidden"),
    ):
        with pytest.raises(VideoError, match=f"/{status}: ") as caught:
            open_video(f"{server}/{status}")
        assert caught.value.reason == reason
    for status in (429, 500, 503):
        with pytest.raises(VideoError, match=f"/{status}: reading failed .*HTTP {status}"):
            open_video(f"{server}/{status}")


def test_credentials_are_not_shown():
    assert shown("s3://key:secret@bucket/a.mp4") == "s3://***@bucket/a.mp4"
    assert shown("https://host/a.mp4?X-Amz-Signature=secret") == "https://host/a.mp4"


def test_frames_that_do_not_exist_are_refused(videos):
    with open_video(videos / "h264.mp4") as video:
        for indices in ([60], [3, -1]):
            with pytest.raises(
                ConfigError, match=r"h264.mp4: no frame (60|-1): the video has frames 0..59"
            ):
                video.read(indices)
        assert video.read([]).shape == (0, 48, 64, 3)


def test_decoders_write_nothing_to_the_terminal(videos, tmp_path, capfd):
    with open_video(cut(videos / "index-first.mp4", tmp_path / "cut.mp4", 0.6)) as video:
        video.read([0, 20])
    with pytest.raises(VideoError):
        open_video(_write(tmp_path / "noise.mp4", b"\0\0\0\x18ftypmp42" + bytes(500)))
    assert capfd.readouterr() == ("", "")
