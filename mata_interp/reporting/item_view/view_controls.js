// The controls of one item: what is shown, locked, looped and played.

class ViewControls extends ViewDrawing {
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
}
