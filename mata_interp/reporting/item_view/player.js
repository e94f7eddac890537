// A player of one decoded clip: seek, loop, and gain that follows attention. WebAudio is used instead of an <audio>
// element because its loops have no gap, and because the samples can be multiplied by a gain.

class Player {
  constructor(changed) {
    this.changed = changed;
    this.buffer = null;
    this.source = null;
    this.position = 0; // seconds, while paused
    this.loop = null; // [begin, end] in seconds
    this.gain = null; // {edges, values}: gain of each bin, or null
  }

  // Decode an Ogg file; false where this browser cannot.
  async load(bytes) {
    this.pause();
    this.buffer = null;
    this.position = 0;
    if (!bytes) return false;
    try {
      const decoder = new OfflineAudioContext(1, 1, 48000);
      this.buffer = await decoder.decodeAudioData(bytes.buffer);
    } catch {
      return false;
    }
    return true;
  }

  get duration() {
    return this.buffer ? this.buffer.duration : 0;
  }

  get paused() {
    return this.source === null;
  }

  get currentTime() {
    if (this.paused) return this.position;
    const time = this.begun.at + this.context.currentTime - this.begun.clock;
    if (this.loop && time >= this.loop[1]) return this.loop[0] + ((time - this.loop[0]) % (this.loop[1] - this.loop[0]));
    return Math.min(time, this.duration);
  }

  play() {
    if (!this.buffer || !this.paused) return;
    this.context ||= new AudioContext();
    this.context.resume();
    if (this.position >= this.duration - 0.01) this.position = 0;
    if (this.loop && (this.position < this.loop[0] || this.position >= this.loop[1])) this.position = this.loop[0];
    const source = this.context.createBufferSource();
    source.buffer = this.gain ? this.gated() : this.buffer;
    if (this.loop) [source.loop, source.loopStart, source.loopEnd] = [true, ...this.loop];
    const fade = this.context.createGain(); // a few milliseconds, so that a seek does not click
    fade.gain.setValueAtTime(0, this.context.currentTime);
    fade.gain.linearRampToValueAtTime(1, this.context.currentTime + 0.008);
    source.connect(fade).connect(this.context.destination);
    source.onended = () => {
      if (this.source !== source) return;
      this.source = null;
      this.position = this.duration;
      this.changed();
    };
    this.begun = { at: this.position, clock: this.context.currentTime };
    source.start(0, this.position);
    this.source = source;
    this.changed();
  }

  pause() {
    if (this.paused) return;
    this.position = this.currentTime;
    const source = this.source;
    this.source = null;
    source.stop();
    this.changed();
  }

  // Without sound the cursor can still be moved, up to `end`.
  seek(seconds, end = 0) {
    this.restart(() => (this.position = Math.min(Math.max(seconds, 0), this.duration || end)));
  }

  setLoop(range) {
    this.restart(() => (this.loop = range));
  }

  setGain(gain) {
    this.restart(() => (this.gain = gain));
  }

  restart(change) {
    const playing = !this.paused;
    this.pause();
    change();
    if (playing) this.play();
    else this.changed();
  }

  // The samples times the gain, which goes in straight lines from the middle of each bin to the next.
  gated() {
    const { edges, values } = this.gain;
    const { sampleRate, length } = this.buffer;
    const gated = new AudioBuffer({ length, sampleRate, numberOfChannels: 1 });
    const from = this.buffer.getChannelData(0), to = gated.getChannelData(0);
    const middles = values.map((_, bin) => ((edges[bin] + edges[bin + 1]) / 2) * sampleRate);
    let bin = 0;
    for (let i = 0; i < length; i++) {
      while (bin < middles.length - 1 && i >= middles[bin + 1]) bin++;
      const next = Math.min(bin + 1, middles.length - 1);
      const part = next === bin ? 0 : Math.min(Math.max((i - middles[bin]) / (middles[next] - middles[bin]), 0), 1);
      to[i] = from[i] * (values[bin] * (1 - part) + values[next] * part);
    }
    return gated;
  }
}
