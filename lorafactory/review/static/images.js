// The grid: every picture small, one of them current, some selected; what is done to them goes to the server at once.
import { all, attempt, el, find, get, here, isOpen, keys, later, listen, lora, open, percent, post, say, tabs } from "./lib.js";
import { View } from "./view.js";

const FILTERS = {
  all: ["all", (p) => !p.aside],
  flagged: ["flagged", (p) => !p.aside && (p.flags.length > 0 || p.findings.length > 0 || p.broken)],
  twins: ["duplicates", (p) => !p.aside && p.flags.some((flag) => flag.rival)],
  aside: ["set aside", (p) => p.aside],
};
const grid = find("#grid");
const reason = find("#reason");
const asked = decodeURIComponent(location.hash.slice(1)); // a filter, or a picture
const state = { pictures: new Map(), filter: asked in FILTERS ? asked : "all", current: asked, chosen: new Set(), anchor: "" };
const cells = new Map();

// ---------------------------------------------------------------- what there is

/** Pictures by key: a name may be in the set and, of another picture, in set_aside. */
const keyOf = (picture) => `${picture.aside ? "aside/" : ""}${picture.name}`;

/** Take over what the server told of the set, of all of it or of some names. */
function take(told, names = null) {
  if (names === null) state.pictures.clear();
  else for (const name of names) for (const key of [name, `aside/${name}`]) state.pictures.delete(key);
  const rows = [...told.pictures, ...told.aside.map((p) => ({ ...p, aside: true, flags: [], findings: [], phrases: [] }))];
  for (const picture of rows) state.pictures.set(keyOf(picture), picture);
  for (const key of state.chosen) if (!state.pictures.has(key)) state.chosen.delete(key);
  draw();
}

/** What check flagged comes first, then what dedupe and filter propose, then the rest; each in the order of the set. */
function shown() {
  const rank = (p) => (p.findings.length || p.broken ? 0 : p.flags.length ? 1 : 2);
  const rows = [...state.pictures.values()].filter(FILTERS[state.filter][1]);
  return state.filter === "flagged" ? rows.sort((a, b) => rank(a) - rank(b) || natural(a, b)) : rows.sort(natural);
}

const order = new Intl.Collator(undefined, { numeric: true });
const natural = (a, b) => order.compare(a.name, b.name);

// ---------------------------------------------------------------- drawing

function draw() {
  const rows = shown();
  const keys = rows.map(keyOf);
  if (!keys.includes(state.current)) state.current = keys[Math.min(drawn.indexOf(state.current), keys.length - 1)] || keys[0] || "";
  drawn = keys;
  const wanted = new Set(keys);
  for (const [key, cell] of cells) if (!wanted.has(key)) { cell.remove(); cells.delete(key); }
  let last = null;
  for (const picture of rows) {
    const key = keyOf(picture);
    if (!cells.has(key)) cells.set(key, made(key));
    const cell = cells.get(key);
    fill(cell, picture);
    const next = last ? last.nextSibling : grid.firstChild;
    if (cell !== next) grid.insertBefore(cell, next);
    last = cell;
  }
  find("#empty").hidden = rows.length > 0;
  find("#empty").textContent = "nothing here";
  counts();
  mark();
  if (view.isOpen) view.show(picture(), rows.length, keys.indexOf(state.current));
}

let drawn = [];
const picture = (key = state.current) => state.pictures.get(key);

function made(key) {
  const button = el("button", { class: "cell", "data-key": key, tabindex: "-1", "aria-pressed": "false" },
    el("span", { class: "thumb" }, el("img", { alt: "", loading: "lazy", decoding: "async" })), el("span", { class: "name" }), el("span", { class: "told" }));
  return el("li", {}, button);
}

function fill(cell, picture) {
  if (cell.shown === picture) return;
  cell.shown = picture;
  const [img, name, told] = [find("img", cell), find(".name", cell), find(".told", cell)];
  const source = picture.broken ? "" : `${here}/thumb/${picture.sha}`;
  if (img.getAttribute("src") !== source) source ? img.setAttribute("src", source) : img.removeAttribute("src");
  const words = picture.aside ? picture.reason.replaceAll("_", " ") : marks(picture);
  if (name.textContent !== picture.name) name.textContent = picture.name;
  if (told.textContent !== words) told.textContent = words;
  told.classList.toggle("warn", !picture.aside && (picture.flags.length > 0 || Boolean(picture.broken)));
}

