// Tools on the image: brush, eraser, polygon, wand, hand; by pointer and by keyboard.
import { ask, at, guarded, recall, remember, say } from "./api.js";
import { Mask } from "./mask.js";
import { Viewer } from "./viewer.js";

const SAVE_AFTER = 600;  // ms without a stroke
export const viewer = new Viewer(at("stage"), at("photo"), at("overlay"));
const overlay = at("overlay");

let tool = "brush", size = recall("size", 20);
let stroke = null, corners = [], box = null, held = false, cursor = null;
let place = null, saving = null, waiting = 0;  // of the mask: {data_set, image, of}
let changed = () => {}, kept = () => {};

export const onChange = (listener) => { changed = listener; };
export const onSave = (listener) => { kept = listener; };
export const currentMask = () => viewer.mask;
export const isReference = () => place?.of === "references";

export function choose(name) {
  tool = name;
  corners = [];
  for (const button of at("tools").querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
  overlay.style.cursor = name === "hand" ? "grab" : "crosshair";
  viewer.drawMask();
}

export function resize(value) {
  size = Math.min(300, Math.max(1, Math.round(value)));
  at("size").value = size;
  at("size-said").value = size;
  remember("size", size);
  viewer.drawMask();
}

// -- opening and saving ------------------------------------------------------------------------------------------

const path = ({ data_set, image, of } = place) => `/api/masks/${data_set}/${image}?of=${of}`;

export async function open(data_set, image, of = "masks") {  // "references": the mask of a real defect that is imitated
  await save();
  const wanted = { data_set, image, of };
  const [blob, mask] = await Promise.all([ask(`/api/data/${data_set}/${image}`).then((answer) => answer.blob()), Mask.load(path(wanted))]);
  const bitmap = await createImageBitmap(blob);
  place = wanted;
  corners = [];
  box = cursor = null;
  viewer.open(bitmap, mask);
  at("empty").hidden = true;
  at("of-reference").hidden = !isReference();
  at("draw").disabled = isReference();
  at("saved").textContent = "";
  overlay.dataset.of = of;
  overlay.dataset.image = image;  // what is open, for whoever waits for it
  changed();
}

function touched() {  // after a stroke
  at("saved").textContent = "Not saved yet";
  clearTimeout(waiting);
  waiting = setTimeout(guarded(save), SAVE_AFTER);
  changed();
}

export async function save(force = false) {  // resolves when what is painted is on the disk
  clearTimeout(waiting);
  if (saving) await saving;
  if (!place || (at("saved").textContent !== "Not saved yet" && !force)) return;
  const mask = viewer.mask, to = path(), saved = place;
  at("saved").textContent = "Saving ...";
  saving = mask.save(to, force).then((pixels) => {
    if (at("saved").textContent === "Saving ...") at("saved").textContent = `Saved, ${pixels} pixels`;
    kept(saved, pixels);
  }).catch((error) => {
    if (error.status !== 409) { at("saved").textContent = "Not saved yet"; throw error; }
    at("saved").textContent = "Changed in another tab";
    say(error.message, [["Take theirs", guarded(reload)], ["Keep mine", guarded(() => save(true))]]);
  }).finally(() => { saving = null; });
  await saving;
}

async function reload() {
  viewer.mask = await Mask.load(path());
  at("saved").textContent = "";
  viewer.drawMask();
  changed();
}

export async function put(promise, add = false) {  // a mask from the server, as one step that can be undone
  const asked = place, answer = await promise;
  if (!asked || asked !== place) return;  // another image was opened meanwhile
  viewer.mask.replace(new Uint8Array(await answer.arrayBuffer()), add);
  viewer.drawMask();
  touched();
}

// -- tools -------------------------------------------------------------------------------------------------------

viewer.marks = (context, unit) => {  // what is over the mask: polygon, box, keyboard's brush
  context.lineWidth = 2 * unit;
  context.strokeStyle = "#00e5ff";
  if (corners.length) {
    context.beginPath();
    corners.forEach((c, i) => (i ? context.lineTo(c.x, c.y) : context.moveTo(c.x, c.y)));
    context.stroke();
    for (const c of corners) context.strokeRect(c.x - 3 * unit, c.y - 3 * unit, 6 * unit, 6 * unit);
  }
  if (box) context.strokeRect(box.x, box.y, box.w, box.h);
  if (cursor) {
    context.beginPath();
    context.arc(cursor.x, cursor.y, tool === "brush" || tool === "eraser" ? size / 2 : 4 * unit, 0, 7);
    context.stroke();
  }
  return Boolean(corners.length || box || cursor);
};

const value = () => (tool === "eraser" ? 0 : 1);

function begin(point) {
  viewer.mask.begin();
  stroke = point;
  viewer.drawMask(viewer.mask.stroke(point, point, size / 2, value()));
}

function go(point) {
  const changed = viewer.mask.stroke(stroke, point, size / 2, value());
  stroke = point;
  if (changed) viewer.drawMask(changed);
}

function finish() {
  if (!stroke) return;
  viewer.mask.end();
  stroke = null;
  touched();
}

function close() {
  if (corners.length < 3) return;
  viewer.mask.begin();
  viewer.mask.polygon(corners);
  viewer.mask.end();
  corners = [];
  viewer.drawMask();
  touched();
}

const wand = guarded(async (drawn) => {
  const { width, height } = viewer.mask;
  const left = Math.max(0, Math.round(Math.min(drawn.x, drawn.x + drawn.w))), right = Math.min(width, Math.round(Math.max(drawn.x, drawn.x + drawn.w)));
  const top = Math.max(0, Math.round(Math.min(drawn.y, drawn.y + drawn.h))), bottom = Math.min(height, Math.round(Math.max(drawn.y, drawn.y + drawn.h)));
  if (right - left < 3 || bottom - top < 3) return;
  await put(ask("/api/wand", { method: "POST", json: { data_set: place.data_set, image: place.image, box: [top, left, bottom, right] } }), true);
});

overlay.addEventListener("pointerdown", (event) => {
  if (!viewer.mask) return;
  overlay.setPointerCapture(event.pointerId);
  overlay.focus();
  cursor = null;
  const point = viewer.image(viewer.screen(event));
  if (tool === "hand" || held || event.button === 1) stroke = null, overlay.dataset.drag = "1";
  else if (tool === "polygon") { corners.push(point); viewer.drawMask(); }
  else if (tool === "wand") box = { ...point, w: 0, h: 0 };
  else begin(point);
});

overlay.addEventListener("pointermove", (event) => {
  if (!viewer.mask) return;
  if (overlay.dataset.drag) return viewer.pan(event.movementX * devicePixelRatio, event.movementY * devicePixelRatio);
  const point = viewer.image(viewer.screen(event));
  at("where").textContent = `${Math.floor(point.x)}, ${Math.floor(point.y)}  of  ${viewer.mask.width} x ${viewer.mask.height}`;
  if (stroke) for (const one of event.getCoalescedEvents?.() ?? [event]) go(viewer.image(viewer.screen(one)));
  else if (box) { box.w = point.x - box.x; box.h = point.y - box.y; viewer.drawMask(); }
  return undefined;
});

const release = () => {
  delete overlay.dataset.drag;
  finish();
  if (box) { const drawn = box; box = null; viewer.drawMask(); wand(drawn); }
};
overlay.addEventListener("pointerup", release);
overlay.addEventListener("pointercancel", release);
overlay.addEventListener("dblclick", () => { if (tool === "polygon") close(); });
overlay.addEventListener("wheel", (event) => {
  event.preventDefault();
  viewer.zoom(event.deltaY < 0 ? 1 : -1, viewer.screen(event));
}, { passive: false });

overlay.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!viewer.mask) return;
  if (by) {
    cursor ??= { x: viewer.mask.width / 2, y: viewer.mask.height / 2 };
    const step = event.shiftKey ? 1 : Math.max(1, size / 3);
    const next = { x: Math.min(viewer.mask.width, Math.max(0, cursor.x + by[0] * step)), y: Math.min(viewer.mask.height, Math.max(0, cursor.y + by[1] * step)) };
    if (stroke) go(next);
    cursor = next;
    viewer.drawMask();
  } else if (event.key === " ") {
    if (cursor && !event.repeat) {
      if (tool === "polygon") corners.push({ ...cursor });
      else begin({ ...cursor });
      viewer.drawMask();
    } else if (!cursor) held = true;
  } else if (event.key === "Enter") close();
  else if (event.key === "Escape") { corners = []; cursor = null; viewer.drawMask(); }
  else return;
  event.preventDefault();
});
overlay.addEventListener("keyup", (event) => { if (event.key === " ") { held = false; finish(); } });

