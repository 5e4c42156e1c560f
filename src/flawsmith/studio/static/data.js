// Data sets: a dropped folder, the check, a fit.
import { ask, at, element, fill, guarded, post, say } from "./api.js";
import { draw, given } from "./dials.js";
import { fitSchema } from "./form.js";
import { watch } from "./queue.js";

const IMAGES = /\.(png|jpe?g|bmp|tiff?|webp)$/i;
let opened = () => {}, keys = new Map();  // of images by their names, as findings name them

export const setImages = (images) => { keys = new Map(images.map((one) => [one.name, one.key])); };
export const onUpload = (given) => { opened = given; };
export const setTrainable = (names) => {
  fill(at("fit-method"), names.map((name) => [name, name]), "anomalyxfusion");
  at("fit").hidden = !names.length;
};
export const setSettings = () => draw(at("fit-settings"), fitSchema(at("fit-method").value), `fit-${at("fit-method").value}`);
at("fit-method").addEventListener("change", setSettings);

const upload = guarded(async (files) => {  // [[path below the folder, file]], all of one folder
  const images = files.filter(([path]) => IMAGES.test(path));
  if (!images.length) return say("The folder holds no images that can be read.");
  const name = images[0][0].split("/")[0] || "folder";
  for (const [place, [path, file]] of images.entries()) {
    const below = path.split("/").slice(1).map(encodeURIComponent).join("/");
    await ask(`/api/uploads/${encodeURIComponent(name)}/${below}`, { method: "PUT", body: file });
    at("upload-said").textContent = `${place + 1} of ${images.length} files`;
  }
  const { id } = await post(`/api/uploads/${encodeURIComponent(name)}`);
  at("upload-said").textContent = `${images.length} files, opened as ${name}`;
  return opened(id);
});

at("folder").addEventListener("change", (event) => {
  upload([...event.target.files].map((file) => [file.webkitRelativePath || `folder/${file.name}`, file]));
});

async function walk(entry, path) {
  if (entry.isFile) return [[path + entry.name, await new Promise((done, failed) => entry.file(done, failed))]];
  const reader = entry.createReader(), found = [];
  for (;;) {  // a reader gives a hundred entries at a time
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    for (const one of some) found.push(...await walk(one, `${path}${entry.name}/`));
  }
  return found;
}

const zone = at("drop-zone");
for (const kind of ["dragover", "dragleave", "drop"]) zone.addEventListener(kind, (event) => {
  event.preventDefault();
  zone.classList.toggle("over", kind === "dragover");
});
zone.addEventListener("drop", guarded(async (event) => {
  const entry = event.dataTransfer.items[0]?.webkitGetAsEntry();
  if (!entry?.isDirectory) return say("Drop a folder, not single files.");
  return upload(await walk(entry, ""));
}));

at("check").addEventListener("click", guarded(async () => {
  at("findings").textContent = "Checking ...";
  const job = await post(`/api/check/${at("data-set").value}`);
  at("findings").dataset.job = job.id;
  await watch(job);
}));

export function checked(job) {
  if (job.id !== at("findings").dataset.job) return;
  if (job.status !== "done") { at("findings").textContent = job.error || job.status; return; }
  const { findings } = job.result, { data_set } = job.request;
  const small = (file) => (keys.has(file) ? element("img", { src: `/api/data/${data_set}/${keys.get(file)}/thumbnail`, alt: "", loading: "lazy" }) : null);
  at("findings").replaceChildren(findings.length ? element("table", {}, element("tbody", {}, ...findings.map((one) => element("tr", {},
    element("td", { class: one.severity === "error" ? "bad" : "" }, one.severity), element("td", {}, small(one.file)), element("td", {}, one.file), element("td", {}, `${one.reason} ${one.fix}`))))) : "No findings.");
}

at("fit").addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
at("fit").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  await watch(await post("/api/fit", { data_set: at("data-set").value, method: at("fit-method").value, name: at("fit-name").value, steps: Number(at("fit-steps").value),
    shots: Number(at("fit-shots").value) || null, settings: given(at("fit-settings"), fitSchema(at("fit-method").value)) }));
  say("The fit is queued: its loss stands in the queue.");
}));
