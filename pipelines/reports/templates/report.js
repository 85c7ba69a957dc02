// report.html#KEY@FRAME opens the page at a clip and a frame.
function openAtHash(players) {
  const [key, frame] = decodeURIComponent(location.hash.slice(1)).split("@");
  const player = players.find((each) => each.key === key);
  if (!player) return;
  player.root.scrollIntoView({ block: "center" });
  if (/^\d+$/.test(frame)) player.seek(Number(frame));
}

const players = startPlayers();
addEventListener("hashchange", () => openAtHash(players));
openAtHash(players);
