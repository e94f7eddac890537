// Pointer and keys. Hovering previews, a click locks; on the tracks a drag loops a stretch.

const DRAG = 4; // pixels before a press becomes a drag
const SHORTEST_LOOP = 0.02; // seconds

function wireTracks(view) {
  const place = view.find(".iv-tracks");
  const timeAt = (event) => view.tracks.timeAt(event.clientX - place.getBoundingClientRect().left);
  let pressed = null;
  place.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pressed = { x: event.clientX, time: timeAt(event) };
    place.setPointerCapture(event.pointerId);
  });
  place.addEventListener("pointermove", (event) => {
    view.preview.time = timeAt(event);
    if (pressed && Math.abs(event.clientX - pressed.x) > DRAG) {
      view.dragged = [pressed.time, view.preview.time].sort((a, b) => a - b);
    }
    view.redrawMoment();
  });
  place.addEventListener("pointerup", (event) => {
    const range = view.dragged;
    view.dragged = null;
    if (range && range[1] - range[0] > SHORTEST_LOOP) view.setLoop(range);
    else if (pressed) view.seek(timeAt(event));
    pressed = null;
  });
  place.addEventListener("pointercancel", () => (pressed = view.dragged = null));
  place.addEventListener("pointerleave", () => {
    view.preview.time = null;
    view.redrawMoment();
  });
  place.addEventListener("keydown", (event) => keyOnTracks(view, event));
}

function keyOnTracks(view, event) {
  const { player, seconds } = view, step = event.shiftKey ? 1 : 0.1;
  const steps = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -seconds / 10, PageUp: seconds / 10 };
  const ends = { Home: 0, End: seconds };
  if (event.key in steps) view.seek(player.currentTime + steps[event.key]);
  else if (event.key in ends) view.seek(ends[event.key]);
  else if (event.key === "[" || event.key === "]") setLoopEnd(view, event.key === "[");
  else if (event.key === " ") view.toggle();
  else return;
  event.preventDefault();
}

function setLoopEnd(view, first) {
  const now = view.player.currentTime, [begin, end] = view.player.loop || [0, view.seconds];
  const range = first ? [now, end > now ? end : view.seconds] : [begin < now ? begin : 0, now];
  if (range[1] - range[0] > SHORTEST_LOOP) view.setLoop(range);
}

function wireMap(view) {
  const canvas = view.find(".iv-map canvas");
  const cellAt = (event) => view.map.cellAt(event.offsetX, event.offsetY);
  canvas.addEventListener("pointermove", (event) => {
    if (!view.state.locked) view.previewCell(cellAt(event));
  });
  canvas.addEventListener("pointerleave", () => view.previewCell(null));
  canvas.addEventListener("click", (event) => {
    const cell = cellAt(event);
    if (cell) view.lock(cell);
  });
}
