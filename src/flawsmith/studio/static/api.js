// Talking to the server. Every failure is a message the user can read.
const HEADERS = { "X-Flawsmith": "1" };

export async function ask(path, options = {}) {
  const given = { ...options, headers: { ...HEADERS, ...options.headers } };
  if (given.json !== undefined) {
    given.body = JSON.stringify(given.json);
    given.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, given);
  } catch {
    throw new Error("The studio does not answer: is it still running? Start it again with the same command.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const error = new Error(told.error ?? `The studio answered ${answer.status}.`);
  error.status = answer.status;
  throw error;
}

export const get = async (path) => (await ask(path)).json();
export const post = async (path, json) => (await ask(path, { method: "POST", json })).json();
export const put = async (path) => (await ask(path, { method: "PUT" })).json();

// -- messages ----------------------------------------------------------------------------------------------------

let hiding = 0;

export function say(text, buttons = []) {
  const box = document.getElementById("message");
  const shut = (action) => () => { box.hidden = true; action?.(); };
  box.replaceChildren(text, ...[...buttons, ["Close"]].map(([label, action]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", shut(action));
    return button;
  }));
  box.hidden = false;
  clearTimeout(hiding);
  if (!buttons.length) hiding = setTimeout(() => { box.hidden = true; }, 12000);
}

export const guarded = (action) => async (...given) => {
  try { return await action(...given); } catch (error) { say(error.message); return undefined; }
};

// -- elements ----------------------------------------------------------------------------------------------------

export const at = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function fill(select, pairs, chosen) {  // options of a select, keeping what was chosen where it is still there
  const before = chosen ?? select.value;
  select.replaceChildren(...pairs.map(([value, label]) => element("option", { value }, label)));
  if (pairs.some(([value]) => value === before)) select.value = before;
}

// -- what a reload must not lose ---------------------------------------------------------------------------------

const KEY = "flawsmith-studio";
const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
export const recall = (name, otherwise) => kept[name] ?? otherwise;
export function remember(name, value) {
  kept[name] = value;
  localStorage.setItem(KEY, JSON.stringify(kept));
}