// -- buttons -----------------------------------------------------------------------------------------------------

function step(back) {
  if (viewer.mask && (back ? viewer.mask.undo() : viewer.mask.redo())) { viewer.drawMask(); touched(); }
}

export const undo = () => step(true);
export const redo = () => step(false);

for (const button of at("tools").querySelectorAll("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
at("size").addEventListener("input", () => resize(Number(at("size").value)));
at("undo").addEventListener("click", undo);
at("redo").addEventListener("click", redo);
at("clear").addEventListener("click", () => {
  if (!viewer.mask || viewer.mask.empty) return;
  viewer.mask.replace(new Uint8Array(viewer.mask.bytes.length));
  viewer.drawMask();
  touched();
});
at("zoom-in").addEventListener("click", () => viewer.zoom(1));
at("zoom-out").addEventListener("click", () => viewer.zoom(-1));
at("zoom-fit").addEventListener("click", () => viewer.fit());
at("import").addEventListener("change", guarded(async (event) => {
  const [file] = event.target.files;
  if (file && place) await put(ask(`/api/masks/${place.data_set}/${place.image}/import`, { method: "POST", body: file }));
  event.target.value = "";
}));
window.addEventListener("beforeunload", (event) => { if (at("saved").textContent === "Not saved yet") event.preventDefault(); });
resize(size);

export const KEYS = {
  b: () => choose("brush"), e: () => choose("eraser"), p: () => choose("polygon"), w: () => choose("wand"), h: () => choose("hand"),
  "[": () => resize(size / 1.2 - 0.5), "]": () => resize(size * 1.2 + 0.5),
  "+": () => viewer.zoom(1), "=": () => viewer.zoom(1), "-": () => viewer.zoom(-1), 0: () => viewer.fit(),
};
