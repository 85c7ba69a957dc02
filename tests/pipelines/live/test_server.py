"""The server of the live page: who may ask, what a page is told, uploads, downloads."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
import zipfile

import av
import numpy as np
import pytest
from aiohttp import ClientConnectionResetError, WSMsgType, WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from benchmarks.harness.jobs import write_moving
from labeler.clips.frames_process import IsolatedFrames
from labeler.video import open_video
from labeler.video.container import VideoLimits
from pipelines.live.server import LiveLimits, LiveServer
from pipelines.live.trackers import LiveTrackers
from teachers import ConfigError, TransientError, VideoError

HEAD = struct.Struct("<II")


@contextlib.asynccontextmanager
async def served(*texts, **limits):
    """A client of a server, and the token."""
    server = LiveServer(LiveTrackers(texts or ["lk"], device="cpu"), LiveLimits(**limits))
    client = TestClient(TestServer(server.app, host="127.0.0.1"))
    await client.start_server()
    server.serve_at("127.0.0.1", client.port)
    try:
        yield client, server.token
    finally:
        await client.close()
        server.close()


class Page:
    """What a browser would do."""

    def __init__(self, socket):
        self.socket, self.frames = socket, []

    async def ask(self, **message):
        await self.socket.send_str(json.dumps(message))

    async def send(self, session, number, frame):
        rgba = np.pad(frame, ((0, 0), (0, 0), (0, 1)), constant_values=255)
        await self.socket.send_bytes(HEAD.pack(session, number) + rgba.tobytes())

    async def hear(self, what):
        """The next message of that kind; an error is one unless it is asked for."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), 60)  # pings do not count
            if isinstance(message.data, bytes):
                self.frames.append(message.data)
                continue
            told = json.loads(message.data)
            assert told["is"] == what or told["is"] != "error", told
            if told["is"] == what:
                return told


@contextlib.asynccontextmanager
async def page_of(client, token):
    async with client.ws_connect(f"/ws?token={token}") as socket:
        page = Page(socket)
        page.key = (await page.hear("hello"))["page"]
        yield page


def test_only_the_page_itself_may_ask():
    async def ask():
        async with served() as (client, token):
            good = f"127.0.0.1:{client.port}"

            async def status(path, **headers):
                async with client.get(path, headers={"Host": good, **headers}) as answer:
                    return answer.status

            full = f"/?token={token}"
            assert await status(full) == 200
            assert await status(full, Host=f"localhost:{client.port}") == 200
            assert await status(full, Origin=f"http://{good}") == 200
            assert await status("/live.js") == 200
            for path in ("/", "/?token=", f"/?token={token}x", "/ws", "/trackers", "/save/tracks"):
                assert await status(path) == 403, path
            # a name that was made to point here, and another page of the same browser
            for path in (full, "/live.js", f"/trackers?token={token}"):
                assert await status(path, Host="evil.example") == 403
                assert await status(path, Host=f"evil.example:{client.port}") == 403
                assert await status(path, Origin="https://evil.example") == 403
                assert await status(path, Origin="null") == 403
            with pytest.raises(WSServerHandshakeError, match="403"):
                await client.ws_connect(
                    f"/ws?token={token}", headers={"Origin": "http://evil.example"}
                )
            async with client.put("/upload", data=b"x") as answer:
                assert answer.status == 403
            async with client.get(full) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'; script-src 'self'" in policy

    asyncio.run(ask())


