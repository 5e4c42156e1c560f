// The photograph with the mask over it: zoom, pan, and redrawing no more than has changed.
const STEP = 1.25, MOST = 32;

export class Viewer {
  constructor(stage, photo, overlay) {
    Object.assign(this, { stage, photo, overlay, bitmap: null, mask: null, scale: 1, x: 0, y: 0, marks: null });
    new ResizeObserver(() => this.resize()).observe(stage);
  }

  resize() {
    const fitted = this.fitted;
    for (const canvas of [this.photo, this.overlay]) {
      canvas.width = Math.max(1, Math.round(this.stage.clientWidth * devicePixelRatio));
      canvas.height = Math.max(1, Math.round(this.stage.clientHeight * devicePixelRatio));
    }
    if (fitted) this.fit(); else this.draw();
  }

  open(bitmap, mask) {
    this.bitmap = bitmap;
    this.mask = mask;
    this.fit();
  }

  fit() {
    if (!this.bitmap) return;
    const { width, height } = this.photo;
    this.scale = Math.min(width / this.bitmap.width, height / this.bitmap.height, MOST);
    this.x = (width - this.bitmap.width * this.scale) / 2;
    this.y = (height - this.bitmap.height * this.scale) / 2;
    this.fitted = true;
    this.draw();
  }

  zoom(steps, at = { x: this.photo.width / 2, y: this.photo.height / 2 }) {
    const scale = Math.min(MOST, Math.max(0.02, this.scale * STEP ** steps)), ratio = scale / this.scale;
    this.x = at.x - (at.x - this.x) * ratio;
    this.y = at.y - (at.y - this.y) * ratio;
    this.scale = scale;
    this.fitted = false;
    this.draw();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.draw();
  }

  screen(event) {  // where on the canvas, in its own pixels
    const box = this.overlay.getBoundingClientRect();
    return { x: (event.clientX - box.left) * devicePixelRatio, y: (event.clientY - box.top) * devicePixelRatio };
  }

  image(at) { return { x: (at.x - this.x) / this.scale, y: (at.y - this.y) / this.scale }; }

  draw() {
    const context = this.photo.getContext("2d", { alpha: false });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(this.stage).backgroundColor;
    context.fillRect(0, 0, this.photo.width, this.photo.height);
    if (this.bitmap) {
      context.setTransform(this.scale, 0, 0, this.scale, this.x, this.y);
      context.imageSmoothingEnabled = this.scale < 2;  // above that the pixels themselves are wanted
      context.drawImage(this.bitmap, 0, 0);
    }
    this.drawMask();
  }

  drawMask(box = null) {  // of a changed rectangle of the mask only what it covers on the screen
    const context = this.overlay.getContext("2d"), { width, height } = this.overlay;
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (!box || this.marked) {
      context.clearRect(0, 0, width, height);
      box = null;
    }
    if (this.mask) {
      context.save();
      const all = box ?? { x: 0, y: 0, w: this.mask.width, h: this.mask.height };
      const left = Math.floor(this.x + all.x * this.scale) - 1, top = Math.floor(this.y + all.y * this.scale) - 1;
      const right = Math.ceil(this.x + (all.x + all.w) * this.scale) + 1, bottom = Math.ceil(this.y + (all.y + all.h) * this.scale) + 1;
      context.beginPath();
      context.rect(Math.max(0, left), Math.max(0, top), Math.min(width, right) - Math.max(0, left), Math.min(height, bottom) - Math.max(0, top));
      context.clip();
      if (box) context.clearRect(left, top, right - left, bottom - top);
      context.setTransform(this.scale, 0, 0, this.scale, this.x, this.y);
      context.imageSmoothingEnabled = this.scale < 1;
      // Only the part of the layer that is seen: the rest of 12 megapixels would cost a frame.
      const seen = this.image({ x: Math.max(0, left), y: Math.max(0, top) }), end = this.image({ x: Math.min(width, right), y: Math.min(height, bottom) });
      const x = Math.max(0, Math.floor(seen.x)), y = Math.max(0, Math.floor(seen.y));
      const w = Math.min(this.mask.width, Math.ceil(end.x)) - x, h = Math.min(this.mask.height, Math.ceil(end.y)) - y;
      if (w > 0 && h > 0) context.drawImage(this.mask.layer, x, y, w, h, x, y, w, h);
      context.restore();
    }
    this.marked = false;
    if (this.marks) {
      context.setTransform(this.scale, 0, 0, this.scale, this.x, this.y);
      this.marked = this.marks(context, 1 / this.scale);
    }
  }
}
