// Two pictures from the same noise, and nothing that says which saves they are; the server alone knows, until the end.
import { all, attempt, el, find, here, open, post, say } from "./lib.js";

export class Blind {
  constructor(calls) {
    this.calls = calls;
    this.dialog = find("#blind");
    for (const button of all("[data-answer]", this.dialog)) button.addEventListener("click", () => this.answer(button.dataset.answer));
    for (const button of all("[data-blind]", this.dialog)) button.addEventListener("click", () => this.ask(button.dataset.blind));
    this.dialog.addEventListener("cancel", (event) => { event.preventDefault(); this.ask("stop"); });
    addEventListener("keydown", (event) => this.key(event));
    find("[data-pick]").addEventListener("click", () => this.pick());
  }

  begin() {
    return attempt(async () => { this.take(await post(`${here}/blind`, { id: "" })); });
  }

  take(told) {
    this.told = told;
    open(this.dialog);
    this.dialog.focus();
    const { pair, number, of } = told;
    find("#far").textContent = pair ? `${number + 1} of ${of}` : `${of} of ${of}`;
    for (const [id, shown] of [["#sides", pair], ["#answers", pair], ["#over", !pair]]) find(id).hidden = !shown;
    find("#asked").textContent = told.prompt || "";
    if (pair) all("#sides img").forEach((img, i) => { img.src = `${here}/blind/${told.id}/${pair[i]}`; });
    else find("[data-blind=rank]").focus();
  }

  key(event) {
    if (!this.dialog.open || !this.told?.pair || event.ctrlKey || event.metaKey || event.altKey) return;
    const answer = { ArrowLeft: "left", ArrowRight: "right", " ": "same", "=": "same" }[event.key];
    if (!answer || event.repeat) return; // a key held down is no further opinion
    event.preventDefault();
    this.answer(answer);
  }

  async answer(answer) {
    const { id, number, pair } = this.told;
    if (!pair || this.asking) return;
    this.asking = true;
    await attempt(async () => { this.take(await post(`${here}/blind`, { id, number, answer })); });
    this.asking = false;
  }

  /** More pairs, or an end: with the ranking, if anything was chosen. */
  ask(what) {
    return attempt(async () => {
      if (what === "more") { this.take(await post(`${here}/blind`, { id: this.told.id, answer: "more" })); return; }
      this.dialog.close();
      if (!this.told.number) { say("nothing was chosen"); return; }
      const { said, saves } = await post(`${here}/blind`, { id: this.told.id, answer: "end" });
      say(said);
      this.calls.saves(saves);
      this.ranked(saves.blind, saves.verdict);
    });
  }

  ranked({ ranking, choices }, verdict) {
    const dialog = find("#ranked");
    const best = Math.max(...ranking.map((row) => Math.exp(row.strength)));
    find("p", dialog).textContent = `By ${choices.length} choices; the thin line is how much of it may be chance. ${verdict.verdict ? `The verdict says ${verdict.verdict.pick === ranking[0].save ? "the same" : "another"}.` : ""}`;
    find("ol", dialog).replaceChildren(...ranking.map((row) => {
      const bar = el("span", { class: "strength" }, el("i"), el("em"));
      const share = (x) => `${(100 * Math.exp(x)) / best}%`;
      bar.firstChild.style.width = share(row.strength);
      bar.lastChild.style.left = share(row.strength - row.error);
      bar.lastChild.style.width = `${(100 * (Math.exp(row.strength + row.error) - Math.exp(row.strength - row.error))) / best}%`;
      return el("li", {}, el("b", {}, row.label), el("span", { class: "soft" }, ` preferred ${row.wins} of ${row.of} times`), bar);
    }));
    this.first = ranking[0].save;
    open(dialog);
    find("[data-pick]").focus();
  }

  pick() {
    find("#ranked").close();
    return this.calls.choose(this.first);
  }
}

addEventListener("keydown", (event) => {
  if (event.key !== "p" || !find("#ranked").open) return;
  event.stopImmediatePropagation(); // the page behind has a `p` of its own
  find("[data-pick]").click();
});
