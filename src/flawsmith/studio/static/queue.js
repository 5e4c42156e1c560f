// The queue: progress, time left, cancel. It is asked for often while something runs, seldom otherwise.
import { ask, at, element, get, guarded } from "./api.js";

const OFTEN = 400, SELDOM = 3000;  // ms
const known = new Map();  // job -> its status when it was last seen
let listeners = [], openSet = () => {}, timer = 0, jobs = [];

export const onFinish = (listener) => listeners.push(listener);
export const onReview = (given) => { openSet = given; };

export function left(seconds) {
  if (seconds === null || seconds === undefined) return "";
  return seconds < 90 ? `${seconds} s left` : `${Math.round(seconds / 60)} min left`;
}

const WORDS = { queued: "waiting", running: "running", done: "done", failed: "failed", cancelled: "cancelled" };

function curve(losses) {
  const values = losses.map(([, loss]) => loss), low = Math.min(...values), high = Math.max(...values);
  const points = losses.map(([, loss], i) => `${100 * i / (losses.length - 1)},${38 - 36 * (loss - low) / (high - low || 1)}`).join(" ");
  const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": `loss from ${values[0].toFixed(4)} to ${values.at(-1).toFixed(4)}` })) box.setAttribute(key, value);
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  drawn.setAttribute("points", points);
  box.append(drawn);
  return box;
}

function row(job) {
  const going = job.status === "queued" || job.status === "running", made = job.kind === "make" || job.kind === "batch";
  const refused = (job.result.refused ?? []).map(([reason, count]) => `${count} x ${reason}`).join("; ");
  return element("li", { "data-job": job.id, "data-status": job.status },
    element("div", { class: "row" }, element("b", {}, job.title), element("span", { class: job.status === "failed" ? "bad" : "soft" }, WORDS[job.status]),
      element("span", { class: "gap" }),
      made && job.status === "done" ? element("button", { type: "button", onclick: () => openSet(job) }, "Look") : null,
      ["export", "report"].includes(job.kind) && job.status === "done" ? element("a", { href: `/api/exports/${job.id}`, download: "" }, "Download") : null,
      going ? element("button", { type: "button", onclick: guarded(() => cancel(job.id)) }, "Cancel") : null),
    job.status === "running" ? element("progress", { max: job.total || 1, value: job.total ? job.done : 0, "aria-label": job.title }) : null,
    job.status === "running" ? element("span", { class: "soft" }, [job.what, job.total ? `${job.done} of ${job.total}` : "", left(job.seconds_left)].filter(Boolean).join(" · ")) : null,
    job.losses.length > 1 ? curve(job.losses) : null,
    job.losses.length ? element("span", { class: "soft" }, `loss ${job.losses.at(-1)[1].toFixed(4)}`) : null,
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
