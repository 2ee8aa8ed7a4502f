// What all parts of the page share: asking the server, saying what came of it, keys, elements. All text goes in as text.
const html = document.documentElement;
export const lora = html.dataset.lora;
export const find = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];
export const here = `/set/${encodeURIComponent(lora)}`;

/** An element with attributes, listeners (`onclick`) and children; a string is text. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

// ---------------------------------------------------------------- the server

export class Refused extends Error {
  constructor(status, told) {
    super(told.error || "the server refused");
    this.status = status;
    this.told = told;
  }
}

async function answered(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused(0, { error: "no answer: the server has ended; type lora review again" });
  }
  const json = (answer.headers.get("content-type") || "").startsWith("application/json");
  const told = json ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Refused(answer.status, told);
  return told;
}

export const get = (path) => answered(path, {});
export const post = (path, body) =>
  answered(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-review": html.dataset.word },
    body: JSON.stringify(body),
  });

/** Server-sent events; a lost connection is made again, and begins as the first did. */
export function listen(path, on) {
  const source = new EventSource(path);
  source.addEventListener("error", () => { html.dataset.lost = ""; });
  source.addEventListener("open", () => { delete html.dataset.lost; });
  for (const [kind, take] of Object.entries(on)) source.addEventListener(kind, (event) => take(JSON.parse(event.data)));
  addEventListener("pagehide", () => source.close());
}

// ---------------------------------------------------------------- saying

const said = find("#said");

export function say(text, bad = false) {
  said.textContent = text;
  said.classList.toggle("warn", bad);
}

/** Do something, and say what went wrong; the caller sees undefined then. */
export async function attempt(act) {
  try {
    return await act();
  } catch (error) {
    say(error.message, true);
    if (!(error instanceof Refused)) throw error;
    return undefined;
  }
}

// ---------------------------------------------------------------- keys and dialogs

const typed = (target) =>
  target.matches?.("textarea, select, input:not([type=checkbox])") || target.isContentEditable;

/** Keys of a part: [key or keys, what it does, act]. They rest while somebody types or another dialog is open.
    Enter and space are the button's or link's that has the focus, unless a fourth value says which may be taken over. */
export function keys(rows, within = () => true) {
  const list = find("#keys dl");
  for (const [names, words] of rows) {
    const shown = [names].flat().map((name) => el("kbd", {}, NAMED[name] || name));
    list.append(el("dt", {}, ...shown), el("dd", {}, words));
  }
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typed(event.target) || !within(event)) return;
    const row = rows.find(([names]) => [names].flat().includes(event.key));
    const own = ["Enter", " "].includes(event.key) && event.target.matches?.("button, a, summary, input");
    if (!row || (own && !(row[3] && event.target.matches(row[3])))) return;
    if (row[2](event) !== false) event.preventDefault();
  });
}

const NAMED = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "space", Delete: "del" };

export const open = (dialog) => {
  if (!dialog.open) dialog.showModal();
};
export const isOpen = () => all("dialog[open]").length > 0;

for (const dialog of all("dialog"))
  dialog.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) dialog.close();
  });
find("#help").addEventListener("click", () => open(find("#keys")));
addEventListener("keydown", (event) => {
  if (event.key === "?" && !typed(event.target) && !isOpen()) open(find("#keys"));
});

/** A row of buttons of which one is pressed: [value, words] each. */
export function tabs(field, rows, pressed, take) {
  const buttons = rows.map(([value, words]) =>
    el("button", { type: "button", "aria-pressed": String(value === pressed), onclick: () => take(value) }, words));
  const kept = field.querySelector("legend");
  field.replaceChildren(kept, ...buttons);
}

/** Calls that come quickly after each other become one. */
export function later(act, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...values), milliseconds);
  };
}

export const percent = (share) => `${Math.round(share * 100)} %`;

/** Lay a part of a picture over it, in percent. */
export function placed(element, [left, top, right, bottom], [width, height]) {
  element.style.left = `${(100 * left) / width}%`;
  element.style.top = `${(100 * top) / height}%`;
  element.style.width = `${(100 * (right - left)) / width}%`;
  element.style.height = `${(100 * (bottom - top)) / height}%`;
}
