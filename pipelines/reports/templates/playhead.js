// The chart beside a player shows where it is.
addEventListener("frame", ({ target, detail: { frame, last } }) => {
  const playhead = target.closest(".clip").querySelector(".playhead"), x = last ? 300 * frame / last : 0;
  playhead.setAttribute("x1", x); playhead.setAttribute("x2", x);
});
