// One caption: as it is read, with its prefix apart and flagged phrases marked; and its editor, in the same place.
import { el, here, later } from "./lib.js";

export class Row {
  constructor(calls) {
    this.calls = calls;
    this.box = el("input", { type: "checkbox", onchange: () => calls.choose(this.picture.name) });
    this.img = el("img", { alt: "", loading: "lazy", decoding: "async", onclick: () => this.edit() });
    this.body = el("div", { class: "body", onclick: (event) => { if (!event.target.closest("button, textarea")) this.edit(); } });
    this.name = el("b");
    this.tokens = el("span", { class: "tokens" });
    this.phrases = el("span", { class: "phrases" });
    this.other = el("div", { class: "conflict", role: "alert", hidden: true });
    this.element = el("li", { tabindex: "-1", onfocusin: () => calls.here(this.picture.name) },
      el("label", { class: "check" }, this.box), this.img,
      el("div", { class: "words" }, this.body, this.other, el("p", { class: "meta" }, this.name, this.tokens, this.phrases)));
  }

  get isEdited() { return Boolean(this.area && this.area.value !== this.shown); }

  show(picture, limit) {
    const same = this.picture && this.picture.text === picture.text && this.picture.sha === picture.sha && JSON.stringify(this.picture.phrases) === JSON.stringify(picture.phrases);
    if (this.area && (same || this.isEdited)) return; // being typed in
    this.picture = picture;
    this.limit = limit;
    if (same && !this.area) return;
    const source = picture.broken ? "" : `${here}/thumb/${picture.sha}`;
    if (this.img.getAttribute("src") !== source) source ? this.img.setAttribute("src", source) : this.img.removeAttribute("src");
    this.box.setAttribute("aria-label", `select ${picture.name}`);
    this.element.setAttribute("aria-label", picture.name);
    this.name.textContent = picture.name;
    this.other.hidden = true;
    this.read();
  }

  /** The caption as text, with marks. */
  read() {
    const { caption, prefix, phrases, garbled } = this.picture;
    this.area = null;
    if (this.last) this.counts(this.last); // of what is saved, and not of what was typed
    const rest = (caption || "").slice(prefix.length);
    const parts = [prefix ? el("span", { class: "prefix", title: "the prefix" }, prefix) : ""];
    let at = 0;
    phrases.forEach((told, i) => {
      parts.push(rest.slice(at, told.start), el("mark", { title: told.why }, rest.slice(told.start, told.end), el("sup", {}, String(i + 1))));
      at = told.end;
    });
    parts.push(rest.slice(at));
    if (garbled) parts.push(el("span", { class: "warn" }, " not UTF-8 text: save it as UTF-8 first"));
    else if (!caption) parts.push(el("span", { class: "soft" }, caption === null ? "no caption" : "empty"));
    this.body.replaceChildren(el("p", { dir: "auto" }, ...parts.filter((part) => part !== "")));
    this.phrases.replaceChildren(...phrases.map((told, i) =>
      el("button", { type: "button", title: told.why, onclick: () => this.calls.without(this.picture, told.phrase) },
        el("kbd", {}, String(i + 1)), ` ${told.phrase} `, el("span", { class: "soft" }, score(told)), " ×")));
  }

  // -------------------------------------------------------------- the editor

  edit() {
    if (this.area || this.picture.garbled) return;
    const { caption, prefix } = this.picture;
    this.prefix = prefix;
    this.shown = (caption || "").slice(prefix.length);
    this.head = prefix ? el("span", { class: "prefix", title: "the prefix; Backspace at the beginning takes it into the text" }, prefix) : null;
    this.area = el("textarea", { dir: "auto", rows: "1", spellcheck: "true", "aria-label": `caption of ${this.picture.name}` });
    this.area.value = this.shown;
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("blur", () => this.save());
    this.body.replaceChildren(el("div", { class: "editor" }, ...[this.head, this.area].filter(Boolean)));
    this.fit();
    this.area.focus();
    this.area.setSelectionRange(this.area.value.length, this.area.value.length);
  }

  key(event) {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.save().then((done) => done && this.calls.next(this.picture.name));
    } else if (event.key === "Escape") {
      event.preventDefault();
      this.other.hidden = true;
      this.read();
      this.calls.leave();
    } else if (event.key === "Backspace" && this.prefix && this.area.selectionEnd === 0) {
      event.preventDefault(); // the prefix is text like any other, once somebody wants it so
      this.area.value = this.prefix + this.area.value;
      this.area.setSelectionRange(this.prefix.length, this.prefix.length);
      this.prefix = "";
      this.head.remove();
      this.typed();
    }
    event.stopPropagation();
  }

  get text() { return (this.prefix + this.area.value).trim(); }

  typed() {
    this.fit();
    this.recount();
  }

  recount = later(async () => {
    if (!this.area) return;
    const told = await this.calls.count(this.text);
    if (this.area) this.counted(told, true);
  }, 200);

  fit() {
    this.area.style.height = "auto";
    this.area.style.height = `${this.area.scrollHeight + 2}px`;
  }

  /** Save what was typed; true if it is saved, or nothing was. The editor stays where it could not be. */
  async save() {
    if (!this.area || this.saving) return true;
    if (!this.other.hidden) return false;
    const text = this.text;
    if (text === (this.picture.caption || "").trim()) {
      this.read();
      return true;
    }
    this.saving = true;
    this.shown = this.area.value;
    const done = await this.calls.save(this.picture, text);
    this.saving = false;
    if (!done) this.shown = null;
    return done;
  }

  /** The file is another by now: both texts, and the person says which stays. Nothing was overwritten. */
  conflict(now) {
    const mine = this.area ? this.text : null;
    this.other.hidden = false;
    this.other.replaceChildren(
      el("p", {}, "Changed on disk since it was shown. There it says:"), el("p", { dir: "auto", class: "theirs" }, now.caption ?? "(no caption)"),
      el("p", { class: "ways" },
        el("button", { type: "button", "data-take": true, onclick: () => { this.area = null; this.picture = null; this.show(now, this.limit); this.calls.leave(); } }, "take that"),
        mine === null ? "" : el("button", { type: "button", "data-mine": true, onclick: () => { this.other.hidden = true; this.picture = now; this.shown = null; this.save(); } }, "save mine over it")));
  }

  // -------------------------------------------------------------- beside it

  counted(told, typing = false) {
    if (!typing) this.last = told;
    if (typing || !this.area) this.counts(told);
  }

  counts({ tokens, beyond }) {
    this.beyond = beyond;
    this.tokens.textContent = `${tokens} of ${this.limit} tokens${beyond ? `: not read: ${beyond}` : ""}`;
    this.tokens.classList.toggle("warn", Boolean(beyond));
  }

  mark(current, chosen) {
    this.element.classList.toggle("current", current);
    this.element.tabIndex = current ? 0 : -1;
    this.box.checked = chosen;
  }
}

const score = ({ rule, score: found }) => (rule === "repeated phrase" ? `in ${Math.round(100 * found)} % of all` : `percentile ${Math.round(found)}`);
