// The tracks over one time axis: waveform, spectrogram with attention on it, attention under every condition, difference.

const LEFT = 54, RIGHT = 10;
const LANES = [
  { name: "wave", title: "Waveform", height: 58 },
  { name: "spectrogram", title: "Spectrogram", height: 128 },
  { name: "attention", title: "Attention", height: 92 },
  { name: "difference", title: "Difference", height: 70 },
];
const GAP = 20, AXIS = 22;

class Tracks {
  constructor(canvas) {
    this.canvas = canvas;
    let top = 0;
    this.lanes = {};
    for (const lane of LANES) {
      this.lanes[lane.name] = { ...lane, top: top + GAP };
      top += GAP + lane.height;
    }
    this.height = top + AXIS;
  }

  timeAt(x) {
    const part = (x - LEFT) / (this.width - LEFT - RIGHT);
    return Math.min(Math.max(part, 0), 1) * this.seconds;
  }

  xAt(seconds) {
    return LEFT + (this.seconds ? seconds / this.seconds : 0) * (this.width - LEFT - RIGHT);
  }

  // `scene`: seconds, clips, media, attention, layer, head, view, labels, colours.
  draw(scene) {
    this.scene = scene;
    this.seconds = scene.seconds;
    this.width = this.canvas.clientWidth || 600;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.height = `${this.height}px`;
    const ink = (this.context = this.canvas.getContext("2d"));
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, this.width, this.height);
    ink.font = `11px ${scene.colours.font}`;
    this.drawWave();
    this.drawSpectrogram();
    this.drawAttention();
    this.drawDifference();
    this.drawAxis();
  }

  title(lane, text) {
    const { context, scene } = this;
    context.fillStyle = scene.colours.soft;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    context.fillText(text, LEFT, lane.top - 6, this.width - LEFT - RIGHT);
  }

  sideLabel(text, y) {
    const { context, scene } = this;
    context.fillStyle = scene.colours.soft;
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.fillText(text, LEFT - 6, y, LEFT - 8);
  }

  line(y) {
    const { context, scene } = this;
    context.fillStyle = scene.colours.rule;
    context.fillRect(LEFT, y, this.width - LEFT - RIGHT, 1);
  }

  drawWave() {
    const { context, scene, lanes } = this;
    const lane = lanes.wave, middle = lane.top + lane.height / 2;
    this.title(lane, lane.title);
    if (!scene.media) return this.line(middle);
    const peaks = scene.media.peaks, count = peaks.length / 2;
    context.fillStyle = scene.colours.wave;
    const step = (this.width - LEFT - RIGHT) / count;
    for (let i = 0; i < count; i++) {
      const low = peaks[i] / 127, high = peaks[count + i] / 127;
      const top = middle - (high * lane.height) / 2;
      context.fillRect(LEFT + i * step, top, Math.max(step, 0.6), Math.max(((high - low) * lane.height) / 2, 1));
    }
  }

  drawSpectrogram() {
    const { context, scene, lanes } = this;
    const lane = lanes.spectrogram, width = this.width - LEFT - RIGHT;
    const named = scene.attention ? `${lane.title}, with the attention of ${scene.cellName} (${scene.viewName})` : lane.title;
    this.title(lane, named);
    if (scene.media) {
      context.imageSmoothingEnabled = true;
      context.drawImage(scene.media.image(scene.colours), LEFT, lane.top, width, lane.height);
      this.sideLabel(`${(scene.media.topHz / 1000).toLocaleString("en")} kHz`, lane.top + 6);
      this.sideLabel("0", lane.top + lane.height - 4);
    }
    context.strokeStyle = scene.colours.rule;
    context.strokeRect(LEFT + 0.5, lane.top + 0.5, width - 1, lane.height - 1);
    if (!scene.attention) return;
    const row = scene.attention.row(scene.layer, scene.head, scene.view), top = this.scaleOf(row);
    row.forEach((value, bin) => {
      const [begin, end] = this.span(bin);
      context.globalAlpha = Math.min((0.8 * Math.abs(value)) / (top || 1), 0.8);
      context.fillStyle = value < 0 ? scene.colours.sham : scene.colours.audio;
      context.fillRect(begin, lane.top, end - begin, lane.height);
    });
    context.globalAlpha = 1;
  }

  scaleOf(row) {
    const { attention, layer, head, view } = this.scene;
    return view.length < 2 ? attention.top(layer, head) : Math.max(...row.map(Math.abs));
  }

  span(bin) {
    const { edges } = this.scene.attention;
    return [this.xAt(edges[bin]), this.xAt(edges[bin + 1])];
  }

  steps(row, y) {
    const { context } = this;
    context.beginPath();
    row.forEach((value, bin) => {
      const [begin, end] = this.span(bin);
      if (bin) context.lineTo(begin, y(value));
      else context.moveTo(begin, y(value));
      context.lineTo(end, y(value));
    });
  }

  drawAttention() {
    const { context, scene, lanes } = this;
    const lane = lanes.attention, bottom = lane.top + lane.height;
    this.title(lane, `Attention of ${scene.cellName}, % per second`);
    this.line(bottom);
    if (!scene.attention) return;
    const top = scene.attention.top(scene.layer, scene.head) || 1;
    this.sideLabel(percentText(top), lane.top + 4);
    this.sideLabel("0", bottom - 2);
    scene.labels.forEach((_, condition) => {
      const row = scene.attention.row(scene.layer, scene.head, [condition]);
      const shown = condition === scene.view[0];
      this.steps(row, (value) => bottom - (value / top) * lane.height);
      context.strokeStyle = scene.colours.conditions[condition];
      context.lineWidth = shown ? 2.2 : 1.2;
      context.setLineDash(DASHES[condition % DASHES.length]);
      context.stroke();
    });
    context.setLineDash([]);
  }

  drawDifference() {
    const { context, scene, lanes } = this;
    const lane = lanes.difference, middle = lane.top + lane.height / 2;
    const difference = scene.view.length > 1 ? scene.view : [Math.max(scene.view[0], 1), 0];
    if (scene.labels.length < 2) return;
    this.title(lane, `${lane.title}: ${scene.labels[difference[0]]} \u2212 ${scene.labels[difference[1]]}`);
    this.line(middle);
    if (!scene.attention) return;
    const row = scene.attention.row(scene.layer, scene.head, difference);
    const top = Math.max(...row.map(Math.abs));
    if (top === 0) return this.sideLabel("none", middle);
    this.sideLabel(`+${percentText(top)}`, lane.top + 4);
    this.sideLabel(`\u2212${percentText(top)}`, lane.top + lane.height - 4);
    row.forEach((value, bin) => {
      const [begin, end] = this.span(bin), height = (Math.abs(value) / top) * (lane.height / 2);
      context.fillStyle = value < 0 ? scene.colours.sham : scene.colours.audio;
      context.fillRect(begin, value < 0 ? middle : middle - height, Math.max(end - begin - 0.5, 0.5), height);
    });
  }

  drawAxis() {
    const { context, scene } = this;
    const y = this.height - AXIS + 4;
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300].find((s) => this.seconds / s <= 8) || 600;
    context.fillStyle = scene.colours.soft;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (let time = 0; time <= this.seconds + 1e-9; time += step) {
      const x = this.xAt(time);
      context.fillRect(x, y - 2, 1, 4);
      const text = Number(time.toFixed(1)).toString();
      context.fillText(x + 20 > this.width || time + step > this.seconds ? `${text} s` : text, Math.min(x, this.width - 14), y + 4);
    }
    context.fillStyle = scene.colours.soft;
    for (const start of scene.clips.slice(1)) {
      const x = this.xAt(start);
      for (let dot = GAP; dot < y; dot += 6) context.fillRect(x, dot, 1, 3);
    }
  }
}

