"use strict";
// Draws the tracks of a clip over its video. Frames are counted as stored; a point is px of the stored clip, pixel centres.
// <div class="player"> says in its attributes which frame is shown (data-frame) and how many points are drawn (data-drawn).

addEventListener("error", (event) => { document.documentElement.dataset.error = event.message; });

const TRAIL_FRAMES = 12, UNIT_PX = 1 / 16, NOT_TRACKED = -32768;
const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const rgb = (colours, i) => `rgb(${colours[3 * i]} ${colours[3 * i + 1]} ${colours[3 * i + 2]})`;

class Player {
  constructor(root) {
    const find = (name) => root.querySelector(name);
    const clip = JSON.parse(find("script").textContent);
    Object.assign(this, clip, { root, frame: 0, video: find("video"), canvas: find("canvas"), scrub: find(".scrub"), clock: find(".clock") });
    this.colour = find(".colour"); this.labelsOnly = find(".labels"); this.trails = find(".trails");
    this.playButton = find(".play"); this.playhead = root.parentElement.querySelector(".playhead");
    this.switches = [...root.querySelectorAll(".tracker")];
    this.colours = this.switches.map((box) => getComputedStyle(box.nextElementSibling).backgroundColor);
    this.xy = new Int16Array(bytes(clip.xy).buffer);      // [K, N, T, 2] in steps of UNIT_PX
    this.sees = bytes(clip.sees);                         // [K, N, T]
    this.support = bytes(clip.support);                   // [N, T], 255 is 1
    this.label = bytes(clip.label);                       // [N, T]
    this.rainbow = bytes(clip.rainbow);                   // [N, 3]
    this.ramp = bytes(clip.ramp);                         // [256, 3]
    this.paintRamp(find(".ramp"));
    this.listen();
    this.seek(0);
  }

  listen() {
    const { video, root, canvas } = this;
    root.addEventListener("change", () => this.draw());
    root.addEventListener("keydown", (event) => this.pressed(event));
    this.scrub.addEventListener("input", () => this.seek(Number(this.scrub.value)));
    root.querySelector(".speed").addEventListener("change", (event) => { video.playbackRate = Number(event.target.value); });
    this.playButton.addEventListener("click", () => this.toggle());
    canvas.addEventListener("click", () => { root.focus({ preventScroll: true }); this.toggle(); });
    video.addEventListener("error", () => { root.querySelector(".no-video").hidden = false; });
    for (const name of ["play", "pause"]) video.addEventListener(name, () => { this.playButton.textContent = video.paused ? "▶" : "❚❚"; });
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.follow();
  }

  // While the video runs, show the tracks of the frame that the browser presents. While it stands, `seek` says which frame that is:
  // a browser may still report an earlier one.
  follow() {
    const { video } = this;
    if (video.requestVideoFrameCallback) {
      const presented = (now, { mediaTime }) => {
        if (!video.paused && !video.seeking) this.show(this.frameAt(mediaTime + 0.001));
        video.requestVideoFrameCallback(presented);
      };
      video.requestVideoFrameCallback(presented);
    } else {
      const tick = () => {
        if (!video.paused) this.show(this.frameAt(video.currentTime));
        requestAnimationFrame(tick);
      };
      tick();
    }
  }

  frameAt(seconds) { return Math.max(0, this.times.findLastIndex((time) => time <= seconds)); }

  // The middle of a frame's time, so that no rounding shows its neighbour.
  middle(frame) {
    const { times } = this, last = times.length - 1, step = last ? times[last] / last : 0.04;
    return (times[frame] + (times[frame + 1] ?? times[frame] + step)) / 2;
  }

  seek(frame) {
    frame = Math.min(Math.max(frame, 0), this.times.length - 1);
    this.video.pause();
    this.video.loop = false;   // with it, Chromium may answer a seek to the last frame with the first
    this.video.currentTime = this.middle(frame);
    this.show(frame);
  }

  toggle() {
    if (!this.video.paused) return this.seek(this.frame);
    this.video.loop = true;
    this.video.play().catch(() => {});
  }

