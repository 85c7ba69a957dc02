"use strict";
// Draws the tracks of a clip over its video. Frames are counted as stored; a point is px of the stored clip, pixel centres.
// <div class="player"> says in its attributes which frame is shown (data-frame) and how many points are drawn (data-drawn).

addEventListener("error", (event) => { document.documentElement.dataset.error = event.message; });

const TRAIL_FRAMES = 12, UNIT_PX = 1 / 16, NOT_TRACKED = -32768, UNKNOWN = 255, ONE = 250, REACH_PX = 14;
const STATES = ["disputed", "visible", "occluded"], OCCLUDED = 2, AGREED_OCCLUDED = "rgb(214 219 227 / .5)", NOT_JUDGED = "rgb(214 219 227 / .5)";   // most say so: support would mean nothing
const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const rgb = (colours, i) => `rgb(${colours[3 * i]} ${colours[3 * i + 1]} ${colours[3 * i + 2]})`;
const share = (byte) => (byte === UNKNOWN ? "–" : (byte / ONE).toFixed(2));

const WORST = 12, TILE_PX = 112, TILE_ZOOM = 2;   // of the contact sheet
const RASTER = 256, RIGHT_PX = 4, RINGS_SEEN = 5;   // a label so near to the point, px of the raster, is right; a tile to judge shows so many times as far
const VISIBLE_LABEL = 1, HIDDEN_LABEL = 2, FLICKER_MS = 450, FULLY_RED = 0.5;
const STORED = `tapdistill verdicts of ${location.pathname}`, ALL_POINTS = "*", NEXT = { undefined: "wrong", wrong: "right", right: undefined };

// What a person says of points, over all clips of the page: key -> "t x y" of a query -> [its number, "right" or "wrong"]. A number is
// ALL_POINTS for the whole clip. It is kept until the browser forgets it: a page that is made anew may number its points anew.
const review = {
  marks: new Map(),
  load() {
    try { for (const [key, marks] of JSON.parse(localStorage.getItem(STORED))) this.marks.set(key, new Map(marks)); } catch {}
  },
  of(key, query) { return this.marks.get(key)?.get(query)?.[1]; },
  set(key, query, verdict, number = ALL_POINTS) {
    const marks = this.marks.get(key) ?? new Map();
    if (verdict) marks.set(query, [number, verdict]); else marks.delete(query);
    if (marks.size) this.marks.set(key, marks); else this.marks.delete(key);
    try { localStorage.setItem(STORED, JSON.stringify([...this.marks].map(([each, all]) => [each, [...all]]))); } catch {}
    dispatchEvent(new CustomEvent("review"));
  },
  count() { return [...this.marks.values()].reduce((sum, marks) => sum + marks.size, 0); },
  csv() {
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const place = (query) => (query === ALL_POINTS ? ",," : query.replaceAll(" ", ","));
    const lines = [...this.marks].flatMap(([key, marks]) => [...marks].map(([query, said]) => `${quoted(key)},${said.join(",")},${place(query)}`));
    return ["key,point,verdict,t,x,y", ...lines, ""].join("\n");
  },
  save() {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" })), download: "review.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  },
};
review.load();

// A line with a dark edge, to be seen on any picture.
function outlined(pen, width, colour, path, edge = 1.25) {
  pen.beginPath(); path();
  pen.lineWidth = width + 2 * edge; pen.strokeStyle = "#000a"; pen.stroke();
  pen.lineWidth = width; pen.strokeStyle = colour; pen.stroke();
}

// Four arms that leave the place itself open: they begin `wide` px beside and `high` px above it.
function drawCross(pen, x, y, wide, high, arm, width) {
  outlined(pen, width, "#fff", () => {
    for (const side of [1, -1]) {
      pen.moveTo(x + side * wide, y); pen.lineTo(x + side * (wide + arm), y);
      pen.moveTo(x, y + side * high); pen.lineTo(x, y + side * (high + arm));
    }
  });
}

