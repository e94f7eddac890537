// The map of layers (rows) and heads (columns, the mean over heads first).

const MAP_LEFT = 34, MAP_TOP = 18, MEAN_GAP = 6;

class HeadMap {
  constructor(canvas) {
    this.canvas = canvas;
  }

  // `scene`: attention, layerNames, edited, view, bin (null: the whole clip), layer, head, locked, colours.
  draw(scene) {
    this.scene = scene;
    const { attention, colours } = scene;
    const columns = attention.heads + 1, rows = attention.layers;
    const width = Math.min(this.canvas.parentElement.clientWidth || 320, 420);
    const room = (width - MAP_LEFT - MEAN_GAP - 4) / columns;
    this.cell = { width: Math.min(room, 38), height: Math.min(Math.max(260 / rows, 8), 22) };
    const height = MAP_TOP + rows * this.cell.height + 4;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const ink = (this.context = this.canvas.getContext("2d"));
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, width, height);
    ink.font = `11px ${colours.font}`;
    this.cells = attention.map(scene.view, scene.bin);
    const top = Math.max(1e-12, ...this.cells.flat().map(Math.abs));
    this.top = top;
    this.cells.forEach((row, layer) => row.forEach((value, column) => this.drawCell(layer, column, value / top)));
    this.drawLabels(rows, columns);
    this.outline(scene.layer, scene.head + 1);
  }

  x(column) {
    return MAP_LEFT + column * this.cell.width + (column ? MEAN_GAP : 0);
  }

  y(layer) {
    return MAP_TOP + layer * this.cell.height;
  }

  drawCell(layer, column, part) {
    const { context, cell, scene } = this;
    const at = [this.x(column), this.y(layer), Math.max(cell.width - 1, 1), Math.max(cell.height - 1, 1)];
    context.fillStyle = scene.colours.tint;
    context.fillRect(...at);
    context.globalAlpha = Math.sqrt(Math.abs(part));
    context.fillStyle = part < 0 ? scene.colours.sham : scene.colours.audio;
    context.fillRect(...at);
    context.globalAlpha = 1;
  }

  drawLabels(rows, columns) {
    const { context, scene, cell } = this;
    context.fillStyle = scene.colours.soft;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const every = Math.ceil(12 / cell.height);
    for (let layer = 0; layer < rows; layer++) {
      if (layer % every === 0) context.fillText(scene.layerNames[layer], MAP_LEFT - 8, this.y(layer) + cell.height / 2);
      if (scene.edited.has(scene.layerNames[layer])) {
        context.fillRect(MAP_LEFT - 5, this.y(layer), 2.5, cell.height - 1);
      }
    }
    context.textAlign = "center";
    const step = Math.ceil(20 / cell.width);
    context.fillText("all", this.x(0) + cell.width / 2, MAP_TOP / 2);
    for (let head = 0; head < columns - 1; head += step) {
      if (head || cell.width > 14) context.fillText(head, this.x(head + 1) + cell.width / 2, MAP_TOP / 2);
    }
  }

  outline(layer, column) {
    const { context, cell, scene } = this;
    context.strokeStyle = scene.colours.ink;
    context.lineWidth = scene.locked ? 2.5 : 1.5;
    context.strokeRect(this.x(column) - 0.5, this.y(layer) - 0.5, cell.width, cell.height);
  }

  // The cell under a point: {layer, head}, or null.
  cellAt(x, y) {
    const layer = Math.floor((y - MAP_TOP) / this.cell.height);
    let column = Math.floor((x - MAP_LEFT) / this.cell.width);
    if (column >= 1) column = Math.max(1, Math.floor((x - MAP_LEFT - MEAN_GAP) / this.cell.width));
    const { attention } = this.scene;
    const inside = layer >= 0 && layer < attention.layers && column >= 0 && column <= attention.heads;
    return inside ? { layer, head: column - 1 } : null;
  }
}