def test_a_camera_is_followed_and_saved(moving):
    async def ask():
        async with served("lk", "tapir-mini") as (client, token), page_of(client, token) as page:
            await page.ask(do="camera", width=128, height=96, trackers=["lk"])
            ready = await page.hear("ready")
            assert (ready["size"], ready["trackers"], ready["source"]) == (
                [96, 128],
                ["lk"],
                "camera",
            )
            session = ready["session"]
            for number in range(3):
                await page.send(session, number, moving[number])
                told = await page.hear("answers")
                assert (told["taken"], told["answers"][0]["frame"]) == (1, number)
            await page.send(session + 1, 0, moving[0])  # of another session: not heard
            await page.ask(do="add", frame=1, points=[[90, 60], [70, 50]])
            assert [p["id"] for p in (await page.hear("points"))["points"]] == [0, 1]
            assert (await page.hear("answers"))["answers"] == []
            await page.ask(do="remove", ids=[1])
            assert [p["id"] for p in (await page.hear("points"))["points"]] == [0]
            for number in range(3, 8):
                await page.send(session, number, moving[number])
                (answer,) = (await page.hear("answers"))["answers"]
                ((point, x, y, seen),) = answer["tracks"]["lk"]
                assert (answer["frame"], point, seen) == (number, 0, 1)
                assert np.hypot(x - 90 + 2 * (number - 1), y - 60 + number - 1) < 0.5
            where = f"token={token}&page={page.key}"
            async with client.get(f"/save/tracks?{where}") as answer:
                assert "live.npz" in answer.headers["Content-Disposition"]
                with np.load(io.BytesIO(await answer.read())) as saved:
                    assert saved["xy"].shape == (1, 8, 2)
                    info = json.loads(str(saved["info"]))
                    assert (info["name"], info["clip"]["source"]) == ("lk", "camera")
            async with client.get(f"/save/overlay?{where}") as answer:
                with av.open(io.BytesIO(await answer.read())) as video:
                    assert sum(1 for _ in video.decode(video=0)) == 8
            await page.ask(do="trackers", trackers=["lk", "tapir-mini"])
            await page.hear("trackers")
            await page.send(session, 8, moving[8])
            (answer,) = (await page.hear("answers"))["answers"]
            assert set(answer["tracks"]) == {"lk", "tapir-mini"}
            assert [row[0] for row in answer["agreement"]] == [0]
            async with client.get(f"/save/tracks?{where}") as answer:
                with zipfile.ZipFile(io.BytesIO(await answer.read())) as packed:
                    assert packed.namelist() == ["live.lk.npz", "live.tapir-mini.npz"]

    asyncio.run(ask())


def test_a_video_is_played_to_its_end_and_again(tmp_path):
    path = write_moving(tmp_path / "clip.mp4", seed=1, frames=12)

    async def ask():
        async with served() as (client, token), page_of(client, token) as page:
            async with client.put(
                f"/upload?token={token}&name=a.mp4", data=path.read_bytes()
            ) as sent:
                upload = (await sent.json())["upload"]
            await page.ask(do="video", upload=upload, name="a.mp4", trackers=["lk"])
            ready = await page.hear("ready")
            assert (ready["length"], ready["size"], ready["name"]) == (12, [48, 64], "a.mp4")
            assert (await page.hear("answers"))["answers"][0]["frame"] == 0
            await page.ask(do="add", frame=0, points=[[40, 20]])
            await page.hear("points")
            await page.ask(do="play")
            seen = []
            while len(seen) < 11:
                seen += (await page.hear("answers"))["answers"]
            await page.hear("ended")
            assert [answer["frame"] for answer in seen] == list(range(1, 12))
            for answer in seen:  # it moves by a pixel a frame
                ((_, x, y, _),) = answer["tracks"]["lk"]
                assert np.hypot(x - 40 + answer["frame"], y - 20) < 0.7
            with open_video(path) as video:
                expected = [frame for _, frame in video.stream()]
            assert [HEAD.unpack(data[:8]) for data in page.frames] == [
                (ready["session"], number) for number in range(12)
            ]
            with av.open(io.BytesIO(page.frames[5][8:])) as shown:
                picture = next(shown.decode(video=0)).to_ndarray(format="rgb24")
            away = [np.abs(picture.astype(int) - frame).mean() for frame in expected]
            assert int(np.argmin(away)) == 5  # a JPEG of it
            await page.ask(do="play")
            assert (await page.hear("ready"))["session"] == ready["session"] + 1
            assert (await page.hear("answers"))["answers"][0]["frame"] == 0
            await page.ask(do="pause")

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("content", "limits", "why"),
    [
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n", {}, "bad.mp4"),
        (b"\0" * 4096, {}, "bad.mp4"),
        (None, {"video": VideoLimits(max_frames=3)}, "more than 3 frames"),
        (None, {"video": VideoLimits(max_side_px=40)}, "max_side_px"),
    ],
)
def test_a_bad_upload_is_an_error_in_the_page_and_nothing_else(tmp_path, content, limits, why):
    content = content or write_moving(tmp_path / "clip.mp4", seed=1, frames=12).read_bytes()

    async def ask():
        async with served(**limits) as (client, token), page_of(client, token) as page:
            async with client.put(f"/upload?token={token}&name=bad.mp4", data=content) as sent:
                upload = (await sent.json())["upload"]
            await page.ask(do="video", upload=upload, name="bad.mp4", trackers=["lk"])
            text = (await page.hear("error"))["text"]
            assert why in text
            assert upload not in text  # where it lies is nobody's business
            await page.ask(do="camera", width=64, height=48, trackers=["lk"])
            await page.hear("ready")

    asyncio.run(ask())


