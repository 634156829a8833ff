"use strict";
// The page is whole without this: it adds sorting and filtering of the layers, and zooming of the graphs.

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const first = column === 0 ? "ascending" : "descending";
      const second = column === 0 ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort");
      const next = now === first ? second : now === second ? null : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      let rows = original;
      if (next) {
        head.setAttribute("aria-sort", next);
        const sign = next === "ascending" ? 1 : -1;
        const keyed = original.map((row) => [key(row.cells[column], column), row]);
        // What has no figure stays at the end, whichever way the others stand.
        keyed.sort(([a], [b]) => (a === null) - (b === null) || sign * (a < b ? -1 : a > b ? 1 : 0));
        rows = keyed.map(([, row]) => row);
      }
      body.append(...rows);
    });
  });
}

function key(cell, column) {
  if (column === 0) return cell.textContent.toLowerCase();
  return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
}

function filterable(table, form) {
  const find = form.querySelector("#find");
  const show = form.querySelector("#show");
  const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
  const apply = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [row, text] of rows) {
      const is = row.dataset.is.split(" ");
      const shown = show.value === "every" || (!is.includes("empty") && (!show.value || is.includes(show.value)));
      const wanted = shown && words.every((word) => text.includes(word));
      row.hidden = !wanted;
      count += wanted;
    }
    form.querySelector("output").textContent = `${count} of ${rows.length} layers`;
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", apply);
  apply();
  return () => {
    find.value = "";
    show.value = "every";
    apply();
  };
}

function zoomable(pane) {
  const view = pane.querySelector(".view");
  const svg = view.querySelector("svg");
  const width = svg.viewBox.baseVal.width;
  const height = svg.viewBox.baseVal.height;
  if (!width) return;
  let scale = 1;
  const zoom = (to, x = view.clientWidth / 2, y = view.clientHeight / 2) => {
    to = Math.min(4, Math.max(0.02, to));
    // The point under the pointer stays where it is.
    const left = ((view.scrollLeft + x) * to) / scale - x;
    const top = ((view.scrollTop + y) * to) / scale - y;
    scale = to;
    svg.setAttribute("width", width * scale);
    svg.setAttribute("height", height * scale);
    view.scrollTo({ left, top, behavior: "instant" });
  };
  const steps = {
    in: () => zoom(scale * 1.3),
    out: () => zoom(scale / 1.3),
    fit: () => zoom(Math.min(view.clientWidth / width, view.clientHeight / height)),
  };
  pane.querySelector(".zoom").hidden = false;
  for (const button of pane.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", steps[button.dataset.zoom]);
  }
  view.addEventListener("keydown", (event) => {
    const step = { "+": "in", "=": "in", "-": "out", 0: "fit" }[event.key];
    if (step && !event.ctrlKey && !event.metaKey) {
      steps[step]();
      event.preventDefault();
    }
  });
  view.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      const place = view.getBoundingClientRect();
      zoom(scale * Math.exp(-event.deltaY / 300), event.clientX - place.left, event.clientY - place.top);
      event.preventDefault();
    },
    { passive: false },
  );
  let from = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) {
      from = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop, false];
    }
  });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const [x, y] = [from[0] - event.clientX, from[1] - event.clientY];
    if (Math.hypot(x - view.scrollLeft, y - view.scrollTop) > 3) from[2] = true;
    if (from[2]) view.scrollTo({ left: x, top: y, behavior: "instant" });
  });
  addEventListener("pointerup", () => setTimeout(() => (from = null)));
  view.addEventListener("dragstart", (event) => event.preventDefault());
  view.addEventListener("click", (event) => from && from[2] && event.preventDefault(), true);
  oneTabStop(svg);
  if (width > view.clientWidth) zoom(Math.max(0.6, view.clientWidth / width));
  view.scrollTo({ left: (view.scrollWidth - view.clientWidth) / 2, top: 0, behavior: "instant" });
}

// A graph of hundreds of boxes is one stop of the Tab key; the arrow keys lead from box to box.
function oneTabStop(svg) {
  const boxes = [...svg.querySelectorAll("a")];
  boxes.forEach((box, at) => box.setAttribute("tabindex", at === 0 ? "0" : "-1"));
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    const at = boxes.indexOf(document.activeElement);
    const next = boxes[at + step];
    if (at < 0 || !next) return;
    boxes[at].setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
    event.preventDefault();
    event.stopPropagation();
  });
}

const table = document.getElementById("layer-table");
sortable(table);
const showAll = filterable(table, document.querySelector(".filters"));
document.querySelectorAll(".pane").forEach(zoomable);

// A link from a graph leads to a row, which a filter may be hiding and whose details may be closed.
addEventListener("hashchange", () => {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!row || !table.contains(row)) return;
  if (row.hidden) showAll();
  row.querySelector("details")?.setAttribute("open", "");
  row.scrollIntoView({ block: "center" });
  row.focus({ preventScroll: true });
});
