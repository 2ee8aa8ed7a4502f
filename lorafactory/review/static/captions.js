// Captions, one a row: mended in place, flagged phrases marked, saved as typed; a text that changed on disk is shown.
import { all, attempt, el, find, get, here, isOpen, keys, later, listen, open, post, say, tabs } from "./lib.js";
import { Row } from "./row.js";

const FILTERS = {
  all: ["all", () => true],
  flagged: ["flagged", (p) => p.phrases.length > 0],
  bare: ["without", (p) => !p.caption],
  long: ["too long", (p) => rows.get(p.name)?.beyond],
};
const list = find("#rows");
const rows = new Map();
const state = { pictures: new Map(), filter: "all", search: "", tag: "", limit: 75, current: decodeURIComponent(location.hash.slice(1)), chosen: new Set() };

// ---------------------------------------------------------------- what there is

function take(told, names = null) {
  if (names === null) state.pictures.clear();
  else for (const name of names) state.pictures.delete(name);
  state.limit = told.limit;
  for (const picture of told.pictures) state.pictures.set(picture.name, picture);
  draw();
  count(told.pictures);
}

const order = new Intl.Collator(undefined, { numeric: true });

function shown() {
  const sought = state.search.toLowerCase();
  return [...state.pictures.values()]
    .filter((p) => FILTERS[state.filter][1](p) && (!sought || `${p.name} ${p.caption || ""}`.toLowerCase().includes(sought)) && (!state.tag || tagsOf(p).includes(state.tag)))
    .sort((a, b) => order.compare(a.name, b.name));
}

/** What stands between commas, the prefix left out. */
const tagsOf = (p) => (p.caption || "").slice(p.prefix.length).split(/[,\n]/).map((tag) => tag.trim().toLowerCase()).filter(Boolean);

function draw() {
  const told = shown();
  drawn = told.map((p) => p.name);
  for (const [name, row] of rows) if (!state.pictures.has(name)) { row.element.remove(); rows.delete(name); }
  const wanted = new Set(drawn);
  for (const [name, row] of rows) if (!wanted.has(name)) row.element.remove();
  let last = null;
  for (const picture of told) {
    if (!rows.has(picture.name)) rows.set(picture.name, new Row(calls));
    const row = rows.get(picture.name);
    row.show(picture, state.limit);
    const next = last ? last.nextSibling : list.firstChild;
    if (row.element !== next) list.insertBefore(row.element, next);
    last = row.element;
  }
  if (!wanted.has(state.current)) state.current = drawn[0] || "";
  find("#empty").hidden = told.length > 0;
  find("#empty").textContent = "no caption here";
  heads();
  mark();
}

let drawn = [];

function heads() {
  const pictures = [...state.pictures.values()];
  tabs(find("#filters"), Object.entries(FILTERS).map(([key, [words, fits]]) => [key, `${words} ${pictures.filter(fits).length}`]), state.filter, (key) => {
    state.filter = key;
    draw();
  });
  find("#count").textContent = state.chosen.size ? `${state.chosen.size} selected` : drawn.length < pictures.length ? `${drawn.length} shown` : "";
  const counts = new Map();
  for (const p of selection()) for (const tag of new Set(tagsOf(p))) counts.set(tag, (counts.get(tag) || 0) + 1);
  const told = [...counts].sort((a, b) => b[1] - a[1] || order.compare(a[0], b[0])).slice(0, 200);
  find("#tagging summary").textContent = `tags: ${counts.size}`;
  find("#tags").replaceChildren(...told.map(([tag, n]) =>
    el("li", {},
      el("button", { type: "button", "aria-pressed": String(tag === state.tag), onclick: () => { state.tag = state.tag === tag ? "" : tag; draw(); } }, el("bdi", {}, tag), el("span", { class: "soft" }, ` ${n}`)),
      el("button", { type: "button", class: "out", "aria-label": `take ${tag} out`, onclick: () => preview(tag, "", true, false) }, "×"))));
}

/** What find and replace, and the tags, are about: what is selected, else all that is shown. */
function selection() {
  const names = state.chosen.size ? drawn.filter((name) => state.chosen.has(name)) : drawn;
  return names.map((name) => state.pictures.get(name));
}

/** Tokens are counted by the base's own tokenizer, which only the server has. */
const count = (pictures) => attempt(async () => {
  const told = pictures.filter((p) => !p.garbled);
  if (!told.length) return;
  const { counts } = await post(`${here}/count`, { texts: told.map((p) => p.caption || "") });
  told.forEach((p, i) => rows.get(p.name)?.counted(counts[i]));
  heads();
});

// ---------------------------------------------------------------- the current row

function mark(focus = false) {
  for (const [name, row] of rows) row.mark(name === state.current, state.chosen.has(name));
  const row = rows.get(state.current);
  const beside = find("#beside");
  const picture = state.pictures.get(state.current);
  beside.hidden = !picture || Boolean(picture.broken);
  const source = picture ? `${here}/view/${picture.sha}` : "";
  if (!beside.hidden && beside.getAttribute("src") !== source) beside.src = source;
  if (picture) beside.alt = picture.name;
  if (focus && row) {
    row.element.focus({ preventScroll: true });
    row.element.scrollIntoView({ block: "nearest" });
  }
}

function go(steps) {
  const to = Math.max(0, Math.min(drawn.length - 1, drawn.indexOf(state.current) + steps));
  state.current = drawn[to] || "";
  mark(true);
}

