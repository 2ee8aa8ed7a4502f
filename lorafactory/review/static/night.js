// The queue as it stands: what is at work with its loss and samples, what needs somebody, what comes next. Live.
import { attempt, el, find, isOpen, keys, listen, percent, post, say } from "./lib.js";
import { curve } from "./curve.js";

const page = find("#night");

function take(told) {
  const parts = [
    section("At work", told.running || [], running),
    section("Waits for you", told.waiting, waiting),
    section("Went wrong", told.failed, failed),
    section("Not taken", told.quarantine, refused),
    section("Next", told.queue, queued),
    section("In the inbox", told.inbox || [], sight),
  ];
  const open = new Set([...page.querySelectorAll("details[open]")].map((box) => box.dataset.key));
  const words = [told.watching ? "" : "Nobody watches: type lora watch, and what is queued is made.", told.paused ? `Nothing begins: ${told.paused}.` : ""];
  const nothing = parts.every((part) => !part) ? el("p", { class: "soft" }, "Nothing is queued, and nothing needs you.") : "";
  page.replaceChildren(...words.filter(Boolean).map((text) => el("p", { class: "soft" }, text)), ...parts.filter(Boolean), nothing);
  for (const box of page.querySelectorAll("details")) box.open = open.has(box.dataset.key);
}

function section(title, rows, draw) {
  if (!rows.length) return null;
  return el("section", { "aria-label": title }, el("h2", {}, `${title} `, el("span", { class: "soft" }, String(rows.length))), ...rows.map(draw));
}

const place = (lora, part) => `/set/${encodeURIComponent(lora)}/${part}`;

function card(name, lora, ...rest) {
  return el("article", { "data-name": name }, el("h3", {}, lora ? el("a", { href: place(lora, "images") }, el("bdi", {}, name)) : el("bdi", {}, name)), ...rest);
}

function running(job) {
  const share = job.of ? job.done / job.of : 0;
  const bar = el("progress", { max: "1", value: String(share), "aria-label": `${job.lora}: ${job.what || "begins"}` });
  const left = job.left_s ? `, about ${Math.max(1, Math.round(job.left_s / 60))} min left of that` : "";
  const text = `${job.what || "begins"}${job.of ? ` ${job.done} of ${job.of}, ${percent(share)}` : ""}${left}`;
  const samples = job.samples.map((s) => el("figure", {}, el("img", { src: `${place(job.lora, "sample")}/${encodeURIComponent(s.file)}`, alt: s.text, loading: "lazy" }), el("figcaption", {}, `step ${s.step}`)));
  return card(job.lora, job.lora, bar, el("p", {}, text), job.loss.length > 1 ? curve(job.loss) : "", samples.length ? el("div", { class: "samples" }, ...samples) : "");
}

const ways = (...buttons) => el("p", { class: "ways" }, ...buttons);
const button = (words, answer, name) => el("button", { type: "button", "data-answer": answer, onclick: () => ask(answer, name) }, words);

const waiting = (job) => card(job.lora, job.lora, el("p", { class: "reason" }, job.reason),
  ways(el("a", { href: place(job.lora, "images") }, "look at the pictures"), button("go on", "retry", job.lora), button("give up", "give-up", job.lora)));

const failed = (job) => card(job.lora, job.lora, el("p", { class: "reason warn" }, job.reason || job.failure),
  ways(button("try again", "retry", job.lora), button("give up", "give-up", job.lora)));

function refused(drop) {
  const files = drop.files.length ? el("details", { "data-key": drop.called }, el("summary", {}, `${drop.files.length} files`), el("ul", { class: "rows" }, ...drop.files.map((file) => el("li", {}, el("bdi", {}, file))))) : "";
  return card(drop.name, null, el("p", { class: "reason warn" }, `${drop.reason} `, el("span", { class: "soft" }, drop.code)), files,
    ways(button("try again", "retry", drop.called), button("give up", "give-up", drop.called)));
}

const queued = (job, i) => card(`${i + 1}. ${job.lora}`, job.lora, el("p", { class: "soft" }, [job.reason, job.not_before ? `not before ${new Date(job.not_before).toLocaleTimeString()}` : ""].filter(Boolean).join(", ")),
  ways(button("give up", "give-up", job.lora)));

const sight = (found) => card(found.name, null, el("p", { class: "soft" }, `${found.state}: ${found.why}`));

// ---------------------------------------------------------------- answers

const ask = (answer, name) => attempt(async () => {
  const { said, night } = await post(`/night/${answer}`, { name });
  say(said);
  take(night);
});

find("#undo").addEventListener("click", () => ask("undo", ""));
keys([["u", "undo the last answer", () => ask("undo", "")]], () => !isOpen());
listen("/night/events", { night: take });
