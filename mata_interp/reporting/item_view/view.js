// The item view: a table of items, and the clip of one of them with attention over it.
//
// The drawing is our own and not wavesurfer.js: the view needs several tracks over one axis with attention on them, a map
// of heads tied to the same cursor, and gain that follows attention. wavesurfer.js draws waveforms and spectrograms,
// decodes the whole clip to do so (ours come precomputed), and would be more code in the page than all of this.
//
// Hovering previews a head or a moment, a click locks it, Escape unlocks. All state is in the address.

class ItemView extends ViewControls {
  constructor(root) {
    super();
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

  // --- what is chosen ---------------------------------------------------------------------------------------------

  async open(item, request = {}) {
    if (!item) return;
    const ticket = (this.ticket = Symbol("the last item asked for"));
    const { time = 0, loop = null, layer, head, ...state } = request;
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

  // Show what the address asks for; at first, without it, the first item with audio and a caption, or with audio.
  restore() {
    const request = readAddress(location.hash, this.data);
    if (!request && this.state.item) return;
    this.table.setFilters(request ? request.filters : {});
    const { shown } = this.table, playable = shown.filter((one) => one.audio);
    const first = playable.find((one) => one.caption) || playable[0] || shown[0];
    const item = request?.item || this.state.item || first;
    if (!item) return;
    this.table.reveal(item);
    this.open(item, request ? request.state : {});
    if (request) this.root.scrollIntoView({ block: "start" });
  }
}

for (const root of document.querySelectorAll(".item-view")) root.itemView = new ItemView(root);
