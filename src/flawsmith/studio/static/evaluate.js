// Evaluations: what was judged, in words, plots and a table; and a new one of a batch.
import { at, element, fill, get, guarded, post, recall, remember } from "./api.js";
import { watch } from "./queue.js";

let shown = null;

export function setOffered({ metrics, features }) {
  const chosen = recall("metrics", ["kid", "copies"]);
  at("evaluation").hidden = !metrics.length;
  at("metrics").replaceChildren(...metrics.map((name) => element("label", {}, element("input", {
    type: "checkbox", value: name, checked: chosen.includes(name), onchange: () => remember("metrics", picked()),
  }), ` ${name}`)));
  const smoke = [["", "compact (smoke only)"], ...features.map((name) => [name, name])];
  fill(at("evaluated-features"), smoke, recall("evaluated-features", features[0] ?? ""));
}

const picked = () => [...at("metrics").querySelectorAll("input:checked")].map((one) => one.value);

export const list = guarded(async () => {
  const [found, sets] = await Promise.all([get("/api/results"), get("/api/sets")]);
  const batches = sets.filter((one) => one.kind === "batch" && one.status === "done");
  fill(at("evaluated-set"), batches.map((one) => [one.id, `${one.title} (${one.images})`]), recall("evaluated-set"));
  fill(at("results-of"), found.map((one) => [one.id, one.name]), recall("results-of"));
  at("results-report").disabled = !found.length;
  await load();
});

const load = guarded(async () => {
  const id = at("results-of").value;
  shown = id ? await get(`/api/results/${id}`) : null;
  if (id) remember("results-of", id);
  draw();
});

const dark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);

export function draw() {
  if (!shown) { at("judged").textContent = "Nothing is evaluated yet."; return; }
  const { id, compared, verdicts, notes, rows, plots } = shown, theme = dark() ? "dark" : "light";
  const heads = ["what", "says", "better", ...(compared ? ["arm"] : []), "value", "95 % or spread", "seeds", "images"];
  const number = (value) => element("td", { class: "number" }, value === null ? "-" : typeof value === "number" ? String(Number(value.toPrecision(4))) : value);
  at("judged").replaceChildren(
    verdicts.length ? element("ul", { id: "verdicts" }, ...verdicts.map((text) => element("li", {}, text))) : "",
    plots.length ? element("div", { class: "plots" }, ...plots.map(({ title, told }, place) => element("figure", {},
      element("img", { src: `/api/results/${id}/plots/${place}?theme=${theme}`, alt: `${title}. ${told}` }), element("figcaption", { class: "soft" }, told)))) : "",
    element("div", { class: "table", tabIndex: 0, role: "region", "aria-label": "Values" }, element("table", { id: "values" },
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, element("th", { scope: "row" }, row.key), element("td", {}, row.meaning), element("td", {}, row.better),
        compared ? element("td", {}, row.arm || "-") : null, number(row.value), number(row.doubt), number(row.seeds), number(row.count)))))),
    ...notes.map((text) => element("p", { class: "soft" }, text)),
    ...[...new Set(rows.filter((row) => row.reason).map((row) => `${row.key}: ${row.reason}`))].map((text) => element("p", { class: "soft" }, text)));
}

at("results-of").addEventListener("change", () => { remember("results-of", at("results-of").value); load(); });
for (const id of ["evaluated-set", "evaluated-features"]) at(id).addEventListener("change", () => remember(id, at(id).value));

at("evaluation").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  const job = await post("/api/evaluate", { set: at("evaluated-set").value, metrics: picked(), features: at("evaluated-features").value });
  at("judged").textContent = "Evaluating; the queue shows how far it is.";
  await watch(job);
}));

at("results-report").addEventListener("click", guarded(async () => {
  at("results-reported").textContent = "Making the report ...";
  const job = await post(`/api/results/${at("results-of").value}/report`);
  at("results-reported").dataset.job = job.id;
  await watch(job);
}));

export function finished(job) {
  if (job.kind === "evaluate" && !at("evaluate").hidden) {
    if (job.status === "done") { remember("results-of", ""); list(); } else at("judged").textContent = job.error || job.status;
  }
  if (job.id !== at("results-reported").dataset.job) return;
  at("results-reported").replaceChildren(job.status === "done" ? element("a", { href: `/api/exports/${job.id}`, download: "" }, "Download the report") : job.error || job.status);
}
