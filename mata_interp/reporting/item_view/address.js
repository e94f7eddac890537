// The state of the view in the address of the page: #items?item=...&layer=...

const PREFIX = "#items?";

function addressOf({ state, player, table, data }) {
  const { filters } = table;
  const values = {
    item: state.item.id,
    layer: data.layers[state.layer],
    head: state.head < 0 ? "" : state.head,
    view: state.view.join("-") === "0" ? "" : state.view.join("-"),
    lock: [state.locked && "head", state.moment && "moment"].filter(Boolean).join(","),
    t: player.currentTime ? player.currentTime.toFixed(3) : "",
    loop: player.loop ? player.loop.map((end) => end.toFixed(3)).join("-") : "",
    only: state.only ? 1 : "",
    ...filters,
    outcome: [...filters.outcome].join(","),
  };
  const entries = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined);
  return PREFIX + new URLSearchParams(entries.map(([key, value]) => [key, String(value)]));
}

// What an address asks for: {filters, item, state}, or null if it is not one of this view. An address may be typed by
// hand, so everything is checked against the data.
function readAddress(hash, data) {
  if (!hash.startsWith(PREFIX)) return null;
  const values = Object.fromEntries(new URLSearchParams(hash.slice(PREFIX.length)));
  const layer = values.layer === undefined ? -1 : data.layers.indexOf(Number(values.layer));
  const view = (values.view || "0").split("-").map(Number);
  const known = view.length <= 2 && view.every((c) => Number.isInteger(c) && c >= 0 && c < data.conditions.length);
  const loop = (values.loop || "").split("-").map(Number);
  const locks = (values.lock || "").split(",");
  const head = Number(values.head ?? -1);
  const state = {
    ...(layer >= 0 ? { layer, head: Number.isInteger(head) && head >= -1 ? head : -1 } : {}),
    view: known ? view : [0],
    locked: locks.includes("head"),
    moment: locks.includes("moment"),
    only: values.only === "1",
    time: Number(values.t) || 0,
    loop: loop.length === 2 && loop[0] >= 0 && loop[1] > loop[0] ? loop : null,
  };
  return { filters: values, item: data.byId.get(values.item), state };
}
