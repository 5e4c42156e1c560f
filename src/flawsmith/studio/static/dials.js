// Inputs drawn from a JSON schema: a method's options, the dials of every method. What is left empty is the default.
import { element, fill, recall, remember } from "./api.js";

const kinds = (field) => (field.anyOf ?? [field]).filter((one) => one.type !== "null");
const simple = (field) => kinds(field).length === 1 && kinds(field)[0].type !== "object";

function inputs(name, field, kept) {
  const [kind] = kinds(field), attributes = { "data-option": name };
  const choose = (pairs) => {
    const made = element("select", attributes);
    fill(made, pairs, kept);
    return [made];
  };
  if (kind.enum) return choose([["", field.default === null ? "auto" : String(field.default)], ...kind.enum.map((one) => [one, one])]);
  if (kind.type === "boolean") return choose([["", field.default ? "yes" : "no"], [String(!field.default), field.default ? "no" : "yes"]]);
  const numbers = kind.prefixItems ?? [kind];
  return numbers.map((one, place) => element("input", {
    ...attributes, type: "number", step: one.type === "integer" ? "1" : "any", min: one.minimum ?? "", max: one.maximum ?? "",
    placeholder: String((Array.isArray(field.default) ? field.default[place] : field.default) ?? "auto"),
    value: (Array.isArray(kept) ? kept[place] : kept) ?? "", "aria-label": numbers.length > 1 ? `${name} ${place ? "to" : "from"}` : name,
  }));
}

export function draw(box, fields, start) {  // `start`: of the names under which a reload finds the values again
  box.replaceChildren(...Object.entries(fields).filter(([, field]) => simple(field)).map(([name, field]) => {
    const made = inputs(name, field, recall(`${start}-${name}`)), pair = made.length > 1;
    for (const one of made) one.addEventListener("change", () => remember(`${start}-${name}`, pair ? made.map((i) => i.value) : made[0].value));
    return element("label", { class: "field" }, element("span", {}, name), element("span", { class: pair ? "pair" : "" }, ...made), field.description ?? "");
  }));
}

export function given(box, fields) {  // only what was changed: the defaults stay the method's own
  const found = {};
  for (const [name, field] of Object.entries(fields)) {
    const values = [...box.querySelectorAll(`[data-option="${name}"]`)].map((one) => one.value), [kind] = kinds(field);
    if (!values.some((value) => value !== "")) continue;
    if (kind.enum) found[name] = values[0];
    else if (kind.type === "boolean") found[name] = values[0] === "true";
    else if (kind.type === "array") {
      const one = values.find((value) => value !== "");  // stands for both where a pair has no defaults, or beyond them
      found[name] = values.map((value, place) => Number(value === "" ? field.default?.[place] ?? one : value));
      if (values.includes("") && found[name][0] > found[name][1]) found[name].fill(Number(one));
    } else found[name] = Number(values[0]);
  }
  return found;
}
