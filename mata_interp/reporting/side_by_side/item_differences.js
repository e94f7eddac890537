// The items that several runs answered: filter by what became of them in each run, search, 50 at a time.
(() => {
  "use strict";
  const root = document.getElementById("item-differences");
  const { runs, items } = JSON.parse(document.getElementById("item-differences-data").textContent);
  const SIZE = 50;
  const LOOKS = { corrected: "gain", broken: "loss" };
  const find = (selector) => root.querySelector(selector);
  let page = 0, shown = items;

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  // One select for each run, one for agreement, and a search field.
  const selects = runs.map(({ letter }, n) => {
    const states = [...new Set(items.map((item) => item.states[n]))].sort();
    return labelled(letter, element("select", { name: `state-${letter}` }, ...options(["all", ...states])));
  });
  const agreement = labelled("Runs", element("select", { name: "agreement" }, ...options(["differ or agree", "differ", "agree"])));
  const search = labelled("Search", element("input", { type: "search", name: "search", autocomplete: "off" }));
  function options(names) {
    return names.map((name, n) => element("option", { value: n ? name : "" }, name));
  }
  function labelled(text, control) {
    find(".filters").append(element("label", {}, `${text} `, control));
    control.addEventListener("input", update);
    return control;
  }

  const texts = new Map(items.map((item) => [item, [item.id, item.task, item.question, item.answer, ...item.predicted.flat()].join(" ").toLowerCase()]));
  function matches(item) {
    if (!selects.every((select, n) => !select.value || item.states[n] === select.value)) return false;
    const agree = new Set(item.states).size === 1;
    if (agreement.value && (agreement.value === "agree") !== agree) return false;
    return texts.get(item).includes(search.value.trim().toLowerCase());
  }

  function update() {
    shown = items.filter(matches);
    page = 0;
    draw();
  }

  function row(item) {
    const about = element("td", {}, item.question || item.id, element("small", {}, item.question ? `${item.id}; ${item.task}` : item.task));
    const cells = item.states.map((state, n) => {
      const look = LOOKS[state] ? { class: LOOKS[state] } : {};
      return element("td", {}, element("span", look, state), element("small", {}, item.predicted[n].join(" \u2192 ")));
    });
    return element("tr", { "data-item": item.id }, about, element("td", {}, item.answer), ...cells);
  }

  function draw() {
    const first = page * SIZE, part = shown.slice(first, first + SIZE);
    const names = ["Item", "Correct answer", ...runs.map(({ label }) => label)];
    const head = element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name))));
    find("table").replaceChildren(head, element("tbody", {}, ...part.map(row)));
    const range = part.length ? `, ${first + 1} to ${first + part.length} shown` : "";
    find(".shown").textContent = `${shown.length} of ${items.length} items${range}`;
    find('[data-step="-1"]').disabled = page === 0;
    find('[data-step="1"]').disabled = first + SIZE >= shown.length;
    find(".pages").hidden = shown.length <= SIZE;
  }

  for (const button of root.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => {
      page += Number(button.dataset.step);
      draw();
    });
  }
  agreement.value = "differ";
  update();
  if (!shown.length) {
    agreement.value = "";
    update();
  }
})();