def test_an_upload_that_is_too_large_is_not_kept():
    async def ask():
        async with served(video=VideoLimits(max_gib=1e-5)) as (client, token):

            async def chunks():
                for _ in range(20):
                    yield b"x" * 1000

            for data in (b"x" * 20_000, chunks()):  # with its length said before, and without
                async with client.put(f"/upload?token={token}", data=data) as answer:
                    assert answer.status == 413
                    assert "--max-gib" in (await answer.json())["error"]

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("no json", "not JSON"),
        ("[1]", "no object"),
        ('{"do": "format"}', "asks for 'format'"),
        ('{"do": "camera", "width": 99999, "height": 10, "trackers": ["lk"]}', "16 to 1280 px"),
        ('{"do": "camera", "width": "9", "height": 10, "trackers": ["lk"]}', "whole number"),
        ('{"do": "camera", "width": 64, "height": 48, "trackers": []}', "at least one tracker"),
        ('{"do": "camera", "width": 64, "height": 48, "trackers": ["x"]}', "no tracker 'x'"),
        ('{"do": "add", "frame": 0, "points": [[1, 2]]}', "open a video or a camera first"),
        ('{"do": "add", "frame": 0, "points": [[1]]}', "pairs of numbers"),
        ('{"do": "remove", "ids": ["1"]}', "whole numbers"),
        ('{"do": "video", "upload": "../x", "trackers": ["lk"]}', "not here any more"),
    ],
)
def test_what_a_page_cannot_ask_is_said_and_the_page_goes_on(message, why):
    async def ask():
        async with served() as (client, token), page_of(client, token) as page:
            await page.socket.send_str(message)
            assert why in (await page.hear("error"))["text"]
            await page.ask(do="camera", width=64, height=48, trackers=["lk"])
            session = (await page.hear("ready"))["session"]
            await page.socket.send_bytes(HEAD.pack(session, 0) + b"short")
            assert "not 64 x 48 px" in (await page.hear("error"))["text"]

    asyncio.run(ask())


def test_which_trackers_are_offered(monkeypatch, tmp_path):
    monkeypatch.setenv("TAPDISTILL_HOME", str(tmp_path))
    offered = LiveTrackers().offered
    assert list(offered)[:2] == ["tapir-mini", "lk"]
    assert offered["bootstapir"].missing == "tapdistill teachers pull bootstapir"
    assert "flow" not in offered
    assert list(LiveTrackers(["lk"]).offered) == ["lk"]
    with pytest.raises(
        ConfigError, match="'flow' needs the whole clip; a live page takes tapir-mini"
    ):
        LiveTrackers(["flow"])


def test_frames_from_the_process_are_those_of_the_video(tmp_path):
    path = write_moving(tmp_path / "clip.mp4", seed=1, frames=9)
    with open_video(path) as video:
        expected = [frame for _, frame in video.stream(short_side=24)]
    with IsolatedFrames(path, name="clip", short_side=24) as video:
        for _ in range(2):
            for frame in expected:
                np.testing.assert_array_equal(video.read(), frame)
            assert video.read() is None
            video.rewind()
        video._process._child._process.kill()
        with pytest.raises(TransientError, match="clip: somebody ended its process"):
            video.rewind()
    with pytest.raises(VideoError, match="clip: took longer"):
        IsolatedFrames(path, name="clip", deadline_s=0.0)


@pytest.mark.parametrize("asks", ["camera", "what there is not"])
def test_a_page_that_is_closed_in_the_middle_is_no_error(monkeypatch, caplog, asks):
    """The answer finds that the browser has gone."""

    async def gone(page, told):
        raise ClientConnectionResetError("Cannot write to closing transport")

    async def close():
        async with served() as (client, token), page_of(client, token) as page:
            monkeypatch.setattr("pipelines.live.server._Page.tell", gone)
            await page.ask(do=asks, width=64, height=48, trackers=["lk"])
            message = await asyncio.wait_for(page.socket.receive(), 30)
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED), message

    asyncio.run(close())
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []
