"use strict";
// The page's own script: filters, tiles built as they are looked at, details of one image. Nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("filters");
const grid = document.getElementById("grid");
const dialog = document.getElementById("detail");
const STEP = 60;  // tiles built at a time

const blocks = {};
function line(kind, number) {  // a block of images is split when the first of it is looked at
  const block = Math.floor(number / data.block), key = kind + block;
  blocks[key] ??= document.querySelector(`[data-${kind}="${block}"]`).textContent.split("\n");
  return blocks[key][number % data.block];
}
const strips = (row) => line("strips", row.strip).split(" ");
const url = (text) => `url(data:image/webp;base64,${text})`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value; else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function cell(text, place, count, ratio, label) {  // one cell of a strip
  const made = element("span", { class: "cell", role: "img", "aria-label": label });
  made.style.aspectRatio = ratio;
  made.style.backgroundImage = url(text);
  made.style.backgroundSize = `${100 * count}% 100%`;
  made.style.backgroundPosition = `${count > 1 ? 100 * place / (count - 1) : 0}% 0`;
  return made;
}

const shape = (row) => row.size[0] / row.size[1];
const number = (value) => typeof value === "number" ? String(Math.round(value * 1000) / 1000) : JSON.stringify(value);
const text = (value) => typeof value === "string" ? value : JSON.stringify(value);

// -- filters -----------------------------------------------------------------------------------------------------

const severalCategories = new Set(data.rows.map((row) => row.category)).size > 1;
let matching = [], shown = 0;

function choices(name, values) {
  const select = form.elements[name];
  if (!select) return;
  select.append(element("option", { value: "" }, "all"),
    ...values.map(([value, label]) => element("option", { value }, label)));
}

function filter() {
  const wanted = Object.fromEntries(new FormData(form));
  const low = wanted.low === "" ? -Infinity : Number(wanted.low);
  const high = wanted.high === "" ? Infinity : Number(wanted.high);
  const words = wanted.words.toLowerCase();
  const bounded = low > -Infinity || high < Infinity;
  matching = data.rows.filter((row) =>
    (!wanted.run || row.run === Number(wanted.run)) && (!wanted.category || row.category === wanted.category) &&
    (!wanted.type || row.type === wanted.type) && (!wanted.status || row.kept === (wanted.status === "kept")) &&
    (!bounded || (row.scores[wanted.score] >= low && row.scores[wanted.score] <= high)) &&
    (!wanted.seed || row.seed.startsWith(wanted.seed.trim())) &&
    (!words || `${row.caption} ${row.reason}`.toLowerCase().includes(words)));
  if (wanted.order) {
    const sign = wanted.order === "up" ? 1 : -1;
    const value = (row) => row.scores[wanted.score] ?? sign * Infinity;
    matching.sort((a, b) => sign * (value(a) - value(b)));
  }
  grid.replaceChildren();
  shown = 0;
  document.getElementById("count").textContent = `${matching.length} of ${data.rows.length} images`;
  more();
}

// -- tiles -------------------------------------------------------------------------------------------------------

function tile(row, place) {
  const score = form.elements.score.value;
  const value = row.scores[score];
  const made = element("button", { class: "tile", type: "button" });
  if (row.kept) {
    const [whole, zoom] = strips(row);
    made.append(element("span", { class: "pair" }, cell(whole, 0, 3, shape(row), "image"),
      cell(zoom, 0, row.pair ? 2 : 1, 1, "the defect, enlarged")));
  } else {
    const seen = row.attempts.findLast((attempt) => attempt.id >= 0);
    made.append(seen ? cell(line("pool", seen.id), 0, 1, 2, "what was refused") : element("span", { class: "none" }, "refused"));
  }
  made.append(element("b", {}, severalCategories ? `${row.category}, ${row.type}` : row.type),
    element("span", {}, row.kept ? (value === undefined ? row.caption : `${score} ${number(value)}`) : row.reason));
  made.addEventListener("click", () => open(place));
  return made;
}

function more() {
  const next = matching.slice(shown, shown + STEP).map((row, i) => tile(row, shown + i));
  shown += next.length;
  grid.append(...next);
  document.getElementById("more").hidden = shown >= matching.length;
}

// -- one image ---------------------------------------------------------------------------------------------------

let current = 0, blinking = null;

function figure(made, title, said = "") {
  return element("figure", {}, made, element("figcaption", {}, element("b", {}, title), said ? ` ${said}` : ""));
}

