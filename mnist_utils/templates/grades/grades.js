"use strict";
// Sorts and filters the lines of the page; without it they stay as they were written.
const list = document.getElementById("list");
const lines = [...list.querySelectorAll("details.submission")];
const search = document.getElementById("search");
const shown = document.getElementById("shown");

function valueOf(line, column) {
  const text = line.dataset[column] ?? "";
  const number = parseFloat(text.replace(/,/g, ""));
  return Number.isNaN(number) || column === "name" || column === "missed" ? text.toLowerCase() : number;
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === "") return 1; // what is not shown comes last
  if (b === "") return -1;
  if (typeof a === typeof b) return a < b ? -1 : 1;
  return typeof a === "number" ? -1 : 1;
}

function sort(button) {
  const column = button.dataset.column;
  const down = button.dataset.sorted === "up";
  for (const other of document.querySelectorAll("[data-column]")) delete other.dataset.sorted;
  button.dataset.sorted = down ? "down" : "up";
  const order = lines.map((line, index) => [valueOf(line, column), index, line]);
  order.sort((a, b) => {
    const empty = a[0] === "" || b[0] === "";
    const by = compare(a[0], b[0]);
    return (down && !empty ? -by : by) || a[1] - b[1];
  });
  for (const [, , line] of order) list.append(line);
}

function filter() {
  const outcomes = new Set();
  for (const box of document.querySelectorAll("[name=outcome]:checked")) outcomes.add(box.value);
  const flagged = document.getElementById("flagged").checked;
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const line of lines) {
    const { name, file, missed, flags } = line.dataset;
    const text = [name, file, missed, flags].join(" ").toLowerCase();
    const fits = outcomes.has(line.dataset.outcome) && words.every((word) => text.includes(word));
    line.hidden = !(fits && (!flagged || line.dataset.flags));
    count += line.hidden ? 0 : 1;
  }
  shown.textContent = `${count} of ${lines.length} shown`;
}

for (const button of document.querySelectorAll("[data-column]")) {
  button.addEventListener("click", () => sort(button));
}
document.getElementById("tools").addEventListener("input", filter);
document.getElementById("open").addEventListener("click", (event) => {
  const all = lines.filter((line) => !line.hidden);
  const open = !all.every((line) => line.open);
  for (const line of all) line.open = open;
  event.target.textContent = open ? "Fold all" : "Unfold all";
});
document.getElementById("tools").hidden = false;
filter();
