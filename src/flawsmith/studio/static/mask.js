// A mask: one byte per pixel of the photograph, 0 or 1, with undo. What is painted is what is saved, pixel for pixel.
import { ask } from "./api.js";

const COLOUR = [255, 64, 32, 130];  // red, green, blue, alpha of painted pixels on the overlay
const MOST_BYTES = 96 << 20;  // of what can be undone

export class Mask {
  constructor(width, height, bytes, revision) {
    this.width = width;
    this.height = height;
    this.bytes = bytes ?? new Uint8Array(width * height);
    this.revision = revision ?? "";
    this.layer = new OffscreenCanvas(width, height);
    this.context = this.layer.getContext("2d");
    this.past = [];
    this.future = [];
    this.before = null;
    this.dirty = null;
    this.show({ x: 0, y: 0, w: width, h: height });
  }

  get pixels() {
    let count = 0;
    for (const one of this.bytes) count += one;
    return count;
  }

  get empty() { return !this.bytes.includes(1); }

  // -- drawing ---------------------------------------------------------------------------------------------------

  begin() {  // of a stroke: what it changes can be undone at once
    this.before = this.bytes.slice();
    this.dirty = null;
  }

  disc(x, y, radius, value) {  // pixels whose centre lies within the radius
    const { width, height, bytes } = this;
    const top = Math.max(0, Math.ceil(y - radius - 0.5)), bottom = Math.min(height - 1, Math.floor(y + radius - 0.5));
    for (let row = top; row <= bottom; row++) {
      const reach = Math.sqrt(Math.max(0, radius * radius - (row + 0.5 - y) ** 2));
      const from = Math.max(0, Math.ceil(x - reach - 0.5)), to = Math.min(width - 1, Math.floor(x + reach - 0.5));
      if (from <= to) bytes.fill(value, row * width + from, row * width + to + 1);
    }
  }

  stroke(from, to, radius, value) {  // discs so close that their edge is smooth; returns what changed
    const length = Math.hypot(to.x - from.x, to.y - from.y), step = Math.max(0.5, radius / 8);
    const count = Math.max(1, Math.ceil(length / step));
    for (let i = 0; i <= count; i++) {
      this.disc(from.x + (to.x - from.x) * i / count, from.y + (to.y - from.y) * i / count, radius, value);
    }
    return this.touch(Math.min(from.x, to.x) - radius, Math.min(from.y, to.y) - radius,
      Math.max(from.x, to.x) + radius, Math.max(from.y, to.y) + radius);
  }

  polygon(corners, value = 1) {  // even-odd, by pixel centres
    const ys = corners.map((c) => c.y), { width, height, bytes } = this;
    const top = Math.max(0, Math.floor(Math.min(...ys))), bottom = Math.min(height - 1, Math.ceil(Math.max(...ys)));
    for (let row = top; row <= bottom; row++) {
      const y = row + 0.5, cuts = [];
      corners.forEach((a, i) => {
        const b = corners[(i + 1) % corners.length];
        if ((a.y <= y) !== (b.y <= y)) cuts.push(a.x + (y - a.y) / (b.y - a.y) * (b.x - a.x));
      });
      cuts.sort((a, b) => a - b);
      for (let i = 0; i + 1 < cuts.length; i += 2) {
        const from = Math.max(0, Math.ceil(cuts[i] - 0.5)), to = Math.min(width - 1, Math.ceil(cuts[i + 1] - 0.5) - 1);
        if (from <= to) bytes.fill(value, row * width + from, row * width + to + 1);
      }
    }
    return this.touch(0, top, width, bottom + 1);
  }

  replace(bytes, add = false) {  // by another mask, or joined with it, as one step
    this.begin();
    if (add) bytes.forEach((one, i) => { this.bytes[i] |= one; }); else this.bytes.set(bytes);
    this.touch(0, 0, this.width, this.height);
    this.end();
  }

  touch(left, top, right, bottom) {  // shows a changed rectangle, and remembers it for the undo
    const x = Math.max(0, Math.floor(left)), y = Math.max(0, Math.floor(top));
    const box = { x, y, w: Math.min(this.width, Math.ceil(right)) - x, h: Math.min(this.height, Math.ceil(bottom)) - y };
    if (box.w <= 0 || box.h <= 0) return null;
    this.show(box);
    const old = this.dirty;
    this.dirty = old ? {
      x: Math.min(old.x, box.x), y: Math.min(old.y, box.y),
      w: Math.max(old.x + old.w, box.x + box.w) - Math.min(old.x, box.x),
      h: Math.max(old.y + old.h, box.y + box.h) - Math.min(old.y, box.y),
    } : box;
    return box;
  }

  show({ x, y, w, h }) {
    const image = new ImageData(w, h), shown = new Uint32Array(image.data.buffer);
    const colour = new Uint32Array(new Uint8ClampedArray(COLOUR).buffer)[0];
    for (let row = 0; row < h; row++) {
      const start = (y + row) * this.width + x;
      for (let column = 0; column < w; column++) if (this.bytes[start + column]) shown[row * w + column] = colour;
    }
    this.context.putImageData(image, x, y);
  }

  // -- undo ------------------------------------------------------------------------------------------------------

  end() {  // of a stroke
    if (!this.dirty) return;
    this.past.push({ box: this.dirty, bytes: this.cut(this.before, this.dirty) });
    this.future = [];
    this.before = null;
    let weight = 0;
    this.past = this.past.reverse().filter((one) => (weight += one.bytes.length) <= MOST_BYTES).reverse();
  }

  cut(bytes, { x, y, w, h }) {
    const part = new Uint8Array(w * h);
    for (let row = 0; row < h; row++) part.set(bytes.subarray((y + row) * this.width + x, (y + row) * this.width + x + w), row * w);
    return part;
  }

  swap(from, to) {
    const step = from.pop();
    if (!step) return false;
    const { box, bytes } = step;
    to.push({ box, bytes: this.cut(this.bytes, box) });
    for (let row = 0; row < box.h; row++) this.bytes.set(bytes.subarray(row * box.w, (row + 1) * box.w), (box.y + row) * this.width + box.x);
    this.show(box);
    return true;
  }

  undo() { return this.swap(this.past, this.future); }
  redo() { return this.swap(this.future, this.past); }

  // -- the server ------------------------------------------------------------------------------------------------

  static async load(path) {
    const answer = await ask(path);
    const [width, height] = answer.headers.get("x-size").split("x").map(Number);
    return new Mask(width, height, new Uint8Array(await answer.arrayBuffer()), answer.headers.get("x-revision"));
  }

  async save(path, force = false) {
    const packed = new Blob([this.bytes]).stream().pipeThrough(new CompressionStream("gzip"));
    const body = await new Response(packed).blob();
    const answer = await ask(path, { method: "PUT", body, headers: { "X-Revision": force ? "*" : this.revision } });
    const told = await answer.json();
    this.revision = told.revision;
    return told.pixels;
  }
}
