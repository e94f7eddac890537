// Everything about an item that is text: question, caption, options with their log-probabilities, generated answers.

function showTexts(root, item, data) {
  const fill = (selector, ...children) => root.querySelector(selector).replaceChildren(...children.filter(Boolean));
  const about = [item.name, item.task, item.domain !== item.task && item.domain, item.seconds && `${item.seconds.toFixed(1)} s of audio`];
  fill(".iv-question", item.question || item.id);
  fill(".iv-about", item.outcome && badge(item.outcome), ...about.filter(Boolean).map((text) => element("span", {}, short(text, 80))));
  const kind = { conflict: "Caption, which contradicts the audio: ", congruent: "Caption, which agrees with the audio: " };
  fill(".iv-caption", item.caption && element("b", {}, kind[item.caption_kind] || "Caption: "), item.caption);
  fill(".iv-options", optionsTable(item, data), ...generatedTexts(item, data));
  const notices = item.notices.map((text) => element("p", { class: "iv-notice" }, text));
  fill(".iv-notices", ...notices);
}

function optionsTable(item, data) {
  if (!item.choices.length) return null;
  const head = element("tr", {}, element("th", { scope: "col" }, "Option"));
  const columns = data.conditions.map((condition, c) => ({ ...condition, c })).filter(({ c }) => item.predicted[c] !== undefined);
  for (const { label } of columns) head.append(element("th", { scope: "col" }, label));
  const rows = item.choices.map((choice, n) => {
    const marks = [n === item.answer && "correct answer", n === item.claimed && "caption says so"].filter(Boolean);
    const name = element("th", { scope: "row" }, choice, marks.length ? element("small", {}, marks.join(", ")) : null);
    return element("tr", {}, name, ...columns.map(({ c }) => optionCell(item, c, n)));
  });
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

function optionCell(item, condition, option) {
  const chosen = item.predicted[condition] === option;
  const cell = element("td", { class: chosen ? "iv-chosen" : null });
  const logprob = item.logprob[condition];
  if (logprob) {
    const top = Math.max(...logprob), sum = logprob.reduce((total, value) => total + Math.exp(value - top), 0);
    const probability = Math.exp(logprob[option] - top) / sum;
    const bar = element("span", { class: "iv-bar" });
    bar.style.width = `${(100 * probability).toFixed(1)}%`;
    cell.append(bar, `${(100 * probability).toFixed(0)}\u202f%`);
    if (chosen) cell.append(element("small", { class: "iv-answer" }, "answer"));
    cell.append(element("small", {}, `log p ${logprob[option].toFixed(2).replace("-", "\u2212")}`));
  } else if (chosen) {
    cell.append(element("small", { class: "iv-answer" }, "answer"));
  }
  return cell;
}

function generatedTexts(item, data) {
  return data.conditions.map(({ label }, c) => {
    const text = item.text[c];
    return text === null || text === undefined
      ? null
      : element("p", { class: "iv-generated" }, element("b", {}, `Generated, ${label}: `), text);
  });
}
