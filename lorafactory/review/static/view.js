// One picture in full: what training sees of it, what speaks against it, its twin beside it; and the crop by hand.
import { all, el, find, here, later, open, percent, placed, post } from "./lib.js";
import { Cropper } from "./crop.js";

export class View {
  constructor(calls) {
    this.calls = calls;
    this.dialog = find("#view");
    this.shaded = true;
    this.cropper = new Cropper(find("#frame"), find("#cropper"), () => this.refit(), (kept) => this.leave(kept));
    this.refit = later(() => this.fitted(), 120);
    this.dialog.addEventListener("close", () => { this.stop(); this.calls.closed(); });
    this.dialog.addEventListener("cancel", (event) => { if (this.cropping) { event.preventDefault(); this.leave(false); } });
    for (const button of all("[data-go]", this.dialog)) button.addEventListener("click", () => this.calls.go(Number(button.dataset.go)));
    for (const button of all("[data-crop]", this.dialog)) button.addEventListener("click", () => this.ended(button.dataset.crop));
    find("#shape").addEventListener("change", (event) => this.cropper.shape(Number(event.target.value)));
  }

  get isOpen() { return this.dialog.open; }
  get cropping() { return !find("#cropper").hidden; }

  /** Show a picture; nothing left to show closes the view. */
  show(picture, of, at) {
    if (!picture) { this.dialog.close(); return; }
    if (this.cropping && (picture.name !== this.picture.name || picture.sha !== this.picture.sha)) this.stop();
    this.picture = picture;
    if (!this.isOpen) {
      open(this.dialog);
      this.dialog.focus(); // and not the first of its buttons
    }
    find("#view-name").textContent = picture.name;
    find("#view-place").textContent = `${at + 1} of ${of}`;
    framed(find("#frame"), picture);
    this.shade();
    this.twin();
    const lines = [...picture.flags.filter((flag) => flag !== this.told).map((flag) => flag.why), ...picture.findings, picture.aside ? picture.why : "", picture.broken].filter(Boolean);
    find("#flags").replaceChildren(...lines.map((line) => el("li", {}, line)));
    find("#facts").textContent = facts(picture);
    find("#words").textContent = picture.caption || "";
    for (const [act, shown] of [["aside", !picture.aside], ["keep", picture.flags.length > 0], ["back", picture.aside], ["crop", !picture.aside && picture.size], ["words", !picture.aside]])
      find(`#doing [data-act=${act}]`).hidden = !shown;
  }

  /** What falls outside of the training's cut is faded. */
  shade() {
    const { size, fit } = this.picture;
    const part = find("#part");
    part.hidden = !(this.shaded && size && fit) || this.cropping;
    if (!part.hidden) placed(part, fit.part, size);
  }

  toggle() { this.shaded = !this.shaded; if (this.isOpen) this.shade(); }

  /** The better one of two that are the same, side by side, with what says so. */
  twin() {
    const flag = this.picture.flags.find((one) => one.rival);
    const other = flag && !this.cropping && this.calls.picture(flag.rival);
    this.told = other ? flag : null;
    find("#rival").hidden = !other;
    find("#pair").hidden = !other;
    if (!other) return;
    framed(find("#rival .frame"), other);
    const unit = ["phash", "mirrored"].includes(flag.rule) ? " of 64 bits" : "";
    find("#pair").replaceChildren(
      el("span", {}, "this one, ", sized(this.picture)), el("b", {}, `${flag.rule}: ${number(flag.score)}${unit} apart, ${number(flag.threshold)} count as the same`),
      el("span", {}, el("bdi", {}, other.name), " stays, ", sized(other)));
  }

  // -------------------------------------------------------------- the crop

  crop() {
    if (this.picture.aside || !this.picture.size) return;
    find("#cropping").hidden = false;
    find("#doing").hidden = true;
    this.cropper.begin(this.picture.size, this.picture.crop);
    this.shade();
    this.twin();
    this.refit();
  }

  async fitted() {
    if (!this.cropping) return;
    const { name, sha } = this.picture;
    const told = await post(`${here}/fit`, { name, sha, box: this.cropper.box });
    find("#fitted").textContent = `${told.size[0]} × ${told.size[1]}: ${fitWords(told)}`;
  }

  ended(how) {
    if (how === "off") this.calls.cropped(this.picture, null);
    this.leave(how === "keep");
  }

  leave(kept) {
    const { box } = this.cropper;
    const picture = this.picture;
    this.stop();
    this.shade();
    this.twin();
    if (kept && String(box) !== String(picture.crop)) this.calls.cropped(picture, box);
  }

  stop() {
    this.cropper.end();
    find("#cropping").hidden = true;
    find("#doing").hidden = false;
  }
}

/** A frame of the picture's shape with the picture in it. */
function framed(frame, picture) {
  const img = find("img", frame);
  const source = picture.broken ? "" : `${here}/view/${picture.sha}`;
  if (img.getAttribute("src") !== source) source ? img.setAttribute("src", source) : img.removeAttribute("src");
  img.alt = picture.caption || picture.name;
  const [width, height] = picture.size || [1, 1];
  frame.style.setProperty("--w", width);
  frame.style.setProperty("--h", height);
}

const number = (x) => (x === null || x === undefined ? "?" : Number(x.toPrecision(3)));
const sized = ({ size }) => (size ? `${size[0]} × ${size[1]}` : "unreadable");

function facts(picture) {
  if (!picture.size) return "";
  const words = [sized(picture)];
  if (picture.crop) words.push(`cropped to ${picture.crop[2] - picture.crop[0]} × ${picture.crop[3] - picture.crop[1]}`);
  if (!picture.aside) words.push(fitWords(picture), `shown ${picture.repeats === 1 ? "once" : `${picture.repeats} times`} an epoch`);
  return words.filter(Boolean).join(" · ");
}

/** What the trainer makes of it: bucket, scale, and how much is lost. */
function fitWords({ fit, unfit }) {
  if (!fit) return unfit || "";
  const how = Math.abs(fit.scale - 1) < 0.005 ? "as it is" : fit.scale > 1 ? `enlarged ${fit.scale.toFixed(2)} times` : `shrunk to ${percent(fit.scale)}`;
  return `trained at ${fit.bucket[0]} × ${fit.bucket[1]}, ${how}${fit.lost >= 0.005 ? `, ${percent(fit.lost)} cut off` : ""}`;
}
