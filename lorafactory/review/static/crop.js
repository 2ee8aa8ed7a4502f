// The rectangle of a crop over a picture, by pointer and by keyboard, in whole pixels of the picture.
import { placed } from "./lib.js";

const LEAST = 16;

export class Cropper {
  constructor(frame, element, moved, ended) {
    Object.assign(this, { frame, element, moved, ended, ratio: 0 });
    frame.addEventListener("pointerdown", (event) => this.grab(event));
    element.addEventListener("keydown", (event) => this.key(event));
  }

  begin(size, box) {
    this.size = size;
    this.box = box ? [...box] : [0, 0, ...size];
    this.element.hidden = false;
    this.draw();
    this.element.focus();
  }

  end() {
    this.element.hidden = true;
  }

  draw() {
    placed(this.element, this.box, this.size);
    const [left, top, right, bottom] = this.box;
    this.element.setAttribute("aria-valuetext", `${right - left} by ${bottom - top} from ${left}, ${top}`);
    this.moved();
  }

  /** Hold the rectangle to a shape (width by height; 0 is free): the largest about its middle. */
  shape(ratio) {
    this.ratio = ratio;
    if (ratio) {
      const [left, top, right, bottom] = this.box;
      const width = Math.min(right - left, (bottom - top) * ratio);
      this.set((left + right - width) / 2, (top + bottom - width / ratio) / 2, width, width / ratio);
    }
    this.element.focus();
  }

  /** Put the rectangle within the picture, in whole pixels. */
  set(left, top, width, height) {
    const [w, h] = this.size;
    width = Math.round(Math.max(LEAST, Math.min(width, w)));
    height = Math.round(Math.max(LEAST, Math.min(height, h)));
    left = Math.round(Math.max(0, Math.min(left, w - width)));
    top = Math.round(Math.max(0, Math.min(top, h - height)));
    this.box = [left, top, left + width, top + height];
    this.draw();
  }

  // -------------------------------------------------------------- pointer

  at(event) {
    const area = this.frame.getBoundingClientRect();
    const within = (x, least, most) => Math.max(0, Math.min(1, (x - least) / (most - least)));
    return [within(event.clientX, area.left, area.right) * this.size[0], within(event.clientY, area.top, area.bottom) * this.size[1]];
  }

  grab(event) {
    if (this.element.hidden || event.button) return;
    event.preventDefault();
    const [edge, start, box] = [event.target.dataset.edge, this.at(event), [...this.box]];
    const inside = event.target === this.element;
    const drag = (move) => {
      const [x, y] = this.at(move);
      if (inside) this.set(box[0] + x - start[0], box[1] + y - start[1], box[2] - box[0], box[3] - box[1]);
      else if (edge) this.pull(edge, box, x, y);
      else this.span(start, [x, y]);
    };
    const done = () => {
      removeEventListener("pointermove", drag);
      this.element.focus();
    };
    addEventListener("pointermove", drag);
    addEventListener("pointerup", done, { once: true });
    addEventListener("pointercancel", done, { once: true });
  }

  /** Move the edges that a handle has; the opposite ones stay. */
  pull(edge, [left, top, right, bottom], x, y) {
    if (edge.includes("w")) left = Math.min(x, right - LEAST);
    if (edge.includes("e")) right = Math.max(x, left + LEAST);
    if (edge.includes("n")) top = Math.min(y, bottom - LEAST);
    if (edge.includes("s")) bottom = Math.max(y, top + LEAST);
    let [width, height] = [right - left, bottom - top];
    if (this.ratio) {
      if (["n", "s"].includes(edge)) width = Math.min(height * this.ratio, this.size[0]);
      else width = Math.min(width, this.size[1] * this.ratio);
      height = width / this.ratio;
      if (edge.includes("w")) left = right - width;
      if (edge.includes("n")) top = bottom - height;
    }
    this.set(left, top, width, height);
  }

  /** A new rectangle from one corner to the other. */
  span([ax, ay], [bx, by]) {
    let [width, height] = [Math.abs(bx - ax), Math.abs(by - ay)];
    if (this.ratio) [width, height] = [Math.min(width, height * this.ratio), Math.min(height, width / this.ratio)];
    this.set(bx < ax ? ax - width : ax, by < ay ? ay - height : ay, width, height);
  }

  // -------------------------------------------------------------- keyboard

  key(event) {
    if (event.ctrlKey || event.metaKey) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const step = event.altKey ? 1 : Math.max(1, Math.round(Math.max(...this.size) / 100));
    const [left, top, right, bottom] = this.box;
    if (way && event.shiftKey) this.pull(way[0] ? "e" : "s", this.box, right + way[0] * step, bottom + way[1] * step);
    else if (way) this.set(left + way[0] * step, top + way[1] * step, right - left, bottom - top);
    else if (event.key === "Enter") this.ended(true);
    else if (event.key === "Escape") this.ended(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
