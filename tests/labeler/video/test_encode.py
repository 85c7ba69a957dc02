"""An encoded clip gives the same bytes, the same number of frames in the same order, and the same
colours, here and in other readers."""

import io

import av
import cv2
import decord
import numpy as np
import pytest
import skimage.data
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from labeler.video.colours import Region
from labeler.video.encode import EncodeConfig, decode_clip, encode_clip
from teachers import ConfigError, ShardError
from tests.support.video_files import numbers_in, painted

SATURATED = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (255, 0, 255),
    (200, 30, 90),
    (255,) * 3,
    (0,) * 3,
]


@pytest.fixture(scope="module")
def moving():
    """A camera that moves over a photo: uint8 [80, 96, 128, 3]."""
    photo = cv2.resize(skimage.data.coffee(), (320, 213), interpolation=cv2.INTER_AREA)
    return np.stack([photo[50:146, t : t + 128] for t in range(80)])


def boxes(mp4):
    """Names of the top-level boxes of an mp4, in the order of the file (ISO/IEC 14496-12)."""
    names, at = [], 0
    while at < len(mp4):
        names.append(mp4[at + 4 : at + 8].decode())
        at += int.from_bytes(mp4[at : at + 4], "big")
    return names


def psnr_db(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("length", [1, 2, 8, 80])
def test_every_frame_comes_back_in_its_order(length):
    frames = np.stack([painted(i, 96, 128) for i in range(length)])
    assert numbers_in(decode_clip(encode_clip(frames, 24))) == list(range(length))


def test_equal_frames_give_equal_bytes_and_equal_bytes_equal_pixels(moving):
    mp4 = encode_clip(moving, 25)
    assert mp4 == encode_clip(moving.copy(), 25)
    np.testing.assert_array_equal(decode_clip(mp4), decode_clip(mp4))


def test_little_is_lost_and_no_colour_shifts(moving):
    decoded = decode_clip(encode_clip(moving, 25))
    assert decoded.dtype == np.uint8
    assert decoded.shape == moving.shape
    assert psnr_db(decoded, moving) > 34
    np.testing.assert_allclose(decoded.mean((0, 1, 2)), moving.mean((0, 1, 2)), atol=0.5)


@pytest.mark.parametrize("colour", SATURATED)
def test_saturated_colours_stay(colour):
    frames = np.full((8, 32, 32, 3), colour, np.uint8)
    np.testing.assert_allclose(decode_clip(encode_clip(frames, 25)), frames, atol=2)


@pytest.mark.parametrize("colour", SATURATED)
def test_another_reader_sees_the_same_colours(colour):
    frames = np.full((8, 32, 32, 3), colour, np.uint8)
    reader = decord.VideoReader(io.BytesIO(encode_clip(frames, 25)), num_threads=1)
    np.testing.assert_allclose(reader.get_batch(range(8)).asnumpy(), frames, atol=4)


def test_another_reader_sees_the_same_frames_at_random(moving):
    mp4 = encode_clip(moving, 30000 / 1001)
    reader = decord.VideoReader(io.BytesIO(mp4), num_threads=1)
    order = np.random.default_rng(0).permutation(80)
    there = np.stack([reader[int(i)].asnumpy() for i in order])
    assert np.abs(there.astype(int) - decode_clip(mp4)[order]).mean() < 2


@pytest.mark.parametrize("space", [Colorspace.ITU709, Colorspace.ITU601])
@pytest.mark.parametrize("extent", [ColorRange.MPEG, ColorRange.JPEG])
def test_the_tags_of_a_file_are_honoured(tmp_path, space, extent):
    path, frames = tmp_path / "tagged.mp4", np.full((2, 32, 32, 3), (200, 30, 90), np.uint8)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width = stream.height = 32
        stream.codec_context.colorspace, stream.codec_context.color_range = space, extent
        for rgb in frames:
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            container.mux(
                stream.encode(
                    frame.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=extent)
                )
            )
        container.mux(stream.encode())
    np.testing.assert_allclose(decode_clip(path.read_bytes()), frames, atol=3)


