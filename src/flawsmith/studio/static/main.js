// The page: tabs, data sets, images, keys, and who hears of what.
import { ask, at, element, fill, get, guarded, post, recall, remember, say } from "./api.js";
import * as compare from "./compare.js";
import * as data from "./data.js";
import * as evaluate from "./evaluate.js";
import * as form from "./form.js";
import * as paint from "./paint.js";
import * as places from "./places.js";
import * as queue from "./queue.js";
import * as review from "./review.js";

let images = [], current = "";

// -- tabs --------------------------------------------------------------------------------------------------------

const tabs = [...at("tabs").querySelectorAll("[role=tab]")];
const shown = () => tabs.find((tab) => tab.getAttribute("aria-selected") === "true").getAttribute("aria-controls");

function show(name) {
  for (const tab of tabs) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    at(tab.getAttribute("aria-controls")).hidden = !chosen;
  }
  remember("tab", name);
  if (name === "review") review.list();
  if (name === "queue") queue.look();
  if (name === "evaluate") evaluate.list();
}

for (const [place, tab] of tabs.entries()) {
  tab.addEventListener("click", () => show(tab.getAttribute("aria-controls")));
  tab.addEventListener("keydown", (event) => {
    const next = tabs[(place + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0) + tabs.length) % tabs.length];
    if (next !== tab) { next.focus(); next.click(); }
  });
}

// -- data sets and images ----------------------------------------------------------------------------------------

const openData = guarded(async (id) => {
  remember("data-set", id);
  images = (await get(`/api/data/${id}`)).images;
  form.setImages(images);
  data.setImages(images);
  list();
  const wanted = recall("image");
  const first = images.find((one) => one.key === wanted) ?? images.find((one) => one.good) ?? images[0];
  if (first) await openImage(first.key);
});

function list() {
  const kind = at("shown-kind").value;
  const chosen = images.filter((one) => !kind || one.good === (kind === "good"));
  at("images").replaceChildren(...chosen.map((one) => {
    const shown = [element("img", { src: `/api/data/${at("data-set").value}/${one.key}/thumbnail`, alt: "", loading: "lazy" }),
      element("span", {}, one.name.split("/").slice(-2).join("/"))];
    const pick = () => { step("image"); openImage(one.key); };
    return element("li", {}, element("button", { type: "button", title: one.name, "data-key": one.key, "aria-current": one.key === current, onclick: pick }, ...shown));
  }));
}

const openImage = guarded(async (key) => {
  compare.close();
  await paint.open(at("data-set").value, key);
  current = key;
  remember("image", key);
  for (const button of at("images").querySelectorAll("button")) button.setAttribute("aria-current", button.dataset.key === key);
});

at("data-set").addEventListener("change", () => openData(at("data-set").value));
at("shown-kind").addEventListener("change", list);

// -- making ------------------------------------------------------------------------------------------------------

const draw = guarded(async () => {
  if (!current || paint.isReference()) return;
  const family = at("family").value, seed = recall("mask-seed", 0);
  remember("mask-seed", seed + 1);
  const asked = form.request();
  const name = family || FAMILY[asked.defect_type] || "blob";
  await paint.put(ask("/api/family", { method: "POST", json: { data_set: asked.data_set, image: current, family: name, seed, reference: asked.reference, dials: form.maskDials(), roi: asked.roi, heat: asked.heat } }));
  at("family").value = "";  // the painted mask is what is wanted now
  remember("family", "");
  step("mask");
});
const FAMILY = { scratch: "scratch", crack: "crack", fibre: "scratch", chip: "polygon", spots: "spots", missing_part: "polygon", discolouration: "perlin" };

const make = guarded(async () => {
  await paint.save();
  const job = await post("/api/make", { ...form.request(), image: current, count: Number(at("count").value), parts: at("parts").checked });
  at("make").dataset.job = job.id;
  step("make");
  await queue.watch(job);
});

const batch = guarded(async () => {
  const { reference, ...asked } = form.request(), only = at("batch-reference").checked ? reference : "";
  await queue.watch(await post("/api/batch", { ...asked, ...form.batchTypes(), reference: only, dials: form.batchDials(), features: at("batch-features").value, count: Number(at("batch-count").value) }));
  show("queue");
});

