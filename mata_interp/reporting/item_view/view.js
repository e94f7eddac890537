// The item view: a table of items, and the clip of one of them with attention over it.
//
// The drawing is our own and not wavesurfer.js: the view needs several tracks over one axis with attention on them, a map
// of heads tied to the same cursor, and gain that follows attention. wavesurfer.js draws waveforms and spectrograms,
// decodes the whole clip to do so (ours come precomputed), and would be more code in the page than all of this.
//
// Hovering previews a head or a moment, a click locks it, Escape unlocks. All state is in the address.

class ItemView {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector(".iv-data").textContent);
    this.data.byId = new Map(this.data.items.map((item) => [item.id, item]));
    this.state = { item: null, layer: 0, head: -1, view: [0], locked: false, moment: false, only: false };
    this.preview = { cell: null, time: null };
    this.player = new Player(() => this.showPlayer());
    this.tracks = new Tracks(this.find(".iv-tracks canvas"));
    this.map = new HeadMap(this.find(".iv-map canvas"));
    this.table = new ItemTable(root, this.data, (item) => this.open(item), () => this.remember());
    this.readColours();
    this.wireControls();
    wireTracks(this);
    wireMap(this);
    this.wirePage();
    root.classList.toggle("iv-single", this.data.items.length < 2);
    this.restore();
    root.dataset.ready = "true";
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  // Colours as the canvas takes them: a probe element resolves variables of every kind.
  readColours() {
    const probe = element("span");
    this.root.append(probe);
    const read = (name) => {
      probe.style.color = `var(--iv-${name})`;
      return getComputedStyle(probe).color;
    };
    const names = ["ink", "soft", "rule", "tint", "audio", "sham", "wave"];
    this.colours = Object.fromEntries(names.map((name) => [name, read(name)]));
    this.colours.font = getComputedStyle(probe).fontFamily;
    this.colours.conditions = [this.colours.soft, this.colours.audio, this.colours.sham];
    probe.remove();
  }

  // --- what is chosen ---------------------------------------------------------------------------------------------

  async open(item, asked = {}) {
    if (!item) return;
    const ticket = (this.ticket = Symbol("the last item asked for"));
    const { time = 0, loop = null, layer, head, ...state } = asked;
    Object.assign(this.state, { item, moment: false, ...state });
    this.preview = { cell: null, time: null };
    this.root.dataset.loaded = "";
    this.table.select(item);
    this.find(".iv-item").hidden = false;
    showTexts(this.root, item, this.data);
    const edges = item.edges === null ? [0, 0] : this.data.edges[item.edges];
    const unpacks = "DecompressionStream" in window;
    this.find(".iv-old").hidden = unpacks;
    const attention = unpacks ? await Attention.of(item.mean, item.heads, edges, this.data.conditions.length) : null;
    const media = unpacks && item.media ? await Media.of(item.media) : null;
    if (this.ticket !== ticket) return;
    Object.assign(this, { attention, media });
    this.player.gain = null;
    this.player.loop = loop;
    const playable = await this.player.load(item.audio && bytesOf(item.audio));
    if (this.ticket !== ticket) return;
    this.chooseCell(layer, head);
    this.find(".iv-unplayable").hidden = playable || !item.audio;
    this.find(".iv-bar-of-controls").hidden = !playable;
    if (time) this.player.seek(time, this.seconds);
    this.fillControls();
    this.applyGain();
    this.draw();
    this.showPlayer();
    this.root.dataset.loaded = item.id;
  }

  // Keep layer and head from item to item as far as the next one has them; at first, the edited layer that looks most.
  chooseCell(layer, head) {
    const { attention, state } = this;
    if (!attention) return;
    if (layer === undefined && !this.chosen) {
      const edited = this.data.layers.map((name) => this.data.edited.includes(name));
      const totals = attention.map([0], null).map((row, n) => row[0] + (edited[n] ? 1 : 0));
      layer = totals.indexOf(Math.max(...totals));
    }
    this.chosen = true;
    state.layer = Math.min(layer ?? state.layer, attention.layers - 1);
    state.head = Math.min(head ?? state.head, attention.heads - 1);
  }

  get cell() {
    return this.preview.cell || this.state;
  }

  // The moment that the map shows: the one under the pointer, or that of the cursor once it is locked.
  get moment() {
    return this.preview.time ?? (this.state.moment ? this.player.currentTime : null);
  }

  get seconds() {
    return this.state.item?.seconds || this.player.duration;
  }

  cellName({ layer, head }) {
    return `layer ${this.data.layers[layer]}, ${head < 0 ? "mean over heads" : `head ${head}`}`;
  }

  viewName([first, second]) {
    const { conditions } = this.data;
    return second === undefined ? conditions[first].label : `${conditions[first].label} \u2212 ${conditions[second].label}`;
  }

  // --- drawing ----------------------------------------------------------------------------------------------------

  draw() {
    const { state, attention, cell, colours } = this;
    if (!state.item) return;
    this.tracks.draw({
      seconds: this.seconds,
      clips: state.item.clips,
      media: this.media,
      attention,
      layer: cell.layer,
      head: cell.head,
      view: state.view,
      viewName: this.viewName(state.view),
      cellName: this.cellName(cell),
      labels: this.data.conditions.map(({ label }) => label),
      colours,
    });
    this.drawMap();
    this.placeCursor();
  }

  drawMap() {
    const { attention, state, cell, colours, moment } = this;
    this.find(".iv-map").hidden = this.find(".iv-legend").hidden = !attention;
    if (!attention) return;
    const bin = moment === null ? null : attention.binAt(moment);
    this.map.draw({
      attention,
      layerNames: this.data.layers,
      edited: new Set(this.data.edited),
      view: state.view,
      bin,
      layer: cell.layer,
      head: cell.head,
      locked: state.locked && !this.preview.cell,
      colours,
    });
    this.shownBin = bin;
    const shown = bin === null ? "whole clip" : `at ${moment.toFixed(2)} s`;
    const top = bin === null ? `${percentText(this.map.top)} %` : `${percentText(this.map.top)} % per second`;
    this.find(".iv-map-title").textContent = `Attention to the audio by layer and head: ${this.viewName(state.view)}, ${shown}`;
    this.find(".iv-map-scale").textContent = `Strongest cell: ${top} of a head's attention. Bar at the left: edited layers.`;
  }

  placeCursor() {
    const { tracks, player } = this;
    if (!tracks.width) return;
    const time = player.currentTime;
    const move = (selector, at) => (this.find(selector).style.transform = `translateX(${tracks.xAt(at)}px)`);
    move(".iv-cursor", time);
    this.find(".iv-hover").hidden = this.preview.time === null;
    if (this.preview.time !== null) move(".iv-hover", this.preview.time);
    const loop = this.find(".iv-loop-region"), range = this.dragged || player.loop;
    loop.hidden = !range;
    if (range) {
      const [left, right] = range.map((end) => tracks.xAt(end));
      Object.assign(loop.style, { left: `${left}px`, width: `${right - left}px` });
    }
    this.find(".iv-time").textContent = `${time.toFixed(2)} / ${this.seconds.toFixed(2)} s`;
    const slider = this.find(".iv-tracks");
    slider.setAttribute("aria-valuenow", time.toFixed(2));
    slider.setAttribute("aria-valuemax", this.seconds.toFixed(2));
    slider.setAttribute("aria-valuetext", `${time.toFixed(2)} seconds`);
    this.showValues();
  }

  // The values under the pointer or the cursor, as text.
  showValues() {
    const { attention, cell } = this, place = this.find(".iv-values");
    if (!attention) return place.replaceChildren();
    const time = this.preview.time ?? this.player.currentTime, bin = attention.binAt(time);
    const values = this.data.conditions.map(
      ({ label }, c) => `${label} ${percentText(attention.row(cell.layer, cell.head, [c])[bin])}`,
    );
    place.textContent = `${time.toFixed(2)} s, ${this.cellName(cell)}, % per second: ${values.join("; ")}`;
  }

  showPlayer() {
    const { player } = this;
    const button = this.find(".iv-play");
    button.textContent = player.paused ? "\u25b6 Play" : "Pause";
    button.disabled = !player.buffer;
    this.find(".iv-loop-off").hidden = !player.loop;
    this.placeCursor();
    if (player.paused) this.remember();
    else this.follow();
  }

  // While it plays, the cursor follows, and the map if a moment is locked.
  follow() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      if (this.state.moment) this.redrawMoment();
      else this.placeCursor();
      if (!this.player.paused) this.follow();
    });
  }

  // The map is drawn again only where the moment is in another bin.
  redrawMoment() {
    const { attention, moment } = this;
    const bin = moment === null || !attention ? null : attention.binAt(moment);
    if (bin !== this.shownBin) this.drawMap();
    this.placeCursor();
  }

  // --- controls ---------------------------------------------------------------------------------------------------

  wireControls() {
    const { conditions, layers } = this.data;
    const views = [...conditions.map((_, c) => [c]), ...conditions.slice(1).map((_, c) => [c + 1, 0])];
    const option = (value, text) => element("option", { value }, text);
    this.find("[name=view]").append(...views.map((view) => option(view.join("-"), this.viewName(view))));
    this.find("[name=view]").addEventListener("change", (event) => this.setView(event.target.value.split("-").map(Number)));
    this.find("[name=layer]").append(...layers.map((layer, row) => option(row, layer)));
    const chosen = (name) => Number(this.find(`[name=${name}]`).value);
    for (const name of ["layer", "head"]) {
      this.find(`[name=${name}]`).addEventListener("change", () => this.lock({ layer: chosen("layer"), head: chosen("head") }));
    }
    this.find(".iv-play").addEventListener("click", () => this.toggle());
    this.find(".iv-loop-off").addEventListener("click", () => this.setLoop(null));
    this.find("[name=only]").addEventListener("change", (event) => {
      this.state.only = event.target.checked;
      this.applyGain();
      this.remember();
    });
    const lines = conditions.map(({ label }, c) => element("span", {}, element("span", { class: `iv-line iv-line-${c}` }), label));
    this.find(".iv-legend").append(...lines);
  }

  // What the controls offer for this item.
  fillControls() {
    const { attention } = this, heads = attention ? attention.heads : 0;
    const options = [element("option", { value: -1 }, "mean over heads")];
    for (let head = 0; head < heads; head++) options.push(element("option", { value: head }, head));
    this.find("[name=head]").replaceChildren(...options);
    this.find(".iv-choice").hidden = !attention;
    this.find(".iv-only").hidden = !attention;
    this.find(".iv-heads-missing").hidden = !attention || heads > 0;
    this.showControls();
  }

  showControls() {
    const { state } = this;
    this.find("[name=layer]").value = state.layer;
    this.find("[name=head]").value = state.head;
    this.find("[name=view]").value = state.view.join("-");
    this.find("[name=only]").checked = state.only;
    const locks = [state.locked && this.cellName(state), state.moment && "the moment of the cursor"].filter(Boolean);
    this.find(".iv-locks").textContent = locks.length ? `Locked: ${locks.join("; ")}. Esc unlocks.` : "";
  }

  setView(view) {
    this.state.view = view;
    this.applyGain();
    this.draw();
    this.remember();
  }

  previewCell(cell) {
    const before = this.preview.cell;
    if (cell?.layer === before?.layer && cell?.head === before?.head) return;
    this.preview.cell = cell;
    this.draw();
  }

  lock(cell) {
    Object.assign(this.state, cell, { locked: true });
    this.preview.cell = null;
    this.applyGain();
    this.showControls();
    this.draw();
    this.remember();
  }

  unlock() {
    const { state } = this;
    if (!state.locked && !state.moment) return this.setLoop(null);
    Object.assign(state, { locked: false, moment: false });
    this.preview = { cell: null, time: null };
    this.showControls();
    this.draw();
    this.remember();
  }

  toggle() {
    if (this.player.paused) this.player.play();
    else this.player.pause();
  }

  seek(seconds) {
    this.state.moment = true;
    this.player.seek(seconds, this.seconds);
    this.redrawMoment();
    this.showControls();
  }

  setLoop(range) {
    this.player.setLoop(range);
    this.remember();
  }

  // Gain of each bin: attention per second over its largest value.
  applyGain() {
    const { attention, state, player } = this;
    if (!state.only || !attention) {
      if (player.gain) player.setGain(null);
      return;
    }
    const row = Array.from(attention.row(state.layer, state.head, [state.view[0]]));
    const top = Math.max(...row) || 1;
    player.setGain({ edges: attention.edges, values: row.map((value) => value / top) });
  }

  // --- the page around --------------------------------------------------------------------------------------------

  wirePage() {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && event.target.type !== "search") this.unlock();
    });
    window.addEventListener("hashchange", () => this.restore());
    new ResizeObserver(() => this.draw()).observe(this.find(".iv-item"));
    const recolour = () => {
      this.readColours();
      this.draw();
    };
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
    new MutationObserver(recolour).observe(document.documentElement, { attributeFilter: ["data-theme", "class", "style"] });
    for (const event of ["pointerdown", "keydown"]) {
      this.root.addEventListener(event, () => (this.touched = true), { capture: true });
    }
  }

  // Put the state into the address, once somebody has changed something.
  remember() {
    if (!this.state.item || !(this.touched || location.hash.startsWith(PREFIX))) return;
    const hash = addressOf(this);
    if (hash !== location.hash) history.replaceState(null, "", hash);
  }

  // Show what the address asks for; at first, without it, an item with audio.
  restore() {
    const asked = readAddress(location.hash, this.data);
    if (!asked && this.state.item) return;
    this.table.setFilters(asked ? asked.filters : {});
    const item = asked?.item || this.state.item || this.table.shown.find((one) => one.audio) || this.table.shown[0];
    if (!item) return;
    this.table.reveal(item);
    this.open(item, asked ? asked.state : {});
    if (asked) this.root.scrollIntoView({ block: "start" });
  }
}

for (const root of document.querySelectorAll(".item-view")) root.itemView = new ItemView(root);