const DASHES = [[], [], [5, 3]];

function percentText(fraction) {
  const percent = 100 * fraction;
  return `${percent >= 10 ? percent.toFixed(0) : percent >= 1 ? percent.toFixed(1) : percent.toPrecision(1)}`;
}

// Waveform and spectrogram of one item; the image is made once for each theme.
class Media {
  constructor(packed, peaks, bytes) {
    this.peaks = new Int8Array(peaks.buffer);
    this.bytes = bytes;
    [this.bands, this.frames] = packed.shape;
    this.topHz = packed.top_hz;
    this.images = new Map();
  }

  static async of(packed) {
    return new Media(packed, await inflate(packed.peaks), await inflate(packed.data));
  }

  image(colours) {
    if (!this.images.has(colours.ink)) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [this.frames, this.bands];
      const context = canvas.getContext("2d");
      const image = context.createImageData(this.frames, this.bands);
      const [red, green, blue] = rgbOf(colours.ink);
      for (let band = 0; band < this.bands; band++) {
        for (let frame = 0; frame < this.frames; frame++) {
          const at = 4 * ((this.bands - 1 - band) * this.frames + frame);
          image.data.set([red, green, blue, 255 * 0.9 * (this.bytes[band * this.frames + frame] / 255) ** 1.7], at);
        }
      }
      context.putImageData(image, 0, 0);
      this.images.set(colours.ink, canvas);
    }
    return this.images.get(colours.ink);
  }
}

// Red, green and blue of any CSS colour, as the canvas understands it.
function rgbOf(colour) {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data];
}