  pressed(event) {
    if (event.target !== this.root && event.target !== this.scrub) return;
    const { frame } = this;
    const action = {
      " ": () => this.toggle(), ArrowLeft: () => this.seek(frame - 1), ArrowRight: () => this.seek(frame + 1),
      Home: () => this.seek(0), End: () => this.seek(this.times.length - 1),
    }[event.key];
    if (action && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); action(); }
  }

  show(frame) {
    this.frame = frame;
    const last = this.times.length - 1;
    this.scrub.value = frame;
    this.clock.textContent = `frame ${frame} of ${last} · ${this.times[frame].toFixed(2)} s`;
    const x = last ? 300 * frame / last : 0;
    this.playhead.setAttribute("x1", x); this.playhead.setAttribute("x2", x);
    this.draw();
  }

  draw() {
    const { canvas, root, frame } = this, pen = canvas.getContext("2d");
    const size = canvas.getBoundingClientRect(), density = devicePixelRatio || 1;
    canvas.width = Math.round(size.width * density); canvas.height = Math.round(size.height * density);
    this.unit = density * Math.min(1.25, Math.max(0.7, size.width / 640));   // canvas px of one line width
    root.querySelector(".ramp").hidden = this.colour.value !== "support";
    const on = this.switches.flatMap((box, k) => (box.checked ? [k] : [])), at = [];
    for (const k of on) for (let i = 0; i < this.points; i++) if (this.place(k, i, frame)) at.push([k, i]);
    if (this.trails.checked) for (const [k, i] of at) this.drawTrail(pen, k, i);
    // The first tracker's markers are the largest: where trackers agree, they lie in each other as the rings of a target.
    for (const [k, i] of at) this.drawMarker(pen, k, i, 3.6 + 1.6 * (on.length - 1 - on.indexOf(k)));
    root.dataset.frame = frame;
    root.dataset.drawn = at.length;
  }

  // Canvas px of a point in a frame, or null where it is not tracked or not to be shown.
  place(k, i, frame) {
    const frames = this.times.length, at = 2 * ((k * this.points + i) * frames + frame);
    if (this.xy[at] === NOT_TRACKED || (this.labelsOnly.checked && !this.label[i * frames + frame])) return null;
    return [(this.xy[at] * UNIT_PX + 0.5) * this.canvas.width / this.width, (this.xy[at + 1] * UNIT_PX + 0.5) * this.canvas.height / this.height];
  }

  isSeen(k, i, frame) {
    return this.sees[(k * this.points + i) * this.times.length + frame];
  }

  ink(k, i) {
    if (this.colour.value === "tracker") return this.colours[k];
    if (this.colour.value === "place") return rgb(this.rainbow, i);
    return rgb(this.ramp, this.support[i * this.times.length + this.frame]);
  }

  drawTrail(pen, k, i) {
    pen.strokeStyle = this.ink(k, i);
    pen.lineWidth = 1.6 * this.unit;
    const seen = (frame) => (this.isSeen(k, i, frame) ? this.place(k, i, frame) : null);   // guesses leave no trail
    let to = seen(this.frame);
    for (let age = 1; age <= TRAIL_FRAMES && this.frame >= age; age++) {
      const from = seen(this.frame - age);
      if (from && to) {
        pen.globalAlpha = 0.85 * (1 - (age - 1) / TRAIL_FRAMES);
        pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
      }
      to = from;
    }
    pen.globalAlpha = 1;
  }

  drawMarker(pen, k, i, radius) {
    const ink = this.ink(k, i), seen = this.isSeen(k, i, this.frame);
    pen.beginPath();
    pen.arc(...this.place(k, i, this.frame), radius * this.unit, 0, 2 * Math.PI);
    pen.lineWidth = (seen ? 1 : 1.8) * this.unit;
    pen.fillStyle = ink;
    pen.strokeStyle = seen ? "rgb(0 0 0 / .55)" : ink;
    if (seen) pen.fill();
    pen.stroke();
  }

  paintRamp(ramp) {
    const stops = Array.from({ length: 9 }, (_, i) => rgb(this.ramp, Math.round(i * 255 / 8)));
    ramp.querySelector("i").style.background = `linear-gradient(to right, ${stops})`;
  }
}

// report.html#KEY@FRAME opens the page at a clip and a frame.
function openAtHash(players) {
  const [key, frame] = decodeURIComponent(location.hash.slice(1)).split("@");
  const player = players.find((each) => each.key === key);
  if (!player) return;
  player.root.scrollIntoView({ block: "center" });
  if (/^\d+$/.test(frame)) player.seek(Number(frame));
}

const players = [...document.querySelectorAll(".player")].map((root) => new Player(root));
addEventListener("hashchange", () => openAtHash(players));
openAtHash(players);