class Player {
  constructor(root) {
    const find = (name) => root.querySelector(name);
    const clip = JSON.parse(find("script").textContent);
    Object.assign(this, clip, { root, frame: 0, video: find("video"), canvas: find("canvas"), scrub: find(".scrub"), clock: find(".clock") });
    this.colour = find(".colour"); this.labelsOnly = find(".labels"); this.occluded = find(".occluded"); this.trails = find(".trails");
    this.playButton = find(".play"); this.numbers = find(".numbers");
    this.flicker = find(".flicker"); this.mark = find(".mark"); this.whole = find(".whole"); this.saveButton = find(".save-review");
    this.switches = [...root.querySelectorAll(".tracker")];
    this.colours = this.switches.map((box) => getComputedStyle(box.nextElementSibling).backgroundColor);
    this.xy = new Int16Array(bytes(clip.xy).buffer);      // [K, N, T, 2] in steps of UNIT_PX
    for (const name of ["sees", "visibility", "confidence", "right"]) this[name] = bytes(clip[name]);   // [K, N, T]; 1, ONE is 1
    for (const name of ["support", "state", "label", "hidden"]) this[name] = bytes(clip[name]);         // [N, T]; ONE is 1, STATES, 0 or a kind of label
    this.labelXy = new Int16Array(bytes(clip.label_xy).buffer);   // [N, T, 2] in steps of UNIT_PX, of visible labels
    this.rainbow = bytes(clip.rainbow);                   // [N, 3]
    this.ramp = bytes(clip.ramp);                         // [ONE + 1, 3]
    this.pointed = null;                                  // the point under the mouse
    this.filled = Promise.resolve();                      // sheets are filled one after the other: there is one video
    this.paintRamp(find(".ramp"));
    this.paintParted(find(".parted"));
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
    canvas.addEventListener("click", () => {
      root.focus({ preventScroll: true });
      if (this.mark.checked && this.pointed !== null) this.say(NEXT[review.of(this.key, this.query(this.pointed))]);
      else this.toggle();
    });
    root.querySelector(".doubt").addEventListener("click", () => this.nextDoubt());
    for (const [name, find] of [[".worst", () => this.worst()], [".drawn", () => this.drawnLabels()]]) {
      const sheet = root.querySelector(name);
      sheet.addEventListener("toggle", () => { if (sheet.open) this.filled = this.filled.then(() => this.fillSheet(sheet, find())); });
    }
    this.whole.addEventListener("click", () => review.set(this.key, ALL_POINTS, review.of(this.key, ALL_POINTS) ? undefined : "wrong"));
    this.saveButton.addEventListener("click", () => review.save());
    const reviewed = () => {
      if (!root.isConnected) return removeEventListener("review", reviewed);
      const count = review.count();
      this.saveButton.disabled = !count;
      this.saveButton.textContent = count ? `Save review (${count})` : "Save review";
      for (const tile of root.querySelectorAll(".tile")) tile.dataset.verdict = review.of(this.key, tile.dataset.query) ?? "";
      this.whole.setAttribute("aria-pressed", review.of(this.key, ALL_POINTS) === "wrong");
      if (this.at) this.draw();
    };
    addEventListener("review", reviewed);
    reviewed();
    const turn = () => { if (root.isConnected && this.flicker.checked) this.draw(); if (root.isConnected) setTimeout(turn, FLICKER_MS); };
    setTimeout(turn, FLICKER_MS);
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX, event.offsetY));
    canvas.addEventListener("pointerleave", () => { this.pointed = null; this.draw(); });
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
        this.presented = this.frameAt(mediaTime + 0.001);
        if (!video.paused && !video.seeking) this.show(this.presented);
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
    const typing = event.target.matches?.("select, input:not(.scrub):not([type=checkbox])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const { frame } = this, onButton = event.target.matches?.("button, [type=checkbox]");
    const action = {
      " ": onButton ? null : () => this.toggle(), ArrowLeft: () => this.seek(frame - 1), ArrowRight: () => this.seek(frame + 1),
      Home: () => this.seek(0), End: () => this.seek(this.times.length - 1), d: () => this.nextDoubt(),
      w: () => this.say("wrong"), r: () => this.say("right"), u: () => this.say(undefined),
    }[event.key] ?? (/^[1-9]$/.test(event.key) && this.switches[event.key - 1] && (() => this.switches[event.key - 1].click()));
    if (action) { event.preventDefault(); action(); }
  }

  show(frame) {
    this.frame = frame;
    const last = this.times.length - 1;
    this.scrub.value = frame;
    this.clock.textContent = `frame ${frame} of ${last} · ${this.times[frame].toFixed(2)} s`;
    this.draw();
    this.root.dispatchEvent(new CustomEvent("frame", { bubbles: true, detail: { frame, last } }));
  }

  draw() {
    const { canvas, root, frame } = this, pen = canvas.getContext("2d");
    const size = canvas.getBoundingClientRect(), density = devicePixelRatio || 1;
    canvas.width = Math.round(size.width * density); canvas.height = Math.round(size.height * density);
    this.unit = density * Math.min(1.25, Math.max(0.7, size.width / 640));   // canvas px of one line width
    root.querySelector(".ramp").hidden = !["support", "trust"].includes(this.colour.value);
    let on = this.switches.flatMap((box, k) => (box.checked ? [k] : []));
    if (this.flicker.checked && on.length > 1) on = [on[Math.floor(performance.now() / FLICKER_MS) % on.length]];
    root.dataset.trackers = on.map((k) => this.trackers[k]);
    this.at = [];
    for (const k of on) for (let i = 0; i < this.points; i++) if (this.place(k, i, frame)) this.at.push([k, i]);
    if (this.trails.checked) for (const [k, i] of this.at) this.drawTrail(pen, k, i, TRAIL_FRAMES);
    // The first tracker's markers are the largest: where trackers agree, they lie in each other as the rings of a target.
    for (const [k, i] of this.at) this.drawMarker(pen, k, i, 2.6 + 1.3 * (on.length - 1 - on.indexOf(k)));
    for (const [k, i] of this.at) if (k === on[0]) this.drawMark(pen, k, i);
    if (this.labelsOnly.checked) for (let i = 0; i < this.points; i++) this.drawLabel(pen, i);
    this.drawPointed(pen, on);
    root.dataset.frame = frame;
    root.dataset.drawn = this.at.length;
  }

  // Canvas px of a point in a frame, or null where it is not tracked or not to be shown.
  place(k, i, frame) {
    const frames = this.times.length, at = 2 * this.index(k, i, frame);
    if (this.xy[at] === NOT_TRACKED || (this.labelsOnly.checked && !this.label[i * frames + frame])) return null;
    if (!this.occluded.checked && !this.isSeen(k, i, frame)) return null;
    return this.onCanvas([this.xy[at] * UNIT_PX, this.xy[at + 1] * UNIT_PX]);
  }

  onCanvas([x, y]) { return [(x + 0.5) * this.canvas.width / this.width, (y + 0.5) * this.canvas.height / this.height]; }

  // Where the label says that a point is, px of the clip; null where it is not a visible label.
  labelAt(i, frame) {
    const at = i * this.times.length + frame;
    return this.label[at] === VISIBLE_LABEL ? [0, 1].map((axis) => this.labelXy[2 * at + axis] * UNIT_PX) : null;
  }

  labelText(i, frame) {
    const kind = this.label[i * this.times.length + frame];
    return `${kind ? "a" : "no"} label by ${this.label_by}${kind === HIDDEN_LABEL ? ", hidden" : ""}`;
  }

  index(k, i, frame) { return (k * this.points + i) * this.times.length + frame; }

  isSeen(k, i, frame) { return this.sees[this.index(k, i, frame)]; }

  ink(k, i, frame) {
    if (this.colour.value === "tracker") return this.colours[k];
    if (this.colour.value === "place") return rgb(this.rainbow, i);
    if (this.colour.value === "trust") {
      const right = this.right[this.index(k, i, frame)];
      return right === UNKNOWN ? NOT_JUDGED : rgb(this.ramp, right);
    }
    const at = i * this.times.length + frame;
    return this.state[at] === OCCLUDED ? AGREED_OCCLUDED : rgb(this.ramp, this.support[at]);
  }

  drawTrail(pen, k, i, frames) {
    pen.lineWidth = 1.6 * this.unit;
    const seen = (frame) => (this.isSeen(k, i, frame) ? this.place(k, i, frame) : null);   // guesses leave no trail
    let to = seen(this.frame);
    for (let age = 1; age <= frames && this.frame >= age; age++) {
      const from = seen(this.frame - age);
      if (from && to) {
        pen.strokeStyle = this.ink(k, i, this.frame - age);
        pen.globalAlpha = 0.85 * (1 - (age - 1) / frames);
        pen.beginPath(); pen.moveTo(...from); pen.lineTo(...to); pen.stroke();
      }
      to = from;
    }
    pen.globalAlpha = 1;
  }

  drawMarker(pen, k, i, radius) {
    const ink = this.ink(k, i, this.frame), seen = this.isSeen(k, i, this.frame);
    pen.beginPath();
    pen.arc(...this.place(k, i, this.frame), radius * this.unit, 0, 2 * Math.PI);
    pen.lineWidth = (seen ? 1 : 1.6) * this.unit;
    pen.fillStyle = ink;
    pen.strokeStyle = seen ? "rgb(0 0 0 / .55)" : ink;
    if (seen) pen.fill();
    pen.stroke();
  }

  // A white cross with an open middle where the label is.
  drawLabel(pen, i) {
    const label = this.labelAt(i, this.frame);
    if (label) drawCross(pen, ...this.onCanvas(label), 3 * this.unit, 3 * this.unit, 6 * this.unit, 1.4 * this.unit);
  }

  // A green ring around what a person calls right, a red cross on what they call wrong.
  drawMark(pen, k, i) {
    const verdict = review.of(this.key, this.query(i)) ?? review.of(this.key, ALL_POINTS);
    if (!verdict) return;
    const [x, y] = this.place(k, i, this.frame), size = 6 * this.unit;
    pen.beginPath();
    if (verdict === "right") pen.arc(x, y, size + 2 * this.unit, 0, 2 * Math.PI);
    else { pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size); pen.moveTo(x + size, y - size); pen.lineTo(x - size, y + size); }
    pen.lineWidth = 2.2 * this.unit; pen.strokeStyle = verdict === "right" ? "#39c46a" : "#ff4b33"; pen.stroke();
  }

  // What a person says of the point under the mouse.
  say(verdict) { if (this.pointed !== null) review.set(this.key, this.query(this.pointed), verdict, this.number[this.pointed]); }

  // A query as the review names it.
  query(i) { return this.queries[i].join(" "); }

  // Red is absolute, so that clips can be compared: full where teachers disagree on half of the points.
  paintParted(strip) {
    const last = Math.max(this.times.length - 1, 1), alpha = (share) => Math.min(share / FULLY_RED, 1).toFixed(2);
    const stops = this.parted.map((share, frame) => `rgb(229 83 61 / ${alpha(share)}) ${(100 * frame / last).toFixed(1)}%`);
    strip.style.background = `linear-gradient(to right, ${stops})`;
  }

  // To the next frame, and from the last to the first, in which more points part than in its neighbours.
  nextDoubt() {
    const { parted } = this, count = parted.length;
    const peak = (t) => parted[t] > 0 && parted[t] > (parted[t - 1] ?? -1) && parted[t] >= (parted[t + 1] ?? -1);
    for (let by = 1; by <= count; by++) if (peak((this.frame + by) % count)) return this.seek((this.frame + by) % count);
  }

  // The points on which those who see them are farthest apart, with the frame where: the worst first, none beside another.
  worst(most = WORST) {
    const found = [], frames = this.times.length;
    for (let i = 0; i < this.points; i++) {
      let apart = 0, where = 0;
      for (let frame = 0; frame < frames; frame++) {
        const there = this.seenAt(i, frame).map(([place]) => place);
        for (let a = 0; a < there.length; a++) for (let b = 0; b < a; b++) {
          const distance = RASTER * Math.hypot((there[a][0] - there[b][0]) / this.width, (there[a][1] - there[b][1]) / this.height);
          if (distance > apart) { apart = distance; where = frame; }
        }
      }
      if (apart > 0) found.push({ i, frame: where, apart, text: `${apart.toFixed(0)} px apart` });
    }
    return found.sort((a, b) => b.apart - a.apart).slice(0, most);
  }

  // Visible labels of the points that were evenly chosen, but not in the query's own frame, where they are right anyway; each as probable
  // as any other, but only one of a point, since a verdict is on the whole point; the same ones whenever the page is opened.
  drawnLabels(most = WORST) {
    const labels = [], frames = this.times.length;
    for (let i = 0; i < this.points; i++) for (let frame = 0; frame < frames; frame++) {
      if (this.even[i] && frame !== this.queries[i][0] && this.labelAt(i, frame)) labels.push(i * frames + frame);
    }
    let seed = 2166136261;   // FNV-1a of the key, and after it a linear congruential generator
    for (const letter of this.key) seed = Math.imul(seed ^ letter.codePointAt(0), 16777619);
    const random = () => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return seed / 2 ** 32; };
    const found = [];
    while (found.length < most && labels.length) {
      const [at] = labels.splice(Math.floor(random() * labels.length), 1);
      const i = Math.floor(at / frames), [from] = this.queries[i];
      if (!found.some((other) => other.i === i)) found.push({ i, frame: at % frames, from, text: `support ${share(this.support[at])}` });
    }
    return found;
  }

  // A picture for each of the points: what is around the trackers' places in that frame or, where one is to judge, around the label,
  // with what was around the query in its own frame `from` left of it. A click goes to the frame.
  async fillSheet(sheet, points) {
    const tiles = sheet.querySelector(".tiles"), before = this.frame;
    if (tiles.childElementCount) return;
    for (const { i, frame, from, text } of points) {
      const tile = Object.assign(document.createElement("button"), { type: "button", className: "tile" });
      const canvas = Object.assign(document.createElement("canvas"), { width: TILE_PX * (from === undefined ? 2 : 4), height: TILE_PX * 2 });
      tile.dataset.query = this.query(i); tile.dataset.verdict = review.of(this.key, this.query(i)) ?? "";
      const start = from === undefined ? "" : `query in frame ${from}, `;
      tile.append(canvas, `point ${this.number[i]}, ${start}frame ${frame}: ${text}, ${this.labelText(i, frame)}`);
      tile.addEventListener("click", () => { this.seek(frame); this.pointed = i; this.draw(); this.root.focus({ preventScroll: true }); });
      tiles.append(tile);
      if (from !== undefined) {
        await this.pictureOf(from);
        this.paintJudged(canvas, 0, this.queries[i].slice(1), []);
      }
      await this.pictureOf(frame);
      const seen = this.seenAt(i, frame);
      if (from === undefined) this.paintApart(canvas, seen, this.labelAt(i, frame));
      else this.paintJudged(canvas, canvas.height, this.labelAt(i, frame), seen);
    }
    this.seek(before);
  }

  // Waits until the browser presents that frame, whoever else seeks meanwhile: after a seek it may still show the frame before.
  // A video that cannot be played is not waited for long.
  async pictureOf(frame) {
    const { video } = this, shown = () => this.frame === frame && !video.seeking && (this.presented ?? frame) === frame;
    this.seek(frame);
    for (let waited = 0; !shown() && waited < (video.videoWidth ? 10000 : 2000); waited += 20) {
      if (this.frame !== frame) this.seek(frame);
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  // [place, colour] of each tracker that sees the point, px of the clip.
  seenAt(i, frame) {
    return this.colours.flatMap((colour, k) => {
      const at = this.index(k, i, frame), [x, y] = this.xy.subarray(2 * at, 2 * at + 2);
      return this.sees[at] && x !== NOT_TRACKED ? [[[x * UNIT_PX, y * UNIT_PX], colour]] : [];
    });
  }

  // All trackers, however far they are apart.
  paintApart(canvas, seen, label) {
    const along = [0, 1].map((axis) => seen.map(([place]) => place[axis]));
    const middle = along.map((all) => (Math.min(...all) + Math.max(...all)) / 2);
    const spread = Math.max(...along.map((all, axis) => Math.max(...all) - middle[axis]));
    this.paintPicture(canvas, 0, middle, Math.max(TILE_PX / TILE_ZOOM / 2, spread * 1.4), seen, false, label);
  }

  // A label, or its query, in the middle and always at the same scale; a tracker far from it is outside.
  paintJudged(canvas, left, label, seen) {
    const half = Math.max(TILE_PX / TILE_ZOOM / 2, RINGS_SEEN * RIGHT_PX * Math.max(this.width, this.height) / RASTER);
    this.paintPicture(canvas, left, label, half, seen, true, label);
  }

  // A square of the canvas, from `left` on: what the video shows up to `half` px of the clip from `middle`, a ring at each tracker's
  // place and, where there is a label, a ring of RIGHT_PX with four arms.
  paintPicture(canvas, left, middle, half, seen, faint, label) {
    const pen = canvas.getContext("2d"), side = canvas.height, scale = side / (2 * half);
    const at = (place) => place.map((value, axis) => (value - middle[axis] + half) * scale);
    pen.save();
    pen.beginPath(); pen.rect(left, 0, side, side); pen.clip();
    pen.translate(left, 0);
    pen.fillStyle = "#000"; pen.fillRect(0, 0, side, side);
    if (this.video.videoWidth) pen.drawImage(this.video, ...at([-0.5, -0.5]), this.width * scale, this.height * scale);
    if (faint) pen.globalAlpha = 0.5;
    for (const [place, colour] of seen) outlined(pen, faint ? 1.5 : 3.5, colour, () => pen.arc(...at(place), 9, 0, 2 * Math.PI), faint ? 0.25 : 1.25);
    pen.globalAlpha = 1;
    if (label) {
      const [x, y] = at(label), [wide, high] = [this.width, this.height].map((px) => RIGHT_PX * px / RASTER * scale);
      outlined(pen, 2, "#fff", () => pen.ellipse(x, y, wide, high, 0, 0, 2 * Math.PI));
      drawCross(pen, x, y, wide, high, 9, 2);
    }
    pen.restore();
  }

  // The nearest point in reach of the mouse, x and y in CSS px of the canvas.
  point(x, y) {
    const scale = this.canvas.width / this.canvas.clientWidth;
    let nearest = REACH_PX * scale, found = null;
    for (const [k, i] of this.at) {
      const [px, py] = this.place(k, i, this.frame), distance = Math.hypot(px - x * scale, py - y * scale);
      if (distance < nearest) { nearest = distance; found = i; }
    }
    this.pointed = found;
    this.draw();
  }

  // The whole way of the pointed point by each tracker, and its numbers beside it.
  drawPointed(pen, on) {
    const i = this.pointed, here = i === null ? [] : on.filter((k) => this.place(k, i, this.frame));
    this.numbers.hidden = !here.length;
    if (!here.length) return;
    for (const k of here) {
      pen.lineWidth = 1.4 * this.unit; pen.strokeStyle = this.colours[k]; pen.globalAlpha = 0.9;
      pen.beginPath();
      let joined = false;
      for (let frame = 0; frame < this.times.length; frame++) {
        const at = this.isSeen(k, i, frame) && this.place(k, i, frame);
        if (at && joined) pen.lineTo(...at); else if (at) pen.moveTo(...at);
        joined = Boolean(at);
      }
      pen.stroke(); pen.globalAlpha = 1;
      pen.beginPath(); pen.arc(...this.place(k, i, this.frame), 8 * this.unit, 0, 2 * Math.PI);
      pen.lineWidth = 1.6 * this.unit; pen.strokeStyle = "#fff"; pen.stroke();
    }
    this.drawLabel(pen, i);
    this.writeNumbers(i, here);
  }

  writeNumbers(i, here) {
    const cell = (text) => Object.assign(document.createElement("td"), { textContent: text });
    const row = (...cells) => { const line = document.createElement("tr"); line.append(...cells); return line; };
    const at = i * this.times.length + this.frame, table = document.createElement("table");
    table.append(row(...["", "x", "y", "seen", "visibility", "confidence", "trust"].map(cell)));
    for (const k of here) {
      const there = this.index(k, i, this.frame), name = cell(this.trackers[k]), dot = document.createElement("i");
      dot.style.setProperty("--c", this.colours[k]);
      name.prepend(dot);
      const px = [0, 1].map((axis) => (this.xy[2 * there + axis] * UNIT_PX).toFixed(1));
      table.append(row(name, ...[...px, this.sees[there] ? "yes" : "no", share(this.visibility[there]), share(this.confidence[there]), share(this.right[there])].map(cell)));
    }
    const label = this.labelAt(i, this.frame);
    if (label) table.append(row(cell("label"), ...label.map((px) => cell(px.toFixed(1)))));
    const title = document.createElement("b");
    title.textContent = `point ${this.number[i]} · ${this.sampler[i]} in frame ${this.queries[i][0]} · ${STATES[this.state[at]]}, support ${share(this.support[at])} · hidden ${share(this.hidden[at])} · ${this.labelText(i, this.frame)}`;
    this.numbers.replaceChildren(title, table);
    // Beside the point, on the side where there is more room, and inside the picture from left to right.
    const { clientWidth: width, clientHeight: height } = this.canvas, scale = width / this.canvas.width;
    const [x, y] = this.place(here[0], i, this.frame).map((px) => px * scale), { style, offsetWidth: own } = this.numbers;
    const left = x > width / 2 ? x - 16 - own : x + 16, low = y > height / 2;
    style.left = `${Math.max(0, Math.min(left, width - own))}px`;
    style.top = low ? "" : `${y + 12}px`; style.bottom = low ? `${height - y + 12}px` : "";
  }

  paintRamp(ramp) {
    const stops = Array.from({ length: 9 }, (_, i) => rgb(this.ramp, Math.round(i * ONE / 8)));
    ramp.querySelector("i").style.background = `linear-gradient(to right, ${stops})`;
  }
}

// Starts every player under `root` that does not run yet, and returns those that it started.
function startPlayers(root = document) {
  return [...root.querySelectorAll(".player:not([data-frame])")].map((each) => new Player(each));
}
