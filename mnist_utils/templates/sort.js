// Tables of many rows are sorted by a press on a column's name; a second press turns the order round.
const figure = (text) => parseFloat(text.replace(/[,%]/g, ""));

function sortBy(table, column, turn) {
  const body = table.tBodies[0], cell = (row) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [cell(a), cell(b)], [n, m] = [figure(x), figure(y)];
    if (!x || !y) return Number(!x) - Number(!y); // what is empty stays below
    return turn * (Number.isNaN(n) || Number.isNaN(m) ? x.localeCompare(y) : n - m);
  };
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      sortBy(table, column, down ? -1 : 1);
    });
  });
}