function views(row) {
  if (!row.kept) return element("p", {}, `Refused: ${row.reason}. A refused image is not kept.`);
  const [whole, zoom] = strips(row), count = row.pair ? 2 : 1, ratio = shape(row), box = element("div", { class: "views" });
  const close = cell(zoom, 0, count, 1, "the defect, enlarged");
  close.id = "close";
  const large = figure(close, "Enlarged");
  large.className = "large";
  box.append(large);
  if (row.pair) box.append(figure(cell(zoom, 1, 2, 1, "the same place in the photograph"), "Before"));
  if (row.reference >= 0) box.append(figure(cell(line("pool", row.reference), 0, 1, 1, "reference"), "Reference", "the real defect it imitates"));
  if (row.nearest) box.append(figure(cell(line("pool", row.nearest.id), 0, 1, 1, "nearest real defect"), "Nearest real defect",
    `${row.nearest.name}, likeness ${row.scores.likeness}${row.nearest.seen ? ", seen by the method" : ""}`));
  if (row.normal >= 0) box.append(figure(cell(line("pool", row.normal), 0, 1, ratio, "photograph"), "Photograph"));
  box.append(figure(cell(whole, 0, 3, ratio, "generated image"), "Generated"),
    figure(cell(whole, 1, 3, ratio, "mask"), "Mask"));
  if (row.pair) box.append(figure(cell(whole, 2, 3, ratio, "change map"), "Change", "bright: 96 grey levels or more"));
  return box;
}

function attempts(row) {  // what the gate refused on the way, plain and with its label
  if (!row.attempts.length) return "";
  return element("div", {}, element("h3", {}, "Refused attempts"), element("div", { class: "views" }, ...row.attempts.map((attempt) =>
    figure(attempt.id >= 0 ? cell(line("pool", attempt.id), 0, 1, 2, "refused attempt") : element("span", {}), attempt.check, attempt.reason))));
}

function facts(title, entries, say = text) {
  const rows = entries.map(([key, value]) => element("tr", {}, element("th", { scope: "row", title: data.scores[key] ?? "" }, key), element("td", {}, say(value))));
  return rows.length ? element("div", {}, element("h3", {}, title), element("table", {}, element("tbody", {}, ...rows))) : "";
}

function open(place) {
  const row = matching[place];
  current = place;
  const step = (by, label) => {
    const made = element("button", { type: "button", disabled: !matching[place + by] }, label);
    made.addEventListener("click", () => open(place + by));
    return made;
  };
  const shut = element("button", { type: "button" }, "Close");
  shut.addEventListener("click", () => dialog.close());
  const blink = element("button", { type: "button", "aria-pressed": "false", hidden: !row.pair, id: "blink" }, "Blink (b)");
  blink.addEventListener("click", toggle);
  dialog.replaceChildren(
    element("div", { class: "bar" }, element("h2", { id: "detail-title" }, `${data.runs[row.run]}: ${row.category} ${row.type} ${row.index ?? ""}`),
      element("span", { class: "bar" }, step(-1, "← Previous"), step(1, "Next →"), blink, shut)),
    element("p", {}, row.caption), views(row),
    element("div", { class: "facts" }, facts("Scores", Object.entries(row.scores), number),
      facts("Quality gate", Object.entries(row.gate)),
      facts("Origin", [["seed", row.seed], ...Object.entries(row.origin)])), attempts(row));
  still();
  if (!dialog.open) dialog.showModal();
  dialog.focus();  // the button that was pressed is gone, and keys must still be heard
}

function toggle() {  // the defect and the same place in the photograph, in turn
  const close = document.getElementById("close");
  if (blinking) return still();
  let after = true;
  document.getElementById("blink").setAttribute("aria-pressed", "true");
  blinking = setInterval(() => { after = !after; close.style.backgroundPosition = after ? "0% 0" : "100% 0"; }, 600);
}

function still() {
  clearInterval(blinking);
  blinking = null;
  document.getElementById("blink")?.setAttribute("aria-pressed", "false");
  const close = document.getElementById("close");
  if (close) close.style.backgroundPosition = "0% 0";
}

dialog.addEventListener("close", still);
dialog.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by && matching[current + by]) open(current + by);
  if (event.key === "b" && matching[current].pair) toggle();
});

// -- begin -------------------------------------------------------------------------------------------------------

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

if (form) {
  const distinct = (key) => [...new Set(data.rows.map((row) => row[key]))].sort().map((value) => [value, value || "–"]);
  choices("run", data.runs.map((name, place) => [place, name]));
  choices("category", distinct("category"));
  choices("type", distinct("type"));
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  document.getElementById("more").addEventListener("click", more);
  new IntersectionObserver(([seen]) => { if (seen.isIntersecting) more(); }, { rootMargin: "600px" })
    .observe(document.querySelector(".more"));
  filter();
}
