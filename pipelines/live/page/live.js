// The live page: it shows pictures with the positions that trackers give in them. Messages are
// listed in server.py.
"use strict";

const token = new URLSearchParams(location.search).get("token") ?? "";
const $ = (id) => document.getElementById(id);
const withToken = (path, more = {}) => `${path}?${new URLSearchParams({ token, ...more })}`;

const LONGEST_SIDE = 480; // px of a camera's frames
const IN_FLIGHT = 2; // frames that the server has not taken yet
const PICTURES = 96; // that wait for answers
const TRAIL = 18; // frames
const NEAR = 11; // css px: a click there is on the point
const DISPUTED = 0, VISIBLE = 1, OCCLUDED = 2; // states of agreement
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

const state = {
  socket: null, page: "", session: -1, source: "", name: "", size: [0, 0], length: null, fps: 0,
  titles: [], points: new Map(), pictures: new Map(), shown: null, trails: new Map(),
  paused: false, ended: false, stream: null, sent: 0, inFlight: 0, offered: 0, cameraFps: 0,
  rate: null, colours: new Map(),
  chain: Promise.resolve(),
};

// --- the server

function connect() {
  const socket = new WebSocket(`ws://${location.host}${withToken("/ws")}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") heard(JSON.parse(data));
    else pictured(data);
  };
  socket.onclose = () => complain("The server has ended: start `tapdistill live` again.", true);
  state.socket = socket;
}

const ask = (message) => state.socket.send(JSON.stringify(message));

function heard(message) {
  const what = {
    hello: () => { state.page = message.page; },
    loading: () => { $("source").textContent = `loading ${message.tracker}…`; },
    ready: () => ready(message),
    trackers: () => { state.titles = message.trackers; layOut(); },
    points: () => {
      state.points = new Map(message.points.map((point) => [point.id, point]));
      enable();
      draw();
    },
    answers: () => { state.chain = state.chain.then(() => answered(message)); }, // in order
    ended: () => { state.ended = true; state.paused = true; enable(); },
    error: () => { state.inFlight = 0; complain(message.text); describe(); },
  }[message.is];
  what?.();
}

function ready(message) {
  Object.assign(state, {
    session: message.session, source: message.source, name: message.name, size: message.size,
    fps: message.fps, length: message.length, titles: message.trackers, points: new Map(),
    pictures: new Map(), shown: null, trails: new Map(), sent: 0, inFlight: 0, ended: false,
    paused: message.source === "video" && !state.replaying, replaying: false, colours: new Map(),
  });
  $("welcome").hidden = true;
  $("panels").hidden = $("hint").hidden = false;
  $("error").hidden = true;
  layOut();
  describe();
  enable();
}

function describe() {
  const [height, width] = state.size;
  if (state.session < 0) { $("source").textContent = ""; return; }
  const at = state.shown ? state.shown.frame + 1 : 0;
  const place = state.length ? `, frame ${at} of ${state.length}` : "";
  $("source").textContent = `${state.name}, ${width} × ${height}${place}`;
}

// a picture of a video, ahead of its answer
function pictured(data) {
  const [session, frame] = new Uint32Array(data.slice(0, 8));
  if (session !== state.session) return;
  remember(frame, createImageBitmap(new Blob([data.slice(8)], { type: "image/jpeg" })));
}

function remember(frame, picture) {
  state.pictures.set(frame, picture);
  for (const old of state.pictures.keys()) {
    if (state.pictures.size <= PICTURES) break;
    state.pictures.delete(old);
  }
}

async function answered(message) {
  if (message.session !== state.session) return;
  state.inFlight = Math.max(0, state.inFlight - message.taken);
  state.rate = message.rate;
  for (const answer of message.answers) {
    const waiting = state.pictures.get(answer.frame);
    if (!waiting) continue;
    const picture = await waiting;
    if (message.session !== state.session) return;
    for (const old of state.pictures.keys()) if (old <= answer.frame) state.pictures.delete(old);
    follow(answer);
    state.shown = { ...answer, picture };
  }
  if (message.answers.length) { draw(); describe(); }
  tellRate();
}

// --- trails: what each point did in the last frames, for each title, and "" for the agreement

function follow(answer) {
  const all = { ...answer.tracks, "": answer.agreement ?? [] };
  for (const [title, rows] of Object.entries(all)) {
    const trails = state.trails.get(title) ?? new Map();
    const now = new Map(rows.map((row) => [row[0], row]));
    for (const id of new Set([...trails.keys(), ...now.keys()])) {
      const row = now.get(id);
      const seen = row && (title ? row[3] : row[4] === VISIBLE);
      const trail = [...(trails.get(id) ?? []), seen ? [row[1], row[2]] : null].slice(-TRAIL);
      if (trail.some(Boolean)) trails.set(id, trail);
      else trails.delete(id);
    }
    state.trails.set(title, trails);
  }
}

// --- drawing

const view = () =>
  state.titles.length > 1 ? document.querySelector("[name=view]:checked").value : "side";

function layOut() {
  const titles = view() === "agreement" ? [""] : state.titles;
  const [height, width] = state.size;
  $("panels").style.setProperty("--ratio", width / height || 1);
  $("panels").replaceChildren(...titles.map((title) => {
    const panel = document.createElement("figure");
    panel.className = "panel";
    panel.dataset.title = title;
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", title ? `what ${title} follows` : "what trackers agree on");
    canvas.onclick = (event) => clicked(event, title);
    canvas.onmousemove = (event) =>
      canvas.classList.toggle("near", pointAt(event, title) !== null);
    const caption = document.createElement("figcaption");
    caption.append(title || "what they agree on", document.createElement("span"));
    panel.append(canvas, caption);
    return panel;
  }));
  $("views").hidden = state.titles.length < 2;
  $("ramp").hidden = view() !== "agreement";
  draw();
}

function colour(id) {
  if (!state.colours.has(id)) {
    const point = state.points.get(id);
    if (!point) return "#fff";
    const along = (point.x / state.size[1] + point.y / state.size[0]) / 2;
    state.colours.set(id, `hsl(${Math.round(225 - 225 * along)} 95% 58%)`);
  }
  return state.colours.get(id);
}

function viridis(value) {
  const at = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1), low = Math.min(Math.floor(at), 3);
  const mix = VIRIDIS[low].map((each, i) => each + (VIRIDIS[low + 1][i] - each) * (at - low));
  return `rgb(${mix.map(Math.round).join(" ")})`;
}

function draw() {
  for (const panel of $("panels").children) drawPanel(panel);
}

function drawPanel(panel) {
  const title = panel.dataset.title, canvas = panel.querySelector("canvas");
  const [height, width] = state.size;
  const scale = Math.max(canvas.clientWidth, 1) * devicePixelRatio / width;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  if (!state.shown) return;
  const pen = canvas.getContext("2d");
  pen.drawImage(state.shown.picture, 0, 0, canvas.width, canvas.height);
  // an integer is the centre of a pixel
  const at = ([x, y]) => [(x + 0.5) * scale, (y + 0.5) * scale];
  const rows = (title ? state.shown.tracks[title] : state.shown.agreement) ?? [];
  const alive = rows.filter(([id]) => state.points.has(id));
  const ink = new Map(alive.map((row) => [row[0], title ? colour(row[0]) : viridis(row[3])]));
  const radius = (alive.length > 80 ? 3.2 : 4.6) * devicePixelRatio;
  pen.lineCap = pen.lineJoin = "round";
  if ($("trails").checked) drawTrails(pen, at, state.trails.get(title) ?? new Map(), ink, radius);
  if (!title) drawParted(pen, at, alive, radius);
  for (const row of alive) {
    const seen = title ? row[3] : row[4] === VISIBLE;
    drawMarker(pen, at([row[1], row[2]]), ink.get(row[0]), radius, seen);
  }
  const answered = new Set(Object.values(state.shown.tracks).flatMap((all) => all.map(([id]) => id)));
  for (const point of state.points.values()) {
    if (!answered.has(point.id)) drawMarker(pen, at([point.x, point.y]), "#fff", radius, false);
  }
  tellShare(panel, title, alive);
}

function drawTrails(pen, at, trails, ink, radius) {
  for (const [id, trail] of trails) {
    if (!ink.has(id)) continue;
    pen.strokeStyle = ink.get(id);
    for (let step = 1; step < trail.length; step++) {
      if (!trail[step - 1] || !trail[step]) continue;
      const fresh = (step + TRAIL - trail.length) / TRAIL;
      pen.globalAlpha = 0.85 * fresh;
      pen.lineWidth = radius * (0.25 + 0.45 * fresh);
      pen.beginPath();
      pen.moveTo(...at(trail[step - 1]));
      pen.lineTo(...at(trail[step]));
      pen.stroke();
    }
  }
  pen.globalAlpha = 1;
}

// lines from where most see a point to where each of the others does
function drawParted(pen, at, rows, radius) {
  pen.strokeStyle = "#ffffffb0";
  pen.lineWidth = radius / 4;
  for (const [id, x, y] of rows) {
    for (const tracks of Object.values(state.shown.tracks)) {
      const other = tracks.find((row) => row[0] === id);
      if (!other || !other[3] || Math.hypot(other[1] - x, other[2] - y) < 2) continue;
      pen.beginPath();
      pen.moveTo(...at([x, y]));
      pen.lineTo(...at([other[1], other[2]]));
      pen.stroke();
    }
  }
}

function drawMarker(pen, [x, y], ink, radius, seen) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  if (seen) {
    pen.fillStyle = ink;
    pen.fill();
    pen.strokeStyle = "#000a";
    pen.lineWidth = radius / 4;
  } else {
    pen.strokeStyle = "#0007";
    pen.lineWidth = radius * 0.75;
    pen.stroke();
    pen.strokeStyle = ink;
    pen.lineWidth = radius * 0.4;
  }
  pen.stroke();
}

function tellShare(panel, title, rows) {
  const seen = rows.filter((row) => (title ? row[3] : row[4] === VISIBLE)).length;
  const hidden = title ? "" : `, ${rows.filter((row) => row[4] === DISPUTED).length} disputed`;
  const ms = title && state.rate ? ` · ${state.rate.ms[title] ?? 0} ms a frame` : "";
  panel.querySelector("span").textContent = state.points.size
    ? `sees ${seen} of ${state.points.size}${hidden}${ms}` : "";
}

function tellRate() {
  if (!state.rate) return;
  const figure = document.createElement("b");
  figure.textContent = state.rate.fps.toFixed(1);
  const of = state.source === "camera"
    ? `, of ${state.cameraFps.toFixed(0)} that the camera gives`
    : `, ${(state.rate.fps / state.fps).toFixed(2)} × its speed`;
  $("rate").replaceChildren(figure, " frames/s", state.paused ? ", paused" : of);
  $("rate").dataset.fps = state.rate.fps;
}

// --- points

function place(event) {
  const box = event.target.getBoundingClientRect(), [height, width] = state.size;
  const inside = (value, side) => Math.min(Math.max(value, -0.5), side - 0.5);
  return [
    inside((event.clientX - box.left) / box.width * width - 0.5, width),
    inside((event.clientY - box.top) / box.height * height - 0.5, height),
  ];
}

function pointAt(event, title) {
  if (!state.shown) return null;
  const box = event.target.getBoundingClientRect(), css = box.width / state.size[1];
  const [x, y] = place(event);
  const rows = [...((title ? state.shown.tracks[title] : state.shown.agreement) ?? [])];
  const known = new Set(rows.map(([id]) => id));
  for (const point of state.points.values()) {
    if (!known.has(point.id)) rows.push([point.id, point.x, point.y]);
  }
  let best = null, least = NEAR / css;
  for (const [id, px, py] of rows) {
    const away = Math.hypot(px - x, py - y);
    if (state.points.has(id) && away < least) [best, least] = [id, away];
  }
  return best;
}

function clicked(event, title) {
  if (!state.shown) return;
  const id = pointAt(event, title);
  if (id === null) ask({ do: "add", frame: state.shown.frame, points: [place(event)] });
  else ask({ do: "remove", ids: [id] });
}

function layGrid() {
  const [height, width] = state.size, across = Math.min(Math.max(+$("across").value || 8, 1), 20);
  const cell = Math.max(height, width) / across;
  const columns = Math.max(1, Math.round(width / cell)), rows = Math.max(1, Math.round(height / cell));
  const points = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      points.push([(column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5]);
    }
  }
  if (state.shown) ask({ do: "add", frame: state.shown.frame, points });
}

// --- sources

const chosen = () =>
  [...document.querySelectorAll("#trackers input:checked")].map((each) => each.value);

async function openCamera() {
  stopCamera();
  try {
    state.stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, height: { ideal: 480 } },
    });
  } catch (error) {
    complain(`The camera cannot be opened: ${error.message}.`);
    return;
  }
  const eye = $("eye");
  eye.srcObject = state.stream;
  await eye.play();
  const shrink = Math.min(1, LONGEST_SIDE / Math.max(eye.videoWidth, eye.videoHeight));
  const [width, height] = [eye.videoWidth, eye.videoHeight].map((side) => Math.round(side * shrink));
  state.paused = false;
  state.cameraFps = state.stream.getVideoTracks()[0].getSettings().frameRate ?? 0;
  ask({ do: "camera", width, height, trackers: chosen() });
  eye.requestVideoFrameCallback(seen);
}

function stopCamera() {
  state.stream?.getTracks().forEach((track) => track.stop());
  state.stream = null;
}

// Each picture of the camera: sent if the server has taken those before, and else dropped.
function seen() {
  if (!state.stream) return;
  $("eye").requestVideoFrameCallback(seen);
  if (state.source !== "camera" || state.paused || state.inFlight >= IN_FLIGHT) return;
  const [height, width] = state.size;
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage($("eye"), 0, 0, width, height);
  const message = new Uint8Array(8 + 4 * width * height);
  new Uint32Array(message.buffer, 0, 2).set([state.session, state.sent]);
  message.set(pen.getImageData(0, 0, width, height).data, 8);
  remember(state.sent, Promise.resolve(canvas));
  state.sent++;
  state.inFlight++;
  state.socket.send(message);
}

async function openVideo(file) {
  stopCamera();
  $("source").textContent = `sending ${file.name}…`;
  let answer;
  try {
    const response = await fetch(withToken("/upload", { name: file.name }), { method: "PUT", body: file });
    answer = await response.json();
  } catch (error) {
    answer = { error: error.message };
  }
  if (answer.error) { complain(`${file.name}: ${answer.error}`); describe(); return; }
  ask({ do: "video", upload: answer.upload, name: file.name, trackers: chosen() });
}

function playOrPause() {
  if (state.session < 0) return;
  state.paused = !state.paused;
  if (state.source === "video") {
    if (state.ended) state.replaying = true;
    ask({ do: state.paused ? "pause" : "play" });
  }
  enable();
  tellRate();
}

// --- the rest

function enable() {
  const open = state.session >= 0;
  for (const id of ["play", "grid"]) $(id).disabled = !open;
  $("clear").disabled = $("overlay").disabled = $("tracks").disabled = !state.points.size;
  $("step").hidden = state.source !== "video" || !state.paused || state.ended;
  $("play").textContent = state.ended ? "Play again" : state.paused ? "Play" : "Pause";
  $("play").classList.toggle("main", open && state.paused);
}

let complaint;
function complain(text, forGood = false) {
  $("error").textContent = text;
  $("error").hidden = false;
  clearTimeout(complaint);
  if (!forGood) complaint = setTimeout(() => { $("error").hidden = true; }, 12000);
}

async function save(what, button) {
  button.disabled = true;
  try {
    const response = await fetch(withToken(`/save/${what}`, { page: state.page }));
    if (!response.ok) throw new Error((await response.json()).error);
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"))[1];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  } catch (error) {
    complain(`It cannot be saved: ${error.message}`);
  }
  enable();
}

async function listTrackers() {
  const all = await (await fetch(withToken("/trackers"))).json();
  const here = all.filter((each) => !each.missing), later = all.filter((each) => each.missing);
  here.forEach((each, number) => {
    const label = document.createElement("label"), box = document.createElement("input");
    Object.assign(box, { type: "checkbox", value: each.title, checked: number < 2 });
    box.onchange = () => {
      if (!chosen().length) box.checked = true; // at least one
      if (state.session >= 0) ask({ do: "trackers", trackers: chosen() });
    };
    label.append(box, each.title);
    $("trackers").append(label);
  });
  $("more").hidden = !later.length;
  $("more").querySelector("ul").append(...later.map((each) => {
    const line = document.createElement("li"), code = document.createElement("code");
    code.textContent = each.missing;
    line.append(code);
    return line;
  }));
}

$("play").onclick = playOrPause;
$("step").onclick = () => ask({ do: "step" });
$("grid").onclick = layGrid;
$("clear").onclick = () => ask({ do: "remove", all: true });
$("overlay").onclick = ({ target }) => save("overlay", target);
$("tracks").onclick = ({ target }) => save("tracks", target);
$("camera").onclick = $("camera-first").onclick = openCamera;
$("choose").onclick = $("choose-first").onclick = () => $("file").click();
$("file").onchange = ({ target }) => {
  if (target.files.length) openVideo(target.files[0]);
  target.value = "";
};
$("views").onchange = layOut;
$("error").onclick = () => { $("error").hidden = true; };
document.ondragover = (event) => { event.preventDefault(); $("stage").classList.add("over"); };
document.ondragleave = () => $("stage").classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  if (event.dataTransfer.files.length) openVideo(event.dataTransfer.files[0]);
};
document.onkeydown = (event) => {
  const free = !["INPUT", "BUTTON", "SUMMARY"].includes(event.target.tagName);
  if (event.key === " " && free) { event.preventDefault(); playOrPause(); }
};
window.onresize = draw;
connect();
listTrackers();
