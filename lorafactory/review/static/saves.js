// The saves side by side, from the same noise: which one the verdict chose, which one a person does, also blind.
import { Blind } from "./blind.js";
import { all, attempt, el, find, get, here, isOpen, keys, open, percent, post, say } from "./lib.js";

const table = find("#cells");
const state = { told: { columns: [] }, current: 0, spot: 0 };

function take(told) {
  state.told = told;
  const { columns } = told;
  find("#empty").hidden = columns.length > 0;
  find("#verdict").hidden = columns.length === 0;
  if (!columns.length) {
    find("#empty code").textContent = told.next;
    return;
  }
  const chosen = columns.findIndex((c) => c.chosen);
  if (!state.current) state.current = chosen > 0 ? chosen : 1;
  headline();
  head();
  body();
  mark();
}

function headline() {
  const { verdict, blind } = state.told;
  const [title, text, blindly] = [find("#verdict h2"), find("#verdict p"), find("#blindly")];
  title.textContent = verdict.pick ? `${verdict.label}${verdict.by_hand ? ", chosen by you" : verdict.passed ? "" : ", the best of saves that do not pass"}` : "No save is chosen yet";
  title.className = verdict.pick ? (verdict.passed ? "good" : "warn") : "";
  text.textContent = verdict.reason || "";
  blindly.textContent = blind.words ? `Blind, you preferred ${blind.words}.` : "";
}

const SCORES = { likeness: ["likeness", (x) => x.toFixed(3)], fit: ["prompt fit", (x) => x.toFixed(3)], diversity: ["diversity", (x) => x.toFixed(3)], copies: ["copies", percent] };

function head() {
  const cells = state.told.columns.map((c, i) =>
    el("th", { scope: "col", "data-column": i },
      el("button", { type: "button", class: "column", onclick: () => { state.current = i || 1; mark(); } }, c.label),
      ...Object.entries(SCORES).filter(([key]) => c.scores[key] !== null && c.scores[key] !== undefined).map(([key, [words, shown]]) => el("span", { class: "soft" }, `${words} ${shown(c.scores[key])}`)),
      c.chosen ? el("span", { class: "good" }, "chosen") : c.rejected ? el("span", { class: "warn", title: c.rejected }, "rejected: ", c.rejected) : ""));
  table.tHead.rows[0].replaceChildren(...cells);
}

function body() {
  const { prompts, seeds, columns } = state.told;
  const at = columns.map((c) => new Map(c.cells.map((cell) => [`${cell.prompt} ${cell.seed}`, cell])));
  const rows = [];
  prompts.forEach((prompt, p) => {
    rows.push(el("tr", { class: "prompt" }, el("th", { colspan: columns.length, scope: "rowgroup" }, el("div", { dir: "auto" }, prompt.text))));
    for (const seed of seeds) {
      const cells = columns.map((c, i) => [c, i, at[i].get(`${p} ${seed}`)]);
      if (cells.some(([, , cell]) => cell?.file))
        rows.push(el("tr", {}, ...cells.map(([c, i, cell]) => el("td", { "data-column": i },
          cell?.file ? el("button", { type: "button", class: "shot", onclick: () => enlarge(c, cell, prompt) }, el("img", { src: `${here}/cell/${cell.file.split("/").map(encodeURIComponent).join("/")}`, alt: `${c.label}, seed ${seed}`, loading: "lazy", decoding: "async" })) : ""))));
    }
  });
  table.tBodies[0].replaceChildren(...rows);
}

function mark() {
  for (const cell of all("[data-column]", table)) cell.classList.toggle("current", Number(cell.dataset.column) === state.current);
  find(`th[data-column="${state.current}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function enlarge(column, cell, prompt) {
  const dialog = find("#view");
  find("h2", dialog).textContent = `${column.label}, seed ${cell.seed}`;
  find("img", dialog).src = `${here}/cell/${cell.file.split("/").map(encodeURIComponent).join("/")}`;
  const [words, near] = all(".foot p", dialog);
  words.textContent = prompt.text;
  near.textContent = cell.near ? `nearest training picture: ${cell.near}` : "";
  near.classList.toggle("warn", cell.copy);
  open(dialog);
}

// ---------------------------------------------------------------- acts

const choose = (column = state.told.columns[state.current]) => attempt(async () => {
  if (!column?.save) return;
  say(`choosing ${column.label} …`);
  const { said, saves } = await post(`${here}/choose`, { save: column.save, sha256: column.sha256 });
  say(said);
  take(saves);
});

const undo = () => attempt(async () => {
  const { said } = await post(`${here}/undo`, {});
  say(said);
  state.current = 0;
  take(await get(`${here}/comparison`));
});

const blind = new Blind({
  saves: take,
  choose: (save) => choose(state.told.columns.find((c) => c.save === save)),
});

find("#begin").addEventListener("click", () => blind.begin());
find("#choose").addEventListener("click", () => choose());
find("#undo").addEventListener("click", undo);

keys(
  [
    [["ArrowLeft", "ArrowRight"], "to the save before or after", (event) => {
      const last = state.told.columns.length - 1;
      state.current = Math.max(1, Math.min(last, state.current + (event.key === "ArrowLeft" ? -1 : 1)));
      mark();
    }],
    ["p", "choose this save", () => choose()],
    ["b", "choose blind: which is better, without knowing which they are", () => blind.begin()],
    ["u", "undo the last act", undo],
  ],
  () => !isOpen(),
);

await attempt(async () => take(await get(`${here}/comparison`)));
