// Packed arrays and the attention of one item.
//
// An array comes as uint8, compressed (raw deflate) and in base64. A value is scale * (byte / 255)^2: attention is small
// nearly everywhere, and the square keeps small values apart.

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflate(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Attention of an item: layers x heads x conditions x bins, and the mean over heads as head -1.
class Attention {
  static async of(packedMean, packedHeads, edges, conditions) {
    const mean = packedMean && { ...packedMean, bytes: await inflate(packedMean.data) };
    const heads = packedHeads && { ...packedHeads, bytes: await inflate(packedHeads.data) };
    return mean ? new Attention(mean, heads, edges, conditions) : null;
  }

  constructor(mean, heads, edges, conditions) {
    this.mean = mean;
    this.perHead = heads;
    this.edges = edges;
    this.conditions = conditions;
    this.layers = mean.shape[0];
    this.heads = heads ? heads.shape[1] : 0;
    this.rows = new Map();
  }

  // Attention per second in every bin; `view` is [condition] or [condition, condition to subtract].
  row(layer, head, view) {
    const key = `${layer} ${head} ${view}`;
    if (!this.rows.has(key)) {
      const [first, second] = view;
      const row = this.plainRow(layer, head, first);
      if (second !== undefined) this.plainRow(layer, head, second).forEach((value, bin) => (row[bin] -= value));
      this.rows.set(key, row);
    }
    return this.rows.get(key);
  }

  plainRow(layer, head, condition) {
    const from = head < 0 ? this.mean : this.perHead;
    const [, heads, conditions, bins] = from.shape;
    const offset = ((layer * heads + Math.max(head, 0)) * conditions + condition) * bins;
    const row = new Float64Array(bins);
    for (let bin = 0; bin < bins; bin++) {
      const byte = from.bytes[offset + bin] / 255;
      row[bin] = (from.scale * byte * byte) / (this.edges[bin + 1] - this.edges[bin]);
    }
    return row;
  }

  // Part of the attention that goes to the audio, over all bins.
  total(layer, head, view) {
    const row = this.row(layer, head, view);
    let sum = 0;
    for (let bin = 0; bin < row.length; bin++) sum += row[bin] * (this.edges[bin + 1] - this.edges[bin]);
    return sum;
  }

  binAt(seconds) {
    const { edges } = this;
    for (let bin = 0; bin < edges.length - 2; bin++) if (seconds < edges[bin + 1]) return bin;
    return edges.length - 2;
  }

  // Largest value of a cell under any condition: the scale on which all of them are drawn.
  top(layer, head) {
    let top = 0;
    for (let c = 0; c < this.conditions; c++) for (const value of this.row(layer, head, [c])) top = Math.max(top, value);
    return top;
  }

  // Value of every cell, over the whole clip (bin null) or at one moment: rows of [mean, head 0, head 1, ...].
  map(view, bin) {
    const cells = [];
    for (let layer = 0; layer < this.layers; layer++) {
      const row = [];
      for (let head = -1; head < this.heads; head++) {
        row.push(bin === null ? this.total(layer, head, view) : this.row(layer, head, view)[bin]);
      }
      cells.push(row);
    }
    return cells;
  }
}
