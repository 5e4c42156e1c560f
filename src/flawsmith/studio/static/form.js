// The form of a method: its options and the dials of every method, its types, its references.
import { at, element, fill, recall, remember } from "./api.js";
import { draw, given } from "./dials.js";
import { chosen as places } from "./places.js";

let methods = {}, images = [], painted = 0;  // how often the mask of a reference was: so that its close-up is made anew

export const fitSchema = (name) => methods[name]?.fit ?? {};

export function setMethods(table) {
  methods = table;
  fill(at("method"), Object.keys(table).map((name) => [name, name]), recall("method", "procedural"));
  show();
}

export function setImages(listed) {
  images = listed;
  show();
}

export const method = () => methods[at("method").value];

function show() {
  const chosen = method();
  if (!chosen) return;
  at("method-words").textContent = chosen.words;
  const real = images.filter((one) => !one.good), shown = real.length ? real : images;  // of a folder of mere images any may be it
  const types = [...new Set([...chosen.types, ...(chosen.references === "none" ? [] : real.map((one) => one.type)),
    ...(chosen.types.length ? [] : real.map((one) => one.type))])];
  at("types").replaceChildren(...types.map((value) => element("option", { value })));
  if (types.length && !types.includes(at("type").value)) at("type").value = types[0];
  const optional = chosen.references === "none";
  fill(at("reference"), [...(optional ? [["", "choose"]] : []), ...shown.map((one) => [one.key, one.has_mask ? one.name : `${one.name} (no mask yet)`])], recall("reference"));
  wanted();
  draw(at("options"), chosen.options, `option-${at("method").value}`);
}

function wanted() {  // a reference is asked for where something would use it
  at("reference-field").hidden = method().references === "none" && !["reference", "varied"].includes(at("family").value);
  reference();
}

function reference() {
  const key = at("reference").value, shown = at("reference-shown");
  shown.hidden = !key || at("reference-field").hidden;
  at("reference-mask").disabled = !key;
  if (key) {
    shown.src = `/api/data/${at("data-set").value}/${key}/closeup?${painted}`;
    const one = images.find((image) => image.key === key);
    if (one && !one.good && method().references !== "none") at("type").value = one.type;
  }
}

export function maskOfReference(key) {  // has been painted
  painted += 1;
  const one = images.find((image) => image.key === key), option = [...at("reference").options].find((found) => found.value === key);
  if (one) one.has_mask = true;
  if (option) option.textContent = one.name;
  reference();
}

// -- dials -------------------------------------------------------------------------------------------------------

let dials = { make: {}, batch: {} };  // schemas: those of a few images, and those of a batch

export function setDials(schemas) {
  dials = schemas;
  draw(at("dials"), dials.make, "dial");
  draw(at("batch-dials"), ofBatch(), "dial");
}

const ofBatch = () => Object.fromEntries(Object.entries(dials.batch).filter(([name]) => !(name in dials.make)));

export const batchDials = () => ({ ...given(at("dials"), dials.make), ...given(at("batch-dials"), ofBatch()) });
export function batchTypes() {  // a mixture names the types by itself
  const mix = at("batch-mix").value.trim(), combine = at("batch-combine").value.trim();
  return mix || combine ? { mix, combine, defect_type: "" } : {};
}
export function maskDials() {  // a gate judges images, not masks
  const { gate, ...rest } = given(at("dials"), dials.make);
  return rest;
}

at("form").addEventListener("invalid", (event) => {  // a browser cannot point at what is folded away
  event.target.closest("details")?.setAttribute("open", "");
}, true);

export function request() {
  const chosen = method(), needs = chosen.references !== "none";
  return {
    data_set: at("data-set").value, method: at("method").value, defect_type: at("type").value.trim(), prompt: at("prompt").value.trim(),
    family: at("family").value, reference: needs || ["reference", "varied"].includes(at("family").value) ? at("reference").value : "",
    ...places(), seed: Number(at("seed").value), dials: given(at("dials"), dials.make), options: given(at("options"), chosen.options),
  };
}

export function setFeatures(names) {
  fill(at("batch-features"), [["", "none"], ...names.map((name) => [name, name])], recall("batch-features", ""));
  at("batch-features-field").hidden = !names.length;
}

at("method").addEventListener("change", () => { remember("method", at("method").value); at("type").value = ""; show(); });
at("reference").addEventListener("change", () => { remember("reference", at("reference").value); reference(); });
at("family").addEventListener("change", wanted);
for (const id of ["type", "prompt", "count", "seed", "family", "batch-count", "batch-mix", "batch-combine", "batch-features"]) {
  at(id).value = recall(id, at(id).value);
  at(id).addEventListener("change", () => remember(id, at(id).value));
}