/** What stands below a picture, in a word or two. */
function marks(picture) {
  if (picture.broken) return picture.broken;
  const words = [...picture.flags.map((flag) => (flag.rival ? `like ${flag.rival}` : flag.rule)), ...picture.findings.map((f) => f.split(" (")[0])];
  return [...new Set(words), picture.crop ? "cropped" : ""].filter(Boolean).join(", ");
}

function counts() {
  const pictures = [...state.pictures.values()];
  const rows = Object.entries(FILTERS).map(([key, [words, fits]]) => [key, `${words} ${pictures.filter(fits).length}`]);
  tabs(find("#filters"), rows, state.filter, (key) => {
    state.filter = key;
    history.replaceState(null, "", `#${key}`);
    state.chosen.clear();
    draw();
    grid.focus();
  });
}

let marked = new Set();

/** The current cell is the one that Tab reaches; what is selected says so. */
function mark(focus = false) {
  const now = new Set([state.current, ...state.chosen]);
  for (const key of new Set([...marked, ...now])) {
    const button = cells.get(key)?.firstChild;
    if (!button) continue;
    button.tabIndex = key === state.current ? 0 : -1;
    button.classList.toggle("current", key === state.current);
    button.setAttribute("aria-pressed", String(state.chosen.has(key)));
  }
  marked = now;
  const bar = find("#chosen");
  bar.hidden = state.chosen.size === 0;
  find("span", bar).textContent = `${state.chosen.size} selected`;
  const out = state.filter === "aside";
  for (const [name, shown] of [["aside", !out], ["keep", !out], ["back", out]]) find(`[data-act=${name}]`, bar).hidden = !shown;
  const button = cells.get(state.current)?.firstChild;
  if (focus && button && !view.isOpen) {
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "nearest" });
  }
}

// ---------------------------------------------------------------- moving and selecting

function columns() {
  const tops = [...grid.children].map((cell) => cell.offsetTop);
  const next = tops.findIndex((top) => top !== tops[0]);
  return next < 0 ? tops.length : next;
}

function go(steps, extend = false) {
  const at = drawn.indexOf(state.current);
  const to = Math.max(0, Math.min(drawn.length - 1, at + steps));
  if (extend) for (const key of drawn.slice(Math.min(at, to), Math.max(at, to) + 1)) state.chosen.add(key);
  state.current = drawn[to] || "";
  mark(true);
  if (view.isOpen) view.show(picture(), drawn.length, to);
}

function choose(key, range = false) {
  const [from, to] = [drawn.indexOf(state.anchor), drawn.indexOf(key)];
  if (range && from >= 0) for (const other of drawn.slice(Math.min(from, to), Math.max(from, to) + 1)) state.chosen.add(other);
  else if (state.chosen.has(key)) state.chosen.delete(key);
  else state.chosen.add(key);
  state.anchor = key;
  mark();
}

grid.addEventListener("click", (event) => {
  const button = event.target.closest(".cell");
  if (!button) return;
  state.current = button.dataset.key;
  if (event.shiftKey || event.ctrlKey || event.metaKey) choose(button.dataset.key, event.shiftKey);
  else { mark(); openView(); }
});

// ---------------------------------------------------------------- acts

/** What an act is about: the selection, or the current picture. */
function about() {
  const chosen = view.isOpen ? [] : drawn.filter((key) => state.chosen.has(key));
  return (chosen.length ? chosen : [state.current]).map((key) => picture(key)).filter(Boolean);
}

const asShown = (rows) => rows.map(({ name, sha, text }) => ({ name, sha, text }));

let acted = false; // what this page did itself, it knows before the events tell it

async function act(path, rows, body, whole = false) {
  if (!rows.length) return;
  acted = true;
  await attempt(async () => {
    try {
      const { said, set, names } = await post(`${here}/${path}`, body);
      say(said);
      state.chosen.clear();
      take(set, names || (whole ? null : rows.map((p) => p.name)));
      mark(true);
    } catch (error) {
      if (error.told?.set) take(error.told.set, error.told.names);
      throw error;
    }
  });
}

