// The table of items: filters, search, order, and pages of rows, so that a thousand items cost no more than fifty.

const ROWS = 50;
const OUTCOME_NAMES = { fixed: "corrected" }; // as in the rest of the page
const OUTCOME_MARKS = { fixed: "\u2713", broken: "\u2717", churned: "\u21c4", unchanged: "=" };

// An element with attributes, listeners (`onclick`) and children; text goes in as text, never as HTML.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function outcomeText(outcome) {
  return `${OUTCOME_MARKS[outcome] || ""} ${OUTCOME_NAMES[outcome] || outcome}`;
}

function badge(outcome) {
  return element("span", { class: `iv-badge iv-${outcome}` }, outcomeText(outcome));
}

function short(text, length) {
  return text.length > length ? `${text.slice(0, length - 1).trimEnd()}\u2026` : text;
}

function rowTitle(item) {
  const caption = item.caption ? `, caption: ${item.caption}` : "";
  return item.name ? item.name + caption : item.question || item.id;
}

const COLUMNS = [
  { key: "question", title: "Item", value: rowTitle },
  { key: "outcome", title: "Outcome", value: (item) => item.outcome },
  { key: "task", title: "Task", value: (item) => item.task },
  { key: "caption_kind", title: "Caption", value: (item) => item.caption_kind },
  { key: "dose", title: "Dose", value: (item) => item.dose ?? -1, number: true },
];

class ItemTable {
  // `open(item)` is called for a row that is chosen, `changed()` when a filter changes.
  constructor(root, data, open, changed) {
    Object.assign(this, { root, data, open, changed, page: 0 });
    this.filters = { outcome: new Set(), task: "", dose: "", q: "", sort: "" };
    this.thirds = thirdsOf(data.items.map((item) => item.dose).filter((dose) => dose !== null));
    for (const item of data.items) {
      const texts = [item.id, item.name, item.question, item.caption, item.task, ...item.choices];
      item.haystack = texts.map((text) => short(text, 2000)).join("\n").toLowerCase();
    }
    this.makeFilters();
    const head = element("tr");
    this.columns = COLUMNS.filter(({ key }) => key === "question" || data.items.some((item) => item[key] || item[key] === 0));
    for (const column of this.columns) {
      const button = element("button", { type: "button", onclick: () => this.sortBy(column.key) }, column.title);
      head.append(element("th", { scope: "col", class: column.number ? "iv-number" : null, "data-key": column.key }, button));
    }
    this.body = element("tbody");
    this.find(".iv-rows table").append(element("thead", {}, head), this.body);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row) this.open(this.shown[Number(row.dataset.row)]);
    });
    this.body.addEventListener("keydown", (event) => this.moveFocus(event));
    this.find(".iv-previous").addEventListener("click", () => this.turn(-1));
    this.find(".iv-next").addEventListener("click", () => this.turn(1));
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  makeFilters() {
    const counts = {};
    for (const item of this.data.items) counts[item.outcome] = (counts[item.outcome] || 0) + 1;
    for (const outcome of this.data.outcomes) {
      const toggle = () => {
        const chosen = this.filters.outcome;
        if (!chosen.delete(outcome)) chosen.add(outcome);
        this.refilter();
      };
      const attributes = { type: "button", class: `iv-chip iv-${outcome}`, "data-outcome": outcome, "aria-pressed": "false" };
      const label = `${outcomeText(outcome)} ${(counts[outcome] || 0).toLocaleString("en")}`;
      this.find(".iv-outcomes").append(element("button", { ...attributes, onclick: toggle }, label));
    }
    const tasks = [...new Set(this.data.items.map((item) => item.task))].filter(Boolean).sort();
    this.fillSelect("task", tasks.map((task) => [task, short(task, 40)]));
    const [low, high] = this.thirds;
    const names = [["low", `below ${low?.toFixed(3)}`], ["middle", `${low?.toFixed(3)} to ${high?.toFixed(3)}`], ["high", `above ${high?.toFixed(3)}`]];
    this.fillSelect("dose", this.thirds.length ? names : []);
    this.find("[name=q]").addEventListener("input", (event) => {
      this.filters.q = event.target.value;
      this.refilter();
    });
  }

  fillSelect(name, options) {
    const select = this.find(`[name=${name}]`);
    select.append(...options.map(([value, text]) => element("option", { value }, text)));
    select.closest("label").hidden = options.length < 2;
    select.addEventListener("change", () => {
      this.filters[name] = select.value;
      this.refilter();
    });
  }

  // Take filters from the address.
  setFilters({ outcome = "", task = "", dose = "", q = "", sort = "" }) {
    const outcomes = outcome.split(",").filter((name) => this.data.outcomes.includes(name));
    this.filters = { outcome: new Set(outcomes), task, dose, q, sort };
    for (const name of ["task", "dose", "q"]) this.find(`[name=${name}]`).value = this.filters[name];
    this.refilter(false);
  }

  sortBy(key) {
    this.filters.sort = this.filters.sort === key ? `-${key}` : this.filters.sort === `-${key}` ? "" : key;
    this.refilter();
  }

  matches(item) {
    const { outcome, task, dose, q } = this.filters;
    if (outcome.size && !outcome.has(item.outcome)) return false;
    if (task && item.task !== task) return false;
    if (dose && thirdOf(item.dose, this.thirds) !== dose) return false;
    return !q || q.toLowerCase().split(/\s+/).every((word) => item.haystack.includes(word));
  }

  refilter(tell = true) {
    this.shown = this.data.items.filter((item) => this.matches(item));
    const { sort } = this.filters;
    const column = COLUMNS.find(({ key }) => key === sort.replace("-", ""));
    if (column) {
      const sign = sort.startsWith("-") ? -1 : 1;
      const compare = column.number ? (a, b) => a - b : (a, b) => a.localeCompare(b);
      this.shown.sort((a, b) => sign * compare(column.value(a), column.value(b)));
    }
    for (const chip of this.root.querySelectorAll(".iv-chip")) {
      chip.setAttribute("aria-pressed", String(this.filters.outcome.has(chip.dataset.outcome)));
    }
    for (const th of this.root.querySelectorAll("th[data-key]")) {
      const sorted = th.dataset.key === sort.replace("-", "");
      if (sorted) th.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    this.page = 0;
    this.draw();
    if (tell) this.changed();
  }

  turn(step) {
    this.page += step;
    this.draw();
    this.find(".iv-rows").scrollTop = 0;
  }

  // Show the page that has the item, if the filters let it through.
  reveal(item) {
    const place = this.shown.indexOf(item);
    if (place >= 0) this.page = Math.floor(place / ROWS);
    this.draw();
  }

  draw() {
    const begin = this.page * ROWS, some = this.shown.slice(begin, begin + ROWS);
    this.body.replaceChildren(...some.map((item, n) => this.row(item, begin + n)));
    const total = this.shown.length.toLocaleString("en"), all = this.data.items.length.toLocaleString("en");
    const range = this.shown.length > ROWS ? `, rows ${begin + 1} to ${begin + some.length}` : "";
    this.find(".iv-count").textContent = `${total} of ${all} items${range}`;
    this.find(".iv-pages").hidden = this.shown.length <= ROWS;
    this.find(".iv-previous").disabled = this.page === 0;
    this.find(".iv-next").disabled = begin + ROWS >= this.shown.length;
  }

  row(item, place) {
    const sound = item.audio ? element("span", { class: "iv-sound", "aria-hidden": "true" }, "\u266a ") : null;
    const button = element("button", { type: "button", class: "iv-open" }, sound, short(rowTitle(item), 110));
    if (item === this.selected) button.setAttribute("aria-current", "true");
    const title = item.audio ? "with audio and heads" : null;
    const cells = {
      question: () => element("td", { title }, button),
      outcome: () => element("td", {}, badge(item.outcome)),
      task: () => element("td", {}, short(item.task, 32)),
      caption_kind: () => element("td", {}, short(item.caption_kind || "\u2014", 20)),
      dose: () => element("td", { class: "iv-number" }, item.dose === null ? "\u2014" : item.dose.toFixed(3)),
    };
    const attributes = { "data-row": place, "data-item": item.id, class: item === this.selected ? "iv-selected" : null };
    return element("tr", attributes, ...this.columns.map(({ key }) => cells[key]()));
  }

  select(item) {
    this.selected = item;
    for (const row of this.body.rows) {
      const chosen = this.shown[Number(row.dataset.row)] === item;
      row.classList.toggle("iv-selected", chosen);
      const button = row.querySelector("button");
      if (chosen) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  // Arrow keys go from row to row.
  moveFocus(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    if (next) next.querySelector("button").focus();
    event.preventDefault();
  }
}

function thirdsOf(values) {
  if (values.length < 6) return [];
  const sorted = [...values].sort((a, b) => a - b);
  const ends = [sorted[Math.floor(sorted.length / 3)], sorted[Math.floor((2 * sorted.length) / 3)]];
  return ends[0] < ends[1] ? ends : [];
}

function thirdOf(dose, [low, high]) {
  return dose === null ? "" : dose < low ? "low" : dose <= high ? "middle" : "high";
}
