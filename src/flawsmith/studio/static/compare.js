// Results beside the original: slider, blink, change map, close-up; keep or drop.
import { ask, at, element, get, guarded, put } from "./api.js";

const CONTEXT = 2.2, LEAST = 96;  // of the close-up: times the label's box, pixels
const STRONG = 96;  // grey levels of change that are shown brightest
const canvas = at("compare");
let set = null, rows = [], current = 0, pair = null, blinking = null, after = true, listener = () => {};

export const onDecision = (given) => { listener = given; };
export const isOpen = () => !at("results").hidden;

export const open = guarded(async (id, index = null) => {
  set = await get(`/api/sets/${id}`);
  rows = set.rows;
  if (!rows.length) return;
  at("results").hidden = false;
  at("results-title").textContent = set.title;
  at("candidates").replaceChildren(...rows.map((row, place) => element("li", {}, element("button", { type: "button", onclick: guarded(() => pick(place)) },
    element("img", { src: `/api/sets/${set.id}/${row.index}/closeup`, alt: row.title }), element("span", {}, row.title)))));
  await pick(Math.max(0, rows.findIndex((row) => row.index === index)));
  at("keep").focus();
});

export function close() {
  at("results").hidden = true;
  still();
}

async function bitmap(path) {
  return createImageBitmap(await (await ask(path)).blob());
}

async function pick(place) {
  current = place;
  const row = rows[place], own = set.id, data = set.request.data_set;
  const [image, mask, normal] = await Promise.all([bitmap(`/api/sets/${own}/${row.index}/image`), bitmap(`/api/sets/${own}/${row.index}/mask`),
    row.normal ? bitmap(`/api/data/${data}/${row.normal}`) : null]);
  if (own !== set.id || place !== current) return;  // another one was picked meanwhile
  pair = { image, mask, normal, change: null, box: label(mask) };
  mark();
  draw();
}

function label(mask) {  // the box around the label, found in a copy that is small enough to be read at once
  const scale = Math.min(1, 512 / Math.max(mask.width, mask.height)), w = Math.max(1, Math.round(mask.width * scale)), h = Math.max(1, Math.round(mask.height * scale));
  const context = new OffscreenCanvas(w, h).getContext("2d", { willReadFrequently: true });
  context.drawImage(mask, 0, 0, w, h);
  const { data } = context.getImageData(0, 0, w, h);
  let [left, top, right, bottom] = [w, h, 0, 0];
  for (let i = 0; i < w * h; i++) if (data[4 * i] > 20) {
    const x = i % w, y = (i - x) / w;
    left = Math.min(left, x); right = Math.max(right, x + 1); top = Math.min(top, y); bottom = Math.max(bottom, y + 1);
  }
  const side = Math.max(LEAST, CONTEXT * Math.max(right - left, bottom - top) / scale);
  // A square around the label, moved into the image and no larger than it.
  const [width, height] = [Math.min(side, mask.width), Math.min(side, mask.height)];
  const inside = (middle, length, whole) => Math.min(Math.max(0, middle - length / 2), whole - length);
  return { x: inside((left + right) / 2 / scale, width, mask.width), y: inside((top + bottom) / 2 / scale, height, mask.height), w: width, h: height };
}

function change({ image, normal }) {  // the largest channel difference, from black over blue to yellow (cividis)
  const { width, height } = image, read = (bitmap) => {
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, width, height);
  };
  const a = read(image), b = read(normal).data, d = a.data;
  for (let i = 0; i < d.length; i += 4) {
    const share = Math.min(1, Math.max(Math.abs(d[i] - b[i]), Math.abs(d[i + 1] - b[i + 1]), Math.abs(d[i + 2] - b[i + 2])) / STRONG);
    d[i] = 255 * share;
    d[i + 1] = 34 + 198 * share;
    d[i + 2] = share < 0.5 ? 78 + 60 * share : 108 - 90 * (share - 0.5);
  }
  const layer = new OffscreenCanvas(width, height);
  layer.getContext("2d").putImageData(a, 0, 0);
  return layer;
}

