// Figures, their numbers, tables and texts as files. Nothing is loaded: all of it stands in the page.
(() => {
  "use strict";
  const element = document.getElementById("files");
  if (!element) return;
  const files = JSON.parse(element.textContent); // texts by name
  const drawings = JSON.parse(document.getElementById("drawings").textContent); // PDF files by name, in base64
  const contentOf = (name) => files[name] ?? Uint8Array.from(atob(drawings[name]), (letter) => letter.charCodeAt(0));

  function save(name, content, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  // A drawing of the page as a file that needs no page: light colours, a white ground, fonts by name, tooltips as titles.
  const NAMESPACE = "http://www.w3.org/2000/svg";
  function standalone(drawing) {
    const copy = drawing.cloneNode(true);
    copy.setAttribute("xmlns", NAMESPACE);
    const [, , width, height] = copy.getAttribute("viewBox").split(/[ ,]+/);
    copy.setAttribute("width", `${width}pt`);
    copy.setAttribute("height", `${height}pt`);
    copy.removeAttribute("style");
    copy.setAttribute("font-family", "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif");
    for (const mark of copy.querySelectorAll("[data-tip]")) {
      const title = document.createElementNS(NAMESPACE, "title");
      title.textContent = mark.dataset.tip;
      mark.prepend(title);
      mark.removeAttribute("data-tip");
    }
    // Of the two colours of the page, "fill: #1a1a1a; fill: light-dark(...)", the first is that on paper.
    for (const mark of copy.querySelectorAll("[style]")) {
      const style = mark.getAttribute("style").replace(/;?\s*(fill|stroke): light-dark\([^)]*\)/g, "");
      mark.setAttribute("style", style.replace(/\binherit\b/g, "Helvetica, Arial, sans-serif"));
    }
    const ground = document.createElementNS(NAMESPACE, "rect");
    for (const [name, value] of Object.entries({ width, height, fill: "#ffffff" })) ground.setAttribute(name, value);
    copy.prepend(ground);
    return `<?xml version="1.0" encoding="UTF-8"?>\n${new XMLSerializer().serializeToString(copy)}\n`;
  }

  async function copy(button, name) {
    const status = button.parentNode.querySelector("[role=status]");
    try {
      await navigator.clipboard.writeText(files[name]);
      status.textContent = "Copied";
    } catch { // a browser may refuse the clipboard to files: the reader copies the selection
      const text = button.closest("details").querySelector("code");
      getSelection().selectAllChildren(text);
      status.textContent = "Selected: copy with the keyboard";
    }
  }

  const TYPES = { csv: "text/csv", pdf: "application/pdf", tex: "application/x-tex", md: "text/markdown", bib: "application/x-bibtex" };
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".files button");
    if (!button) return;
    const { svg, file, copy: copied } = button.dataset;
    if (svg) save(`${svg}.svg`, standalone(document.getElementById(svg).querySelector(".wide svg")), "image/svg+xml");
    else if (file) save(file, contentOf(file), TYPES[file.split(".").pop()]);
    else copy(button, copied);
  });
  for (const buttons of document.querySelectorAll(".files")) buttons.hidden = false;
})();