queue.onFinish((job) => {
  review.finished(job);
  data.checked(job);
  evaluate.finished(job);
  if (job.kind === "fit" && job.status === "done") later();
  if (job.id !== at("make").dataset.job) return;
  if (job.status === "failed") say(job.error);
  else if (job.status === "done" && job.result.kept) compare.open(job.id);
  else if (job.status === "done") say(`Every image was refused: ${job.result.refused.map(([reason]) => reason).join("; ")}. Try a larger mask or another seed.`);
});
queue.onReview((job) => {
  if (job.kind === "evaluate") { remember("results-of", ""); show("evaluate"); return; }
  if (job.kind === "make") { show("paint"); compare.open(job.id); return; }
  remember("review-set", job.id);
  show("review");
});
paint.onSave(({ of, image }, pixels) => { if (of === "references" && pixels) form.maskOfReference(image); });
at("reference-mask").addEventListener("click", guarded(async () => {
  compare.close();
  const key = at("reference").value;
  at("of-reference-name").textContent = images.find((one) => one.key === key).name;
  await paint.open(at("data-set").value, key, "references");
}));
at("reference-done").addEventListener("click", () => openImage(current));
places.onPainted(() => (current && !paint.isReference() ? { data_set: at("data-set").value, image: current } : null), () => paint.save());
compare.onDecision((word) => { if (word === "keep") step("keep"); });
review.onOpen(show);
data.onUpload(guarded(async (id) => {
  await sets();
  at("data-set").value = id;
  await openData(id);
  show("paint");
}));

at("draw").addEventListener("click", draw);
at("form").addEventListener("submit", (event) => { event.preventDefault(); make(); });
at("batch").addEventListener("click", batch);

// -- first steps -------------------------------------------------------------------------------------------------

const STEPS = ["image", "mask", "make", "keep"];

function step(name) {
  const done = new Set([...recall("steps", []), name, ...(name === "image" ? [] : ["image"])]);
  remember("steps", [...done]);
  tour();
}

function tour() {
  const done = recall("steps", []), next = STEPS.find((name) => !done.includes(name));
  at("tour").hidden = recall("tour-over", false) || !next;
  for (const item of at("tour").querySelectorAll("[data-step]")) {
    item.classList.toggle("done", done.includes(item.dataset.step));
    if (item.dataset.step === next) item.setAttribute("aria-current", "step"); else item.removeAttribute("aria-current");
  }
}

at("tour-end").addEventListener("click", () => { remember("tour-over", true); tour(); });
paint.onChange(() => { if (!paint.isReference() && paint.currentMask() && !paint.currentMask().empty) step("mask"); });

// -- keys --------------------------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  const inside = event.target;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(inside.tagName) || at("help").open) return;
  if ((event.ctrlKey || event.metaKey) && shown() === "paint") {
    if (event.key === "z" && !event.shiftKey) paint.undo();
    else if (event.key === "y" || event.key === "Z") paint.redo();
    else return;
    event.preventDefault();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const common = { g: draw, m: make, "?": () => at("help").showModal() };
  const keys = shown() !== "paint" ? { "?": common["?"] } : compare.isOpen() ? { ...common, ...compare.KEYS } : { ...common, ...paint.KEYS };
  if (Object.hasOwn(keys, event.key)) { event.preventDefault(); keys[event.key](); }
});

at("keys").addEventListener("click", () => at("help").showModal());
at("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember("theme", root.dataset.theme);
  paint.viewer.draw();
  evaluate.draw();
});

// -- begin -------------------------------------------------------------------------------------------------------

async function sets() {
  const state = await get("/api/state");
  fill(at("data-set"), state.data_sets.map((one) => [one.id, one.name]), recall("data-set"));
  return state;
}

const later = guarded(async () => {  // those that take seconds to import
  const { methods, waiting } = await get("/api/methods");
  if (waiting.length) { setTimeout(later, 1500); return; }
  form.setMethods(methods);
  data.setSettings();
});

guarded(async () => {
  if (recall("theme")) document.documentElement.dataset.theme = recall("theme");
  const state = await sets();
  fill(at("family"), [["", "painted, or the method's"], ...state.families.map((name) => [name, name])], recall("family", ""));
  fill(at("format"), state.formats.map((name) => [name, name]));
  data.setTrainable(state.trainable);
  form.setDials(state.dials);
  form.setFeatures(state.features);
  evaluate.setOffered(state);
  form.setMethods(state.methods);
  show(recall("tab", "paint"));
  tour();
  await openData(at("data-set").value);
  await queue.look();
  document.body.dataset.ready = "1";
  if (state.trainable.length) later();
})();