const calls = {
  here: (name) => { state.current = name; mark(); },
  choose: (name) => { state.chosen.has(name) ? state.chosen.delete(name) : state.chosen.add(name); draw(); },
  /** Save a caption as typed; Refused with what is on disk where that is another by now. */
  save: (picture, caption) => act("write", { captions: [{ name: picture.name, text: picture.text, caption }] }, [picture.name]),
  without: (picture, phrase) => act("without", { name: picture.name, text: picture.text, phrase }, [picture.name]),
  next: (name) => {
    go(1);
    if (state.current !== name) rows.get(state.current)?.edit();
  },
  leave: () => mark(true),
  count: async (text) => (await post(`${here}/count`, { texts: [text] })).counts[0],
};

let acted = false; // what this page did itself, it knows before the events tell it

/** Do it and take over how the captions are now. A conflict goes to the row, which shows both texts. */
async function act(path, body, names) {
  acted = true;
  try {
    const { said, set } = await post(`${here}/${path}`, body);
    say(said);
    take(set, names);
    return true;
  } catch (error) {
    say(error.message, true);
    for (const name of error.told?.names || []) {
      const now = error.told.set.pictures.find((p) => p.name === name);
      if (now) rows.get(name)?.conflict(now);
    }
    return false;
  }
}

// ---------------------------------------------------------------- find and replace

async function preview(sought, put, words, same) {
  const dialog = find("#preview");
  await attempt(async () => {
    const { changes } = await post(`${here}/replace`, { names: selection().map((p) => p.name), find: sought, put, words, case: same });
    find("h2", dialog).textContent = changes.length ? `${changes.length} of ${selection().length} captions change` : "nothing is found";
    find("ul", dialog).replaceChildren(...changes.map(({ name, before, after }) =>
      el("li", {}, el("b", {}, name), el("del", { dir: "auto" }, before), el("ins", { dir: "auto" }, after))));
    const button = find("[data-do]", dialog);
    button.hidden = !changes.length;
    button.onclick = () => {
      dialog.close();
      const captions = changes.map(({ name, text, after }) => ({ name, text, caption: after }));
      const said = put ? `"${sought}" replaced by "${put}" in ${changes.length} captions` : `"${sought}" out of ${changes.length} captions`;
      act("write", { captions, said: said.slice(0, 200) }, captions.map((c) => c.name));
    };
    open(dialog);
  });
}

find("#replace").addEventListener("submit", (event) => {
  event.preventDefault();
  preview(find("#find").value, find("#put").value, find("#whole-words").checked, find("#case").checked);
});
find("#search").addEventListener("input", later((event) => { state.search = find("#search").value; draw(); }, 120));
find("#tools").addEventListener("submit", (event) => event.preventDefault());

// ---------------------------------------------------------------- earlier texts

const history = () => attempt(async () => {
  const picture = state.pictures.get(state.current);
  if (!picture) return;
  const { texts } = await get(`${here}/history?name=${encodeURIComponent(picture.name)}`);
  const dialog = find("#history");
  find("ul", dialog).replaceChildren(...texts.map(({ text, at, by }) =>
    el("li", {}, el("b", {}, `${new Date(at).toLocaleString()}, ${by}`), el("span", { dir: "auto" }, text),
      text === picture.caption ? el("span", { class: "soft" }, "as it is now") : el("button", { onclick: () => { dialog.close(); calls.save(picture, text); } }, "take this"))));
  if (!texts.length) find("ul", dialog).replaceChildren(el("li", { class: "soft" }, "the record has none"));
  open(dialog);
});

const undo = () => attempt(async () => {
  acted = true;
  const { said, set, names } = await post(`${here}/undo`, {});
  say(said);
  take(set, names);
  mark(true);
});

const phrase = (event) => {
  const told = state.pictures.get(state.current)?.phrases[Number(event.key) - 1];
  if (told) calls.without(state.pictures.get(state.current), told.phrase);
};

keys(
  [
    [["ArrowUp", "k"], "to the row above", () => go(-1)],
    [["ArrowDown", "j"], "to the row below", () => go(1)],
    ["Enter", "mend the caption; Enter saves it and goes on, Shift+Enter is a new line, Esc leaves it as it was", () => rows.get(state.current)?.edit()],
    [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "take that flagged phrase out", phrase],
    [" ", "select", () => calls.choose(state.current)],
    ["/", "find in captions", () => find("#search").focus()],
    ["f", "find and replace", () => { find("#replacing").open = true; find("#find").focus(); }],
    ["h", "earlier texts", history],
    ["i", "see the picture among the others", () => { location.href = `${here}/images#${encodeURIComponent(state.current)}`; }],
    ["u", "undo the last act", undo],
  ],
  () => !isOpen(),
);

// ---------------------------------------------------------------- begin, and stay up to date

let asOf; // the files as this page has read them

const reload = () => attempt(async () => {
  const told = await get(`${here}/set`);
  asOf = told.as_of;
  for (const picture of told.pictures) rows.get(picture.name)?.isEdited && picture.text !== rows.get(picture.name).picture.text && rows.get(picture.name).conflict(picture);
  take(told);
});

await reload();
mark(true);
const catchUp = later(reload, 150);
listen(`${here}/events`, {
  since: (now) => { if (now !== asOf) catchUp(); }, // changed before anybody watched
  set: ({ others }) => {
    if (others.length || !acted) catchUp();
    acted = false;
  },
});
