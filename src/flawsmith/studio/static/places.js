// Where drawn defects may lie: a region of interest and a heat map, handed in once and named by an id.
import { ask, at, guarded, post, recall, remember, say } from "./api.js";

const WHAT = { roi: "the whole object", heat: "even" };  // without one
let open = () => null, save = async () => {};  // the open image {data_set, image}; what is painted on it, onto the disk

export function onPainted(where, saved) { open = where; save = saved; }
export const chosen = () => ({ roi: recall("roi", { id: "" }).id, heat: recall("heat", { id: "" }).id });

function keep(name, place) {
  remember(name, place);
  at(`${name}-said`).textContent = place.id ? `${place.from}, ${place.width} x ${place.height}` : WHAT[name];
}

for (const name of Object.keys(WHAT)) {
  at(name).addEventListener("change", guarded(async (event) => {
    const [file] = event.target.files;
    event.target.value = "";
    if (file) keep(name, { ...await (await ask("/api/places", { method: "POST", body: file })).json(), from: "imported" });
  }));
  at(`${name}-none`).addEventListener("click", () => keep(name, { id: "" }));
  keep(name, recall(name, { id: "" }));
}

at("roi-painted").addEventListener("click", guarded(async () => {
  const where = open();
  if (!where) return say("Pick an image and paint where defects may lie.");
  await save();
  return keep("roi", { ...await post(`/api/places/${where.data_set}/${where.image}`), from: "painted" });
}));
