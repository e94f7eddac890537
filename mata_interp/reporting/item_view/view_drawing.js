// What the view draws: tracks, map, cursor and values of the item, head and moment that are chosen.

class ViewDrawing {
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
}
