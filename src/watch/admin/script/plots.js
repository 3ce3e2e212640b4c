// The plots: two minutes, a point for each answer.

const SPAN = 120, EVERY = 1000;
const SVG = "http://www.w3.org/2000/svg";
const charts = [];
const chart = (title, format, least, series) => {
  const card = make("section", { class: "card" });
  const plot = make("div", { class: "plot" });
  const svg = document.createElementNS(SVG, "svg");
  const attributes = { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": title };
  for (const [k, v] of Object.entries(attributes)) svg.setAttribute(k, v);
  const top = make("span", { class: "top", "aria-hidden": "true" });
  const legend = make("ul", { class: "legend" });
  const axis = make("div", { class: "axis", "aria-hidden": "true" });
  const [from, to] = [make("span"), make("span")];
  axis.append(from, to);
  plot.append(svg, top);
  card.append(make("h2", {}, title), plot, axis, legend);
  $("charts").append(card);
  charts.push({ title, format, least, series, points: [], svg, top, legend, from, to });
};
// The top of a plot: 1, 2 or 5 and zeros.
const round = (v) => {
  const ten = 10 ** Math.floor(Math.log10(v));
  return ten * [1, 2, 5, 10].find((n) => n * ten >= v * 0.999);
};
const path = (svg, d, kind) => {
  const p = document.createElementNS(SVG, "path");
  p.setAttribute("d", d);
  p.setAttribute("class", kind);
  svg.append(p);
};
const draw = (c, w, now) => {
  const present = c.series(w);
  c.points = c.points.filter((p) => now - p.at <= SPAN * 1000);
  c.points.push({ at: now, values: new Map(present) });
  const names = [...new Set(c.points.flatMap((p) => [...p.values.keys()]))].slice(0, 8);
  const most = round(Math.max(c.least, ...c.points.flatMap((p) => [...p.values.values()].filter((v) => v !== null))));
  c.svg.replaceChildren();
  path(c.svg, "M0 50H1000", "grid");
  const rows = names.map((name, i) => {
    let d = "", last = null;
    for (const p of c.points) {
      const v = p.values.get(name);
      if (v === undefined || v === null) { last = null; continue; }
      const x = (1000 - (now - p.at) / SPAN).toFixed(1), y = (98 - (96 * v) / most).toFixed(1);
      // A gap (hidden page, server gone) is no line; a point alone is a dot.
      d += last !== null && p.at - last < 4 * EVERY ? `L${x} ${y}` : `M${x} ${y}h0.1`;
      last = p.at;
    }
    path(c.svg, d, "s" + i);
    const item = make("li");
    const value = c.points[c.points.length - 1].values.get(name);
    item.append(make("i", { class: "s" + i, "aria-hidden": "true" }), name + " ", make("b", {}, c.format(value === undefined ? null : value)));
    return item;
  });
  c.top.textContent = c.format(most);
  c.legend.replaceChildren(...rows);
  c.svg.setAttribute("aria-label", `${c.title}: ${rows.map((r) => r.textContent).join(", ") || "nothing"}`);
};
// What the axes say: until when the plots reach.
const axes = (from, to) => {
  $("charts").setAttribute("aria-label", `From ${from} to ${to}`);
  for (const c of charts) [c.from.textContent, c.to.textContent] = [from, to];
};
const latency = (name) => (w) => [["half within", quantile(w, name, 0.5)], ["99 % within", quantile(w, name, 0.99)]];
chart("Lines a second", short, 10, (w) => [["received", rate(w, "logweir_received_lines_total")], ["durable", rate(w, "logweir_durable_lines_total")]]);
chart("Bytes a second", bytes, 1000, (w) => [["received", rate(w, "logweir_received_bytes_total")], ["written", rate(w, "logweir_appended_bytes_total")]]);
chart("Buffer in use, reading paused", percent, 1, (w) => [["buffer in use", fullest(w.after)], ["reading paused", pausedShare(w)]]);
chart("Time of a write", time, 1e-4, latency("logweir_write_seconds"));
chart("Time of a sync", time, 1e-3, latency("logweir_sync_seconds"));
chart("Dropped lines a second", short, 1, (w) => values(w.after, "logweir_dropped_lines_total", "reason")
  .map((reason) => [reason, rate(w, "logweir_dropped_lines_total", { reason }), sum(w.after, "logweir_dropped_lines_total", { reason })])
  .filter(([, , all]) => all > 0).map(([reason, now]) => [reason, now]));
