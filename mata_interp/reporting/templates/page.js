// Light and dark, tooltips, and the place in the list of contents. The page is complete without this script.
(() => {
  "use strict";
  const root = document.documentElement;

  // Light and dark: the system's choice until the reader makes another, which is kept.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  function stored(value) {
    try { // a browser may refuse storage to files
      if (value) localStorage.setItem("mata-theme", value);
      return localStorage.getItem("mata-theme");
    } catch { return null; }
  }
  function show() {
    if (button) {
      button.textContent = isDark() ? "Light mode" : "Dark mode";
      button.setAttribute("aria-pressed", String(isDark()));
    }
    document.dispatchEvent(new Event("themechange"));
  }
  const choice = stored();
  if (choice === "light" || choice === "dark") root.dataset.theme = choice;
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      stored(root.dataset.theme);
      show();
    });
  }
  system.addEventListener("change", show);
  show();

  // Tooltips: of marks in figures (their <title>) and of terms (data-tip), on hover, focus and touch.
  for (const title of document.querySelectorAll("figure svg title")) {
    const mark = title.parentNode;
    mark.dataset.tip = title.textContent;
    title.remove(); // or the browser would show a second, slower one
  }
  const tip = document.createElement("div");
  tip.className = "tooltip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  document.body.append(tip);
  function place(x, y) {
    const box = tip.getBoundingClientRect(), edge = 8;
    const left = Math.min(Math.max(edge, x - box.width / 2), root.clientWidth - box.width - edge);
    const above = y - box.height - 12;
    tip.style.left = left + scrollX + "px";
    tip.style.top = (above > edge ? above : y + 18) + scrollY + "px";
  }
  function open(element, x, y) {
    tip.textContent = element.dataset.tip;
    tip.hidden = false;
    place(x, y);
  }
  const marked = (event) => event.target.closest && event.target.closest("[data-tip]");
  document.addEventListener("pointerover", (event) => {
    const element = marked(event);
    if (element) open(element, event.clientX, event.clientY);
    else tip.hidden = true;
  });
  document.addEventListener("pointermove", (event) => {
    if (!tip.hidden && marked(event)) place(event.clientX, event.clientY);
  });
  document.addEventListener("focusin", (event) => {
    const element = marked(event);
    if (!element) return void (tip.hidden = true);
    const box = element.getBoundingClientRect();
    open(element, box.left + box.width / 2, box.top);
  });
  document.addEventListener("focusout", () => { tip.hidden = true; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // Where the reader is, in the list of contents.
  const links = new Map();
  for (const link of document.querySelectorAll(".contents a")) links.set(link.hash.slice(1), link);
  let current = null;
  function mark() {
    let last = null;
    for (const section of document.querySelectorAll("main > section")) {
      if (section.getBoundingClientRect().top < innerHeight / 3) last = section.id;
    }
    if (last === current) return;
    if (links.get(current)) links.get(current).removeAttribute("aria-current");
    if (links.get(last)) links.get(last).setAttribute("aria-current", "true");
    current = last;
  }
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });
  mark();
})();