const pressed = (id) => at(id).getAttribute("aria-pressed") === "true";

function draw() {
  if (!pair || at("results").hidden) return;
  canvas.width = Math.max(1, canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.max(1, canvas.clientHeight * devicePixelRatio);
  const context = canvas.getContext("2d"), { image, normal } = pair;
  const box = pressed("close-up") ? pair.box : { x: 0, y: 0, w: image.width, h: image.height };
  const scale = Math.min(canvas.width / box.w, canvas.height / box.h);
  const left = (canvas.width - box.w * scale) / 2, top = (canvas.height - box.h * scale) / 2;
  context.beginPath();
  context.rect(left, top, box.w * scale, box.h * scale);
  context.clip();
  context.setTransform(scale, 0, 0, scale, left - box.x * scale, top - box.y * scale);
  context.imageSmoothingEnabled = scale < 3;
  if (pressed("change") && normal) {
    context.drawImage(pair.change ??= change(pair), 0, 0);
    return;
  }
  context.drawImage(image, 0, 0);
  if (!normal) return;
  const split = blinking ? (after ? 0 : 1) : Number(at("slider").value) / 100;
  const x = box.x + box.w * split;
  context.save();
  context.beginPath();
  context.rect(box.x, box.y, box.w * split, box.h);
  context.clip();
  context.drawImage(normal, 0, 0);
  context.restore();
  if (!blinking) {
    context.fillStyle = "#00e5ff";
    context.fillRect(x - 1 / scale, box.y, 2 / scale, box.h);
  }
}

function mark() {
  const buttons = [...at("candidates").querySelectorAll("button")], row = rows[current];
  buttons.forEach((button, place) => {
    button.setAttribute("aria-current", place === current);
    button.dataset.decision = rows[place].decision;
    button.setAttribute("aria-label", `${rows[place].title}${rows[place].decision ? `, ${rows[place].decision}` : ""}`);
  });
  buttons[current]?.scrollIntoView({ block: "nearest" });
  at("keep").setAttribute("aria-pressed", row.decision === "keep");
  at("drop").setAttribute("aria-pressed", row.decision === "drop");
  const scores = Object.entries(row.scores ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
  at("facts").textContent = `${row.decision ? `${row.decision === "keep" ? "Kept" : "Dropped"}. ` : ""}${row.caption} ${scores}`;
}

export const decide = guarded(async (word) => {
  const row = rows[current];
  row.decision = (await put(`/api/sets/${set.id}/${row.index}/${row.decision === word ? "open" : word}`)).decision;
  mark();
  listener(row.decision);
});

export const move = guarded(async (by) => { if (rows[current + by]) await pick(current + by); });

function toggle(id) {
  at(id).setAttribute("aria-pressed", !pressed(id));
  draw();
}

function still() {
  clearInterval(blinking);
  blinking = null;
  at("blink").setAttribute("aria-pressed", "false");
}

function blink() {
  if (blinking) { still(); draw(); return; }
  at("blink").setAttribute("aria-pressed", "true");
  blinking = setInterval(() => { after = !after; draw(); }, 500);
}

at("slider").addEventListener("input", draw);
at("blink").addEventListener("click", blink);
at("change").addEventListener("click", () => toggle("change"));
at("close-up").addEventListener("click", () => toggle("close-up"));
at("keep").addEventListener("click", () => decide("keep"));
at("drop").addEventListener("click", () => decide("drop"));
at("results-close").addEventListener("click", close);
new ResizeObserver(draw).observe(canvas);

export const KEYS = {
  ArrowLeft: () => move(-1), ArrowRight: () => move(1), k: () => decide("keep"), x: () => decide("drop"), b: blink,
  c: () => toggle("change"), z: () => toggle("close-up"), Escape: close,
};
