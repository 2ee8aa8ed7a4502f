// A loss curve: each step's mean faint, the smooth one clear; drawn in the page's own colours.
const SVG = "http://www.w3.org/2000/svg";
const [W, H] = [600, 140];

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Rows of [step, loss, smooth loss]. */
export function curve(rows) {
  const [first, last] = [rows[0][0], rows.at(-1)[0]];
  const values = rows.flatMap(([, raw, smooth]) => [raw, smooth]).sort((a, b) => a - b);
  const top = Math.max(values[Math.floor(values.length * 0.98)] * 1.05, rows.at(-1)[2] * 1.1, 1e-6);
  const at = (step, value) => `${((step - first) / Math.max(1, last - first)) * W},${H - Math.min(1, value / top) * H}`;
  const line = (column) => rows.map((row) => at(row[0], row[column])).join(" ");
  const svg = shape("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", class: "curve", role: "img", "aria-label": `loss ${rows.at(-1)[2].toFixed(4)} after step ${last}` });
  svg.append(shape("polyline", { points: line(1), class: "raw" }), shape("polyline", { points: line(2), class: "smooth" }));
  const figure = document.createElement("figure");
  const words = document.createElement("figcaption");
  words.textContent = `loss ${rows.at(-1)[2].toFixed(4)} after step ${Math.round(last)}`;
  figure.append(svg, words);
  return figure;
}
