// Tables: a head sorts, numbers as numbers and missing values last; a field searches.
function valueOf(row, column) {
  const text = row.cells[column].dataset.value;
  if (text === undefined) return null;
  const isNumber = row.cells[column].classList.contains("number");
  return isNumber ? Number(text) : text;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const direction = heads[column].getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", direction);
  const sign = direction === "ascending" ? 1 : -1;
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * compare(a, b);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function prepareTable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const isNumber = [...table.tBodies[0].rows].some((row) => {
      const cell = row.cells[column];
      return cell.classList.contains("number") && cell.dataset.value !== undefined;
    });
    head.classList.toggle("number", isNumber);
    head.querySelector("button").addEventListener("click", () => sortBy(table, column));
  });
}

function prepareFilters(block) {
  const field = block.querySelector("input[type=search]");
  const box = block.querySelector("input[type=checkbox]");
  const rows = [...block.querySelectorAll("tbody tr")];
  const filter = () => {
    const words = field ? field.value.toLowerCase().split(/\s+/) : [];
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word));
      row.hidden = !fits || Boolean(box && box.checked && !("marked" in row.dataset));
      count += !row.hidden;
    }
    block.querySelector("[role=status]").textContent = `${count} of ${rows.length} rows`;
  };
  for (const input of [field, box]) if (input) input.addEventListener("input", filter);
  filter();
}

for (const table of document.querySelectorAll("main table")) prepareTable(table);
for (const block of document.querySelectorAll(".table")) {
  if (block.querySelector(".filters")) prepareFilters(block);
}