const acts = {
  aside: () => {
    const rows = about().filter((p) => !p.aside);
    return act("aside", rows, { pictures: asShown(rows), reason: reasonFor(rows) });
  },
  keep: () => {
    const rows = about().filter((p) => !p.aside && p.flags.length);
    if (!rows.length) say("nothing proposes to take it out");
    return act("keep", rows, { pictures: asShown(rows) });
  },
  back: () => {
    const rows = about().filter((p) => p.aside);
    return act("back", rows, { pictures: asShown(rows) }, true);
  },
  undo: () => act("undo", [null], {}),
  clear: () => { state.chosen.clear(); mark(true); },
  crop: () => { if (openView()) view.crop(); },
  words: () => { location.href = `${here}/captions#${encodeURIComponent(state.current)}`; },
  reason: () => { reason.focus(); reason.select(); },
};

/** Where dedupe or filter proposed it, their rule; else what the person wrote. */
function reasonFor(rows) {
  const flag = rows.length === 1 && rows[0].flags[0];
  return flag ? (flag.rival ? "duplicate" : flag.rule.split(":")[0]) : reason.value.trim() || "unwanted";
}

for (const button of all("[data-act]")) button.addEventListener("click", () => acts[button.dataset.act]());
reason.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "Escape") { event.preventDefault(); mark(true); }
});

// ---------------------------------------------------------------- the full view

const view = new View({
  picture: (name) => picture(name),
  go,
  cropped: (picture, box) => act("crop", [picture], { name: picture.name, sha: picture.sha, was: picture.crop, box }),
  closed: () => mark(true),
});

function openView() {
  if (!picture()) return false;
  view.show(picture(), drawn.length, drawn.indexOf(state.current));
  return true;
}

keys(
  [
    [["ArrowLeft", "ArrowRight"], "to the one before or after; with Shift select", (e) => go(e.key === "ArrowLeft" ? -1 : 1, e.shiftKey)],
    [["ArrowUp", "ArrowDown"], "up or down a row", (e) => go((e.key === "ArrowUp" ? -1 : 1) * (view.isOpen ? 1 : columns()), e.shiftKey)],
    [["Home", "End"], "to the first, to the last", (e) => go(e.key === "Home" ? -1e9 : 1e9, e.shiftKey)],
    ["Enter", "see it in full; Esc leaves", () => (view.isOpen ? false : openView()), ".cell"],
    [" ", "select", () => (view.isOpen ? go(1) : choose(state.current)), ".cell"],
    [["x", "Delete"], "set aside", acts.aside],
    ["k", "keep: refuse what is proposed", acts.keep],
    ["b", "put back into the set", acts.back],
    ["u", "undo the last act", acts.undo],
    ["c", "crop by hand", acts.crop],
    ["t", "show what training cuts off, or not", () => view.toggle()],
    ["e", "mend the caption", acts.words],
    ["r", "write another reason for setting aside", acts.reason],
  ],
  () => !view.cropping && (!isOpen() || view.isOpen),
);

// ---------------------------------------------------------------- begin, and stay up to date

let asOf; // the files as this page has read them

const reload = () => attempt(async () => {
  const told = await get(`${here}/set`);
  asOf = told.as_of;
  take(told);
});
const catchUp = later(reload, 150);

function checked({ rows }) {
  const box = find("#check");
  const told = rows.filter((row) => row.verdict !== "ok");
  box.hidden = told.length === 0;
  find("summary", box).textContent = `check: ${told.length} worth a look`;
  find("ul", box).replaceChildren(...told.map((row) =>
    el("li", { class: row.verdict === "problem" ? "warn" : "" }, el("b", {}, row.what), ` ${row.value}`, row.wanted ? el("span", { class: "soft" }, ` should be: ${row.wanted}`) : "")));
  catchUp();
}

await reload();
mark(true);
listen(`${here}/events`, {
  since: (now) => { if (now !== asOf) catchUp(); }, // changed before anybody watched
  set: ({ others }) => {
    if (others.length) say(`changed on disk: ${others[0].split("/").pop()}${others.length > 1 ? ` and ${others.length - 1} more` : ""}`);
    if (others.length || !acted) catchUp();
    acted = false;
  },
  check: checked,
});
