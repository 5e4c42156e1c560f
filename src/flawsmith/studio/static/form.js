// The form of a method: its dials drawn from the schema of its options, its types, its references.
import { at, element, fill, recall, remember } from "./api.js";

let methods = {}, images = [];

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
  const real = images.filter((one) => !one.good && one.has_mask);
  const types = [...new Set([...chosen.types, ...(chosen.references === "none" ? [] : real.map((one) => one.type)),
    ...(chosen.types.length ? [] : real.map((one) => one.type))])];
  at("types").replaceChildren(...types.map((value) => element("option", { value })));
  if (types.length && !types.includes(at("type").value)) at("type").value = types[0];
  const optional = chosen.references === "none";
  fill(at("reference"), [...(optional ? [["", "choose"]] : []), ...real.map((one) => [one.key, one.name])], recall("reference"));
  wanted();
  options(chosen);
}

function wanted() {  // a reference is asked for where something would use it
  at("reference-field").hidden = method().references === "none" && !["reference", "varied"].includes(at("family").value);
  reference();
}

function reference() {
  const key = at("reference").value, shown = at("reference-shown");
  shown.hidden = !key || at("reference-field").hidden;
  if (key) {
    shown.src = `/api/data/${at("data-set").value}/${key}/closeup`;
    const one = images.find((image) => image.key === key);
    if (one && method().references !== "none") at("type").value = one.type;
  }
}

// -- dials -------------------------------------------------------------------------------------------------------

const kinds = (field) => (field.anyOf ?? [field]).filter((one) => one.type !== "null");
const key = (name) => `option-${at("method").value}-${name}`;

function input(name, field) {
  const [kind] = kinds(field), kept = recall(key(name));
  const attributes = { "data-option": name };
  if (kind.enum) {
    const made = element("select", attributes);
    fill(made, [["", field.default === null ? "auto" : String(field.default)], ...kind.enum.map((one) => [one, one])], kept);
    return [made];
  }
  if (kind.type === "boolean") {
    const made = element("select", attributes);
    fill(made, [["", field.default ? "yes" : "no"], [field.default ? "false" : "true", field.default ? "no" : "yes"]], kept);
    return [made];
  }
  const numbers = kind.type === "array" ? kind.prefixItems.length : 1;
  return Array.from({ length: numbers }, (_, place) => element("input", {
    ...attributes, type: "number", step: kind.type === "integer" ? "1" : "any", min: kind.minimum ?? "", max: kind.maximum ?? "",
    placeholder: String((Array.isArray(field.default) ? field.default[place] : field.default) ?? "auto"),
    value: (Array.isArray(kept) ? kept[place] : kept) ?? "", "aria-label": numbers > 1 ? `${name} ${place ? "to" : "from"}` : name,
  }));
}

function options(chosen) {
  at("options").replaceChildren(...Object.entries(chosen.options).filter(([, field]) => kinds(field).length === 1 && kinds(field)[0].type !== "object")
    .map(([name, field]) => {
      const inputs = input(name, field);
      for (const one of inputs) one.addEventListener("change", () => remember(key(name), inputs.length > 1 ? inputs.map((i) => i.value) : inputs[0].value));
      return element("label", { class: "field" }, element("span", {}, name), element("span", { class: inputs.length > 1 ? "pair" : "" }, ...inputs), field.description ?? "");
    }));
}

function given() {  // only what was changed: the method's own defaults stay its own
  const found = {};
  for (const [name, field] of Object.entries(method().options)) {
    const inputs = [...at("options").querySelectorAll(`[data-option="${name}"]`)], [kind] = kinds(field);
    const values = inputs.map((one) => one.value);
    if (!values.some((value) => value !== "")) continue;
    if (kind.enum) found[name] = values[0];
    else if (kind.type === "boolean") found[name] = values[0] === "true";
    else if (kind.type === "array") found[name] = values.map((value, place) => Number(value === "" ? field.default[place] : value));
    else found[name] = Number(values[0]);
  }
  return found;
}

export function request() {
  const chosen = method(), needs = chosen.references !== "none";
  return {
    data_set: at("data-set").value, method: at("method").value, defect_type: at("type").value.trim(), prompt: at("prompt").value.trim(),
    family: at("family").value, reference: needs || ["reference", "varied"].includes(at("family").value) ? at("reference").value : "",
    seed: Number(at("seed").value), options: given(),
  };
}

at("method").addEventListener("change", () => { remember("method", at("method").value); at("type").value = ""; show(); });
at("reference").addEventListener("change", () => { remember("reference", at("reference").value); reference(); });
at("family").addEventListener("change", wanted);
for (const id of ["type", "prompt", "count", "seed", "family", "batch-count"]) {
  at(id).value = recall(id, at(id).value);
  at(id).addEventListener("change", () => remember(id, at(id).value));
}