def test_a_browser_can_play_it_while_it_loads(moving):
    mp4 = encode_clip(moving, 25)
    assert boxes(mp4).index("moov") < boxes(mp4).index("mdat")
    with av.open(io.BytesIO(mp4)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 25)
        # BT.709, limited
        assert (codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range) == (
            1,
            1,
            1,
            1,
        )
        keys = [index for index, frame in enumerate(container.decode(stream)) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, 80])) <= EncodeConfig().key_frame_distance


@pytest.mark.parametrize(("height", "width"), [(16, 16), (2, 2), (18, 22), (40, 250)])
def test_any_even_size_can_be_stored(height, width):
    frames = np.full((8, height, width, 3), (40, 160, 90), np.uint8)
    np.testing.assert_allclose(decode_clip(encode_clip(frames, 25)), frames, atol=2)


@pytest.mark.parametrize("fps", [1e-6, 1 / 3, 12.5, 30000 / 1001, 240.0, 1e6])
def test_any_speed_can_be_stored(fps, moving):
    mp4 = encode_clip(moving[:3], fps)
    with av.open(io.BytesIO(mp4)) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(
            np.clip(fps, 1 / 1001, 1000), rel=1e-6
        )
    assert len(decode_clip(mp4)) == 3


def test_frames_need_not_be_contiguous(moving):
    assert encode_clip(moving[:8, :, ::-1], 25) == encode_clip(
        np.ascontiguousarray(moving[:8, :, ::-1]), 25
    )


def test_a_higher_crf_is_smaller_and_worse(moving):
    fine, coarse = (encode_clip(moving[:16], 25, EncodeConfig(crf=crf)) for crf in (10, 35))
    assert len(coarse) < len(fine)
    assert psnr_db(decode_clip(coarse), moving[:16]) < psnr_db(decode_clip(fine), moving[:16])


@pytest.mark.parametrize(("height", "width"), [(15, 16), (16, 15)])
def test_odd_sides_are_refused(height, width):
    with pytest.raises(
        ConfigError, match=f"{width} x {height} px cannot be encoded: both sides must be even"
    ):
        encode_clip(np.zeros((2, height, width, 3), np.uint8), 25)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(fps, moving):
    with pytest.raises(ConfigError, match="positive number of frames a second"):
        encode_clip(moving[:2], fps)


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_damaged(share, moving):
    mp4 = encode_clip(moving, 25)
    with pytest.raises(ShardError, match=r"a-clip\.mp4: .*tapdistill verify"):
        decode_clip(mp4[: int(len(mp4) * share)], "a-clip.mp4")


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_never_give_wrong_frames_in_silence(seed, moving):
    whole = encode_clip(moving, 25)
    start = whole.index(b"mdat") + 1000  # behind the text that x264 writes about itself
    rng = np.random.default_rng(seed)
    damaged = bytearray(whole)
    for at in rng.integers(start, len(whole), 20):
        damaged[at] ^= 0xFF
    with pytest.raises(ShardError):
        decode_clip(bytes(damaged))


def test_other_files_are_no_clips():
    with pytest.raises(ShardError, match="not a readable mp4"):
        decode_clip(b"a text, not a film" * 100)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"crf": 52}, "crf = 52"), ({"key_frame_distance": 0}, "key_frame_distance = 0")],
)
def test_settings_that_cannot_be_right_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        EncodeConfig(**settings)


@pytest.mark.parametrize(
    "only",
    [[], [0], [79], [11, 12, 13], list(range(7, 71, 3)), [30, 29, 28, 29, 30], range(80), [5, 5]],
)
@pytest.mark.parametrize("fps", [24, 30000 / 1001, 7.5])
def test_a_part_has_the_pixels_of_the_whole(moving, only, fps):
    mp4 = encode_clip(moving, fps)
    np.testing.assert_array_equal(
        decode_clip(mp4, only=only), decode_clip(mp4)[np.asarray(only, int)]
    )


def test_a_part_outside_the_clip_is_no_part(moving):
    with pytest.raises(IndexError):
        decode_clip(encode_clip(moving, 24), only=[79, 80])


