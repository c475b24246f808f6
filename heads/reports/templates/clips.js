"use strict";
(() => {
  const PAGE = 50;
  const { head, rows, split, right } = JSON.parse(document.getElementById("clip-table-data").textContent);
  const table = document.getElementById("clip-table");
  const body = table.tBodies[0];
  const numeric = head.map((_, column) => rows.every((row) => typeof row[column] !== "string"));
  const words = new Intl.Collator(undefined, { numeric: true });
  const text = (value) => value === null ? "\u2013" : value === true ? "yes" : value === false ? "no"
    : typeof value === "number" ? String(Number(value.toPrecision(4))) : value;
  const make = (tag, values = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), values);
    made.append(...children);
    return made;
  };
  let searched = null;
  let shown = rows;
  let page = 0;
  let sorted = { column: -1, down: false };

  const fill = () => {
    body.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
      const line = make("tr");
      row.forEach((value, column) => {
        const cell = make(column === 0 ? "th" : "td", { textContent: text(value) });
        if (column === 0) cell.scope = "row";
        if (numeric[column]) cell.className = "n";
        if (column === right && value === false) cell.classList.add("bad");
        line.append(cell);
      });
      return line;
    }));
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    const many = shown.length === rows.length ? `${rows.length} clips` : `${shown.length} of ${rows.length} clips`;
    status.textContent = pages > 1 ? `${many}, page ${page + 1} of ${pages}` : many;
    before.disabled = page === 0;
    after.disabled = page >= pages - 1;
  };

  const order = () => {
    const { column, down } = sorted;
    if (column < 0) return;
    const sign = down ? -1 : 1;
    shown = shown.slice().sort((a, b) => {
      const [x, y] = [a[column], b[column]];
      if (x === null || y === null) return (x === null) - (y === null);  // what is not known comes last
      return sign * (typeof x === "string" ? words.compare(x, y) : x - y);
    });
  };

  const choose = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (wanted.length && searched === null) searched = new Map(rows.map((row) => [row, row.map(text).join("\n").toLowerCase()]));
    shown = rows.filter((row) => wanted.every((word) => searched.get(row).includes(word))
      && (split === null || !part.value || row[split] === part.value)
      && (right === null || !wrong.checked || row[right] === false));
    order();
    page = 0;
    fill();
  };

  const sort = (column) => {
    // Numbers are wanted from the largest, names from a.
    sorted = { column, down: sorted.column === column ? !sorted.down : numeric[column] };
    [...table.tHead.rows[0].cells].forEach((cell, place) => {
      if (place === column) cell.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    order();
    page = 0;
    fill();
  };

  const turn = (by) => () => { page += by; fill(); };
  const search = make("input", { type: "search", oninput: choose });
  const part = make("select", { onchange: choose }, make("option", { value: "", textContent: "all" }));
  const wrong = make("input", { type: "checkbox", onchange: choose });
  const before = make("button", { type: "button", textContent: "previous page", onclick: turn(-1) });
  const after = make("button", { type: "button", textContent: "next page", onclick: turn(1) });
  const status = make("span", { role: "status" });
  status.setAttribute("aria-live", "polite");
  const tools = make("div", { className: "tools" }, make("label", {}, "Find ", search));
  if (split !== null) {
    for (const name of new Set(rows.map((row) => row[split]))) part.append(make("option", { value: name, textContent: name }));
    tools.append(make("label", {}, "Split ", part));
  }
  if (right !== null) tools.append(make("label", {}, wrong, " mistakes only"));
  tools.append(before, after, status);
  table.parentElement.before(tools);
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.replaceChildren(make("button", { type: "button", textContent: head[column], onclick: () => sort(column) }));
  });
  fill();
})();
