// A made set in a grid: filters, keep and drop with one key, export.
import { at, element, fill, get, guarded, post, put, recall, remember } from "./api.js";
import * as compare from "./compare.js";
import { watch } from "./queue.js";

let set = null, shown = [], showTab = () => {};

export const onOpen = (given) => { showTab = given; };

export const list = guarded(async () => {
  const sets = await get("/api/sets");
  fill(at("review-set"), sets.map((one) => [one.id, `${one.title} (${one.images}, ${one.keep} kept)`]), recall("review-set"));
  await load();
});

const load = guarded(async () => {
  const id = at("review-set").value;
  set = id ? await get(`/api/sets/${id}`) : null;
  if (id) remember("review-set", id);
  const types = [...new Set((set?.rows ?? []).map((row) => row.defect_type))];
  fill(at("review-type"), [["", "all"], ...types.map((one) => [one, one])]);
  draw();
});

function draw() {
  const word = at("review-shown").value, type = at("review-type").value;
  shown = (set?.rows ?? []).filter((row) => (!type || row.defect_type === type) && (!word || (row.decision || "open") === word));
  at("tiles").replaceChildren(...shown.map((row) => element("li", {}, element("button", { type: "button", onclick: () => large(row) },
    element("img", { src: `/api/sets/${set.id}/${row.index}/${at("whole").checked ? "thumbnail" : "closeup"}`, alt: "", loading: "lazy" }),
    element("span", {}, `${row.defect_type}, ${row.title}`)))));
  for (const [place, button] of tiles().entries()) mark(button, shown[place]);
  count();
}

const tiles = () => [...at("tiles").querySelectorAll("button")];

function mark(button, row) {
  button.dataset.decision = row.decision;
  button.setAttribute("aria-label", `${row.defect_type}, ${row.title}, ${{ keep: "kept", drop: "dropped" }[row.decision] ?? "undecided"}`);
}

function count() {
  const rows = set?.rows ?? [], of = (word) => rows.filter((row) => row.decision === word).length;
  at("review-count").textContent = set ? `${shown.length} shown of ${rows.length}; ${of("keep")} kept, ${of("drop")} dropped` : "Nothing is made yet.";
}

const large = (row) => { showTab("paint"); compare.open(set.id, row.index); };

const decide = guarded(async (place, word) => {
  const row = shown[place];
  row.decision = (await put(`/api/sets/${set.id}/${row.index}/${word || "open"}`)).decision;
  mark(tiles()[place], row);
  count();
});

at("tiles").addEventListener("keydown", (event) => {
  const buttons = tiles(), place = buttons.indexOf(document.activeElement);
  if (place < 0) return;
  const across = buttons.filter((one) => one.offsetTop === buttons[0].offsetTop).length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[event.key];
  const word = { k: "keep", x: "drop", u: "" }[event.key];
  if (by) buttons[place + by]?.focus();
  else if (word !== undefined) {
    decide(place, word);
    buttons[place + 1]?.focus();
  } else return;
  event.preventDefault();
});

at("review-set").addEventListener("change", load);
at("review-shown").addEventListener("change", draw);
at("review-type").addEventListener("change", draw);
at("whole").addEventListener("change", draw);
at("report").addEventListener("click", guarded(async () => {
  if (!set) return;
  at("exported").textContent = "Making the report ...";
  const job = await post(`/api/report/${set.id}`);
  at("exported").dataset.job = job.id;
  await watch(job);
}));
at("export").addEventListener("click", guarded(async () => {
  at("exported").textContent = "Exporting ...";
  try {
    const job = await post("/api/export", { format: at("format").value });
    at("exported").dataset.job = job.id;
    await watch(job);
  } catch (error) {
    at("exported").textContent = "";
    throw error;
  }
}));

export function finished(job) {  // the file of an export or report is there
  if (job.id !== at("exported").dataset.job) return;
  at("exported").replaceChildren(job.status === "done"
    ? element("a", { href: `/api/exports/${job.id}`, download: "" }, job.kind === "report" ? "Download the report" : `Download ${job.result.images} images`) : `Not exported: ${job.error || job.status}`);
}
