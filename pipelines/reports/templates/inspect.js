// The table of clips: filtered, sorted, and a clip opened from it. index.html#KEY@FRAME opens the page at a clip and a frame.
const rows = [...document.querySelectorAll(".clips tbody tr")], body = document.querySelector(".clips tbody");
const words = document.querySelector("#words"), band = document.querySelector("#band"), count = document.querySelector("#count");
const dialog = document.querySelector("dialog"), opened = dialog.querySelector(".opened");
let current = null;   // the row whose clip is open

function filter() {
  const asked = words.value.toLowerCase().split(/\s+/), [least, most] = band.value.split(" ").map(Number);
  for (const row of rows) {
    const text = row.dataset.words.toLowerCase(), kept = Number(row.dataset.kept);
    row.hidden = kept < least || kept > most || !asked.every((word) => text.includes(word));
  }
  count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} clips`;
}

// By the column of a heading, numbers the largest first; once more: the other way round.
function sort(heading) {
  const headings = [...heading.parentElement.children], column = headings.indexOf(heading), isNumber = heading.classList.contains("number");
  const was = heading.getAttribute("aria-sort"), descending = was ? was === "ascending" : isNumber;
  for (const each of headings) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (row) => row.children[column].dataset.value;
  const compare = isNumber ? (a, b) => value(a) - value(b) : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
  rows.sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
  body.append(...rows);
}

// A clip's content lies in the page, or in a script beside it that calls `clip(number, html)`.
const read = new Map();
function clip(number, html) { read.set(String(number), html); }

function contentOf(row) {
  const number = row.id.slice("row-".length), inPage = document.getElementById(`clip-${number}`);
  if (inPage) return Promise.resolve(inPage.content.cloneNode(true));
  return new Promise((done) => {
    const script = Object.assign(document.createElement("script"), { src: row.dataset.file });
    const finish = () => {
      const holder = document.createElement("template");
      if (read.has(number)) holder.innerHTML = read.get(number);
      else holder.content.append(`Could not read ${row.dataset.file}: it belongs into the same folder as this page.`);
      read.delete(number); script.remove(); done(holder.content);
    };
    script.onload = script.onerror = finish;
    document.head.append(script);
  });
}

async function openRow(row, frame = 0) {
  current = row;
  const content = await contentOf(row);
  if (current !== row) return;   // another one was opened meanwhile
  opened.replaceChildren(content);
  if (!dialog.open) dialog.showModal();
  history.replaceState(null, "", `#${encodeURIComponent(row.dataset.key)}`);
  for (const player of startPlayers(opened)) { player.seek(frame); player.root.focus(); }
}

function step(by) {
  const shown = [...body.children].filter((row) => !row.hidden), next = shown[shown.indexOf(current) + by];
  if (next) openRow(next);
}

function openAtHash() {
  const [key, frame] = decodeURIComponent(location.hash.slice(1)).split("@"), row = rows.find((each) => each.dataset.key === key);
  if (row) openRow(row, Number(frame) || 0);
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("select, input[type=search]")) return;
  const action = dialog.open ? { n: () => step(1), p: () => step(-1) }[event.key] : event.key === "/" && words && (() => words.focus());
  if (action) { event.preventDefault(); action(); }
}

dialog.querySelector(".previous").addEventListener("click", () => step(-1));
dialog.querySelector(".next").addEventListener("click", () => step(1));
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  opened.replaceChildren();
  history.replaceState(null, "", location.pathname + location.search);
  current.querySelector(".open").focus();
  current = null;
});
addEventListener("keydown", pressed);
if (body) {
  for (const each of [words, band]) each.addEventListener("input", filter);
  for (const button of document.querySelectorAll(".sort")) button.addEventListener("click", () => sort(button.parentElement));
  body.addEventListener("click", (event) => openRow(event.target.closest("tr")));
  filter();
  addEventListener("hashchange", openAtHash);
  openAtHash();
}