@pytest.fixture(scope="module")
def noisy():
    """An mp4 of frames whose every pixel differs from its neighbours, and its frames: [26, 82, 70].
    Colours of neighbours reach into each pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (26, 82, 70, 3), np.uint8)
    mp4 = encode_clip(pixels, 25, EncodeConfig(crf=4))
    return mp4, decode_clip(mp4)


@pytest.mark.parametrize("seed", range(40))
def test_a_window_has_the_pixels_of_the_whole(noisy, seed):
    mp4, whole = noisy
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 83), rng.integers(1, 71)
    top, left = rng.integers(0, 83 - height), rng.integers(0, 71 - width)
    only = np.sort(rng.choice(26, 4, replace=False))
    found = decode_clip(mp4, only=only, window=Region(top, left, height, width))
    np.testing.assert_array_equal(
        found, whole[only, top : top + height, left : left + width], strict=True
    )


@pytest.mark.parametrize("size", [(2, 2), (12, 14), (14, 40), (16, 16), (18, 22)])
def test_a_window_of_a_small_clip_has_the_pixels_of_the_whole(size):
    height, width = size
    mp4 = encode_clip(
        np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8), 25
    )
    whole = decode_clip(mp4)
    for top in range(height):
        for left in range(0, width, 3):
            window = Region(top, left, min(6, height - top), min(7, width - left))
            np.testing.assert_array_equal(
                decode_clip(mp4, window=window), whole[:, top : top + 6, left : left + 7]
            )


def test_colours_are_those_of_the_plainest_conversion(noisy):
    mp4, whole = noisy
    flags = (
        Interpolation.BICUBIC
        | Interpolation.ACCURATE_RND
        | Interpolation.BITEXACT
        | Interpolation.FULL_CHR_H_INT
        | Interpolation.FULL_CHR_H_INP
    )
    with av.open(io.BytesIO(mp4)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            plain = frame.reformat(
                format="rgb24", dst_color_range=ColorRange.JPEG, interpolation=flags, threads=1
            )
            np.testing.assert_array_equal(whole[number], plain.to_ndarray())


@pytest.mark.parametrize(
    "window", [(0, 0, 83, 70), (0, 1, 82, 70), (-1, 0, 5, 5), (0, 0, 0, 5), (80, 0, 3, 5)]
)
def test_a_window_outside_the_frames_is_no_window(noisy, window):
    with pytest.raises(IndexError, match="not within frames of 82 x 70 px"):
        decode_clip(noisy[0], window=Region(*window))


def test_frames_that_none_refers_to_are_not_decoded_unless_asked_for(moving):
    mp4 = bytearray(encode_clip(moving[:30], 25))
    whole = decode_clip(bytes(mp4))
    with av.open(io.BytesIO(bytes(mp4))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    # H.264, 7.4.1: nal_ref_idc; a slice follows the four bytes of its length
    alone = [p for p in packets if not p.is_keyframe and not bytes(p)[4] & 0x60]
    assert len(alone) > 5
    lost = {round(packet.pts * packet.time_base * 25) for packet in alone}
    for packet in alone:
        mp4[packet.pos + 6 : packet.pos + packet.size] = bytes(packet.size - 6)
    kept = [number for number in range(30) if number not in lost]
    np.testing.assert_array_equal(decode_clip(bytes(mp4), only=kept), whole[kept])
    with pytest.raises(ShardError):
        decode_clip(bytes(mp4), only=range(30))


def test_colours_stay_where_they_are():
    """Waves of 16 px in red against blue, as bright everywhere (BT.709): their phase is where they
    are. Half a pixel is a phase of 0.2."""
    for axis, length in ((0, 96), (1, 128)):
        wave = 40 * np.sin(2 * np.pi * np.arange(length) / 16)
        ripple = np.broadcast_to(wave if axis == 1 else wave[:, None], (96, 128))
        green = -ripple * (0.2126 - 0.0722) / 0.7152
        frame = 128 + np.stack([ripple, green, -ripple], -1)
        frames = np.repeat(frame.round().astype(np.uint8)[None], 3, 0)
        phases = []
        for shown in (frames, decode_clip(encode_clip(frames, 24, EncodeConfig(crf=8)))):
            colour = (shown[..., 0].astype(float) - shown[..., 2]).mean((0, 2 - axis))
            phases.append(np.angle(np.fft.fft(colour)[length // 16]))
        moved_px = (phases[1] - phases[0]) * 16 / (2 * np.pi)
        assert abs(moved_px) < 0.05, axis
