// The report's grid: which columns and rows are shown, and one cell in full. All text goes in as text.
const data = JSON.parse(document.getElementById("data").textContent);
const form = document.getElementById("axes");
const grid = document.getElementById("grid");
const viewer = document.getElementById("viewer");
const find = (selector) => viewer.querySelector(selector);

/** The axes that are laid out; every other one is held at the value its menu says. */
function laidOut() {
  const across = form.elements.across ? form.elements.across.value : "save";
  const down = form.elements.down ? form.elements.down.value : "prompt seed";
  return [across, ...down.split(" ")];
}

function isShown(axis, value) {
  if (!laidOut().includes(axis)) return !form.elements[axis] || form.elements[axis].value === value;
  const boxes = [...form.querySelectorAll(`input[name="show-${axis}"]`)];
  return boxes.every((box) => box.value !== value || box.checked);
}

function arrange() {
  const out = laidOut();
  for (const label of form.querySelectorAll("[data-held]")) label.hidden = out.includes(label.dataset.held);
  for (const boxes of form.querySelectorAll("[data-shown]")) boxes.hidden = !out.includes(boxes.dataset.shown);
  const columns = data.columns.map((column) =>  // the baseline of every base on show stays
    isShown("base", column.base) &&
    (column.save === null || (isShown("save", column.save) && isShown("strength", column.strength))));
  const hide = (row) => columns.forEach((shown, i) => { row.children[i + 1].hidden = !shown; });
  grid.style.setProperty("--columns", columns.filter(Boolean).length);
  hide(grid.tHead.rows[0]);
  for (const body of grid.tBodies) {
    const rows = [...body.rows].slice(1);
    for (const row of rows) {
      row.hidden = !isShown("prompt", body.dataset.prompt) || !isShown("seed", row.dataset.seed);
      hide(row);
    }
    body.hidden = rows.every((row) => row.hidden);
  }
}

/** The cells on show, row by row. */
function visible() {
  const rows = [...grid.querySelectorAll("tr[data-seed]")].filter((row) => !row.hidden && !row.parentElement.hidden);
  return rows.map((row) => [...row.querySelectorAll("td:not([hidden])")].map((td) => td.querySelector(".cell")));
}

let current = null;

function show(button) {
  current = button;
  const cell = data.cells[button.dataset.cell];
  const drawn = button.querySelector("img");
  find("#viewer-title").textContent = cell.title;
  find("#viewer-drawn").hidden = !drawn;
  if (drawn) find("#viewer-drawn").src = drawn.src;
  find("#viewer-undrawn").hidden = Boolean(drawn);
  find("#viewer-undrawn code").textContent = cell.command;
  find("#viewer-undrawn [data-copy]").dataset.copy = cell.command;
  find("#viewer-undrawn [data-copy]").hidden = !cell.command;
  find("a").hidden = !(drawn && cell.file);
  find("a").href = `txt2img-images/${cell.file.split("/").map(encodeURIComponent).join("/")}`;
  const near = document.getElementById(`picture-${cell.near}`);
  find("#viewer-near").hidden = !near;
  if (near) find("#viewer-near img").src = near.src;
  find("#viewer-near figcaption").textContent = `nearest training picture, ${cell.said}`;
  find("dl").replaceChildren(...cell.facts.flatMap(([name, value]) => [line("dt", name), line("dd", value)]));
  if (!viewer.open) viewer.showModal();
}

function line(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

/** To the next cell in a direction, over what has none. */
function go(right, down) {
  const cells = visible();
  let y = cells.findIndex((row) => row.includes(current));
  let x = cells[y].indexOf(current);
  do { x += right; y += down; } while (cells[y]?.[x] === null);
  if (cells[y]?.[x]) show(cells[y][x]);
}

grid.addEventListener("click", (event) => {
  const button = event.target.closest(".cell");
  if (button) show(button);
});
viewer.addEventListener("click", (event) => {
  const { go: where, close } = event.target.dataset;
  if (where) go(...where.split(" ").map(Number));
  if (close !== undefined) viewer.close();
});
viewer.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!way) return;
  event.preventDefault();
  go(...way);
});
viewer.addEventListener("close", () => current.focus());
form.addEventListener("change", arrange);
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
arrange();
