// The queue: progress, time left, cancel. It is asked for often while something runs, seldom otherwise.
import { ask, at, element, get, guarded } from "./api.js";

const OFTEN = 400, SELDOM = 1500;  // ms
const known = new Map();  // job -> its status when it was last seen
let listeners = [], openSet = () => {}, timer = 0, jobs = [];

export const onFinish = (listener) => listeners.push(listener);
export const onReview = (given) => { openSet = given; };

export function left(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 90 ? `${seconds} s left` : `${Math.round(seconds / 60)} min left`;
}

const WORDS = { queued: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };

// Training loss and, dashed, the loss on what is held out, over the steps of one thing that is learned.
function curve(name, { loss = [], held_out = [] }) {
  const all = [...loss, ...held_out], values = all.map(([, value]) => value), low = Math.min(...values), high = Math.max(...values);
  const last = Math.max(...all.map(([step]) => step)), first = Math.min(...all.map(([step]) => step));
  const said = `${name}: loss from ${loss[0][1].toFixed(4)} to ${loss.at(-1)[1].toFixed(4)}${held_out.length ? `, held out ${held_out.at(-1)[1].toFixed(4)}` : ""}, step ${last}`;
  const draw = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const box = draw("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": said });
  for (const [kind, points] of [["loss", loss], ["held-out", held_out]]) {
    const at = points.map(([step, value]) => `${100 * (step - first) / (last - first || 1)},${38 - 36 * (value - low) / (high - low || 1)}`);
    box.append(draw("polyline", { class: kind, points: at.join(" ") }));
  }
  return [loss.length > 1 ? box : null, element("span", { class: "soft" }, said)];
}

const sheets = new Map();  // of a preview and a status: so that asking for the queue again draws no image anew

function sheet(src, alt, status) {
  const key = `${src} ${status}`;  // the last one is painted again when all is learned
  if (!sheets.has(key)) sheets.set(key, element("img", { src, alt }));
  return sheets.get(key);
}

function previews(job) {  // of each thing that is learned the newest sheet, and links to the earlier ones
  const folders = Map.groupBy(job.previews, (name) => name.split("/")[0]);
  return [...folders].map(([folder, names]) => {
    const link = (name) => `/api/jobs/${job.id}/previews/${name}`, step = (name) => Number(name.match(/(\d+)\.png$/)[1]);
    return element("figure", { class: "preview" }, sheet(link(names.at(-1)), `what ${folder} paints at step ${step(names.at(-1))}: real, normal, generated, label`, job.status),
      element("figcaption", { class: "soft" }, `${folder}, step ${step(names.at(-1))} `,
        ...names.slice(0, -1).flatMap((name) => [element("a", { href: link(name), target: "_blank", rel: "noopener" }, `step ${step(name)}`), " "])));
  });
}

function row(job) {
  const going = job.status === "queued" || job.status === "running", made = ["make", "batch", "evaluate"].includes(job.kind);
  const refused = (job.result.refused ?? []).map(([reason, count]) => `${count} x ${reason}`).join("; ");
  return element("li", { "data-job": job.id, "data-status": job.status },
    element("div", { class: "row" }, element("b", {}, job.title), element("span", { class: job.status === "failed" ? "bad" : "soft" }, WORDS[job.status]),
      element("span", { class: "gap" }),
      made && job.status === "done" ? element("button", { type: "button", onclick: () => openSet(job) }, "Look") : null,
      ["export", "report"].includes(job.kind) && job.status === "done" ? element("a", { href: `/api/exports/${job.id}`, download: "" }, "Download") : null,
      going ? element("button", { type: "button", onclick: guarded(() => cancel(job.id)) }, "Cancel") : null),
    job.status === "running" ? element("progress", { max: job.total || 1, value: job.total ? job.done : 0, "aria-label": job.title }) : null,
    job.status === "running" ? element("span", { class: "soft" }, [job.what, job.total ? `${job.done} of ${job.total}` : "", left(job.seconds_left)].filter(Boolean).join(" · ")) : null,
    ...Object.entries(job.curves).flatMap(([name, curves]) => (curves.loss ? curve(name, curves) : [])),
    job.previews.length ? element("div", { class: "previews" }, ...previews(job)) : null,
    job.error ? element("span", { class: "bad" }, job.error) : null,
    refused ? element("span", { class: "soft" }, `Refused: ${refused}`) : null);
}

const cancel = async (id) => { await ask(`/api/jobs/${id}`, { method: "DELETE" }); await look(); };

const rows = new Map();  // job -> {told, li}: what has not changed is left alone, with the focus in it

function show() {
  for (const job of jobs) {
    const told = JSON.stringify(job), before = rows.get(job.id);
    if (before?.told === told) continue;
    const li = row(job), focused = before?.li.contains(document.activeElement);
    before?.li.replaceWith(li);
    if (focused) li.querySelector("button, a")?.focus();
    rows.set(job.id, { told, li });
  }
  const wanted = [...jobs].reverse().map((job) => rows.get(job.id).li);
  const shown = [...at("jobs").children];
  if (!wanted.length) at("jobs").replaceChildren(element("li", {}, "Nothing is queued."));
  else if (wanted.length !== shown.length || wanted.some((li, place) => li !== shown[place])) at("jobs").replaceChildren(...wanted);
}

export async function look() {
  clearTimeout(timer);
  try {
    jobs = await get("/api/jobs");
  } catch {
    at("waiting").textContent = "(no answer)";
    timer = setTimeout(look, SELDOM);
    return;
  }
  const going = jobs.filter((job) => job.status === "queued" || job.status === "running");
  at("waiting").textContent = going.length ? `(${going.length})` : "";
  if (!at("queue").hidden) show();
  const running = jobs.find((job) => job.status === "running");
  at("progress").textContent = running ? `${running.title}: ${running.total ? `${running.done} of ${running.total} ` : ""}${left(running.seconds_left)}` : "";
  for (const job of jobs) {
    const before = known.get(job.id), over = job.status !== "queued" && job.status !== "running";
    known.set(job.id, job.status);
    if (over && before !== undefined && before !== job.status) for (const listener of listeners) listener(job);
  }
  timer = setTimeout(look, going.length ? OFTEN : SELDOM);
}

export async function watch(job) {  // a job just asked for
  known.set(job.id, "queued");
  await look();
}

export const all = () => jobs;
