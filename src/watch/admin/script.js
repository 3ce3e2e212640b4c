"use strict";
// Polls /metrics each second and draws it. Texts reach the page as text only (textContent), never as markup.
(() => {
  const SPAN = 120, EVERY = 1000, PATIENCE = 4000;
  const $ = (id) => document.getElementById(id);

  // --- the text format ---
  const LINE = /^([A-Za-z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)/;
  const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;
  const parse = (text) => {
    const found = new Map();
    for (const line of text.split("\n")) {
      const match = LINE.exec(line);
      if (!match) continue;
      const [, name, inside, number] = match;
      const value = number === "+Inf" ? Infinity : number === "-Inf" ? -Infinity : Number(number);
      if (Number.isNaN(value)) continue;
      const labels = {};
      for (const [, key, text] of (inside || "").matchAll(LABEL)) {
        labels[key] = text.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
      }
      if (!found.has(name)) found.set(name, []);
      found.get(name).push({ labels, value, key: inside || "" });
    }
    return found;
  };
  const is = (s, filter) => Object.entries(filter).every(([k, v]) => s.labels[k] === v);
  const of = (scrape, name, filter = {}) => (scrape.get(name) || []).filter((s) => is(s, filter));
  const sum = (scrape, name, filter) => of(scrape, name, filter).reduce((a, s) => a + (Number.isFinite(s.value) ? s.value : 0), 0);
  const values = (scrape, name, label) => [...new Set(of(scrape, name).map((s) => s.labels[label]))].filter((v) => v !== undefined)
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true })); // a scrape has no order

  // --- between two scrapes; a counter that is smaller than before began anew ---
  const growths = (w, name, filter) => {
    const before = new Map(of(w.before, name, filter).map((s) => [s.key, s.value]));
    return of(w.after, name, filter).map((s) => {
      const b = before.get(s.key) || 0;
      const n = s.value < b ? s.value : s.value - b;
      return { labels: s.labels, n: Number.isFinite(n) ? n : 0 };
    });
  };
  const rate = (w, name, filter) => growths(w, name, filter).reduce((a, g) => a + g.n, 0) / w.seconds;
  const quantile = (w, name, q, filter) => {
    const sums = new Map();
    for (const { labels, n } of growths(w, name + "_bucket", filter)) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      if (!Number.isNaN(bound)) sums.set(bound, (sums.get(bound) || 0) + n);
    }
    const buckets = [...sums].sort((a, b) => a[0] - b[0]);
    if (!buckets.length || buckets[buckets.length - 1][1] <= 0) return null;
    const rank = q * buckets[buckets.length - 1][1];
    const at = buckets.findIndex(([, n]) => n >= rank);
    const [low, counted] = at > 0 ? buckets[at - 1] : [0, 0];
    const [high, upto] = buckets[at];
    if (!Number.isFinite(high)) return low;
    return low + (high - low) * (upto > counted ? (rank - counted) / (upto - counted) : 1);
  };

  // --- words for numbers ---
  const short = (v) => {
    if (v === null || !Number.isFinite(v)) return "-";
    const [d, unit] = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e4, " k"]].find(([least]) => Math.abs(v) >= least) || [1, ""];
    const scaled = v / (unit === " k" ? 1e3 : d);
    const digits = (unit === "" && Number.isInteger(v)) || Math.abs(scaled) >= 100 ? 0 : Math.abs(scaled) >= 10 ? 1 : 2;
    return scaled.toFixed(digits) + unit;
  };
  const bytes = (v) => (/\d$/.test(short(v)) ? short(v) + " B" : short(v) + "B");
  const percent = (v) => (v * 100).toFixed(v > 0 && v < 0.1 ? 1 : 0) + " %";
  const time = (s) => (s === null ? "-" : s < 1e-3 ? Math.round(s * 1e6) + " µs" : s < 1 ? (s * 1e3).toPrecision(3) + " ms" : s.toFixed(2) + " s");
  const whole = (v) => Math.round(v).toLocaleString("en").replaceAll(",", "\u202f");

  // --- plots ---
  const SVG = "http://www.w3.org/2000/svg";
  const make = (tag, attributes = {}, text) => {
    const e = document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    return e;
  };
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
    axis.append(make("span", {}, "2 min ago"), make("span", {}, "now"));
    plot.append(svg, top);
    card.append(make("h2", {}, title), plot, axis, legend);
    $("charts").append(card);
    charts.push({ title, format, least, series, points: [], svg, top, legend });
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
  const latency = (name) => (w) => [["p50", quantile(w, name, 0.5)], ["p99", quantile(w, name, 0.99)]];
  chart("Lines a second", short, 10, (w) => [["received", rate(w, "logweir_received_lines_total")], ["durable", rate(w, "logweir_durable_lines_total")]]);
  chart("Bytes a second", bytes, 1000, (w) => [["received", rate(w, "logweir_received_bytes_total")], ["written", rate(w, "logweir_appended_bytes_total")]]);
  chart("Buffer in use and backpressure", percent, 1, (w) => [
    ["buffer", Math.max(0, ...of(w.after, "logweir_buffer_utilisation").map((s) => s.value))],
    ["not reading", Math.min(1, rate(w, "logweir_backpressure_seconds_total"))],
  ]);
  chart("Time of an append", time, 1e-4, latency("logweir_write_seconds"));
  chart("Time of a sync", time, 1e-3, latency("logweir_sync_seconds"));
  chart("Dropped lines a second", short, 1, (w) => values(w.after, "logweir_dropped_lines_total", "reason")
    .map((reason) => [reason, rate(w, "logweir_dropped_lines_total", { reason }), sum(w.after, "logweir_dropped_lines_total", { reason })])
    .filter(([, , all]) => all > 0).map(([reason, now]) => [reason, now]));

  // --- tables: rows of cells, each a text or [text, class] ---
  const fill = (id, rows, nothing) => {
    const made = rows.map((cells) => {
      const tr = make("tr");
      cells.forEach((cell, i) => {
        const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
        tr.append(make(i === 0 ? "th" : "td", { ...(i === 0 ? { scope: "row" } : {}), ...(kind ? { class: kind } : {}) }, text));
      });
      return tr;
    });
    if (!made.length) made.push(make("tr"));
    if (!rows.length) made[0].append(make("td", { colspan: "9" }, nothing));
    $(id).replaceChildren(...made);
  };
  const TERMS = [
    ["received", "logweir_received_", "_total"], ["= durable", "logweir_durable_", "_total"], ["+ written, not yet durable", "logweir_written_", ""],
    ["+ in flight", "logweir_in_flight_", ""], ["+ dropped", "logweir_dropped_", "_total"], ["+ at risk", "logweir_at_risk_", "_total"],
  ];
  const account = (now) => {
    const term = (before, behind) => ["lines", "bytes"].map((unit) => sum(now, before + unit + behind));
    const all = TERMS.map(([, before, behind]) => term(before, behind));
    const left = [0, 1].map((u) => all[0][u] - all.slice(1).reduce((a, t) => a + t[u], 0));
    const bad = left.some((v) => v !== 0);
    const rows = TERMS.map(([name], i) => [name, ...all[i].map((v) => [whole(v), i > 3 && v > 0 ? "warn" : ""])]);
    fill("account", [...rows, ["left over", ...left.map((v) => [whole(v), bad ? "bad" : ""])]], "");
    $("balance").textContent = bad ? "The account does not balance: a bug. Please report it with /metrics." : "Every line is accounted for.";
    $("balance").className = bad ? "bad" : "";
  };
  const tables = (w) => {
    const now = w.after;
    const reasons = (name, what) => values(now, name, "reason").map((reason) => [what + reason, sum(now, name, { reason }), rate(w, name, { reason })]);
    const all = [...reasons("logweir_dropped_lines_total", "lines: "), ...reasons("logweir_connections_refused_total", "connections: ")];
    fill("reasons", all.filter(([, n]) => n > 0).map(([name, n, r]) => [name, [whole(n), "warn"], short(r)]), "nothing");
    fill("listeners", values(now, "logweir_received_lines_total", "listener").map((listener) => {
      const count = (name) => sum(now, name, { listener });
      const warn = (v) => [whole(v), v > 0 ? "warn" : ""];
      return [listener, short(rate(w, "logweir_received_lines_total", { listener })), bytes(rate(w, "logweir_received_bytes_total", { listener })),
        whole(count("logweir_received_lines_total")), whole(count("logweir_durable_lines_total")), whole(count("logweir_in_flight_lines")),
        warn(count("logweir_dropped_lines_total")), warn(count("logweir_at_risk_lines_total"))];
    }), "none");
    fill("shards", values(now, "logweir_buffer_utilisation", "shard").map((shard) => {
      const f = { shard }, level = (name) => sum(now, name, f);
      const buffer = level("logweir_buffer_utilisation"), pressed = Math.min(1, rate(w, "logweir_backpressure_seconds_total", f));
      return [level("logweir_disk_full") > 0 ? [shard + " (disk full)", "bad"] : shard, whole(level("logweir_connections")), [percent(buffer), buffer > 0.7 ? "warn" : ""],
        bytes(rate(w, "logweir_appended_bytes_total", f)), time(quantile(w, "logweir_write_seconds", 0.99, f)), short(rate(w, "logweir_syncs_total", f)),
        time(quantile(w, "logweir_sync_seconds", 0.5, f)), time(quantile(w, "logweir_sync_seconds", 0.99, f)), [percent(pressed), pressed > 0.05 ? "warn" : ""]];
    }), "none");
  };
  const figures = (w) => {
    const buffer = Math.max(0, ...of(w.after, "logweir_buffer_utilisation").map((s) => s.value));
    const drops = rate(w, "logweir_dropped_lines_total");
    $("now-lines").textContent = short(rate(w, "logweir_received_lines_total"));
    $("now-bytes").textContent = bytes(rate(w, "logweir_received_bytes_total"));
    $("now-buffer").textContent = percent(buffer);
    $("now-sync").textContent = time(quantile(w, "logweir_sync_seconds", 0.99));
    $("now-drops").textContent = short(drops);
    $("now-connections").textContent = whole(sum(w.after, "logweir_connections"));
    const size = sum(w.after, "logweir_data_size_bytes"), room = sum(w.after, "logweir_data_free_bytes") / size;
    $("now-room").textContent = size > 0 ? percent(room) : "-";
    $("box-room").className = room < 0.05 ? "bad" : room < 0.1 ? "warn" : "";
    $("box-buffer").className = buffer > 0.9 ? "bad" : buffer > 0.7 ? "warn" : "";
    $("box-drops").className = drops > 0 ? "bad" : "";
  };

  // --- polling ---
  const status = (text, kind) => {
    if ($("status").textContent !== text) $("status").textContent = text;
    $("status").className = kind;
    document.body.classList.toggle("stale", kind === "bad" && text.startsWith("no answer"));
    document.title = (kind === "good" ? "" : "\u26a0 ") + "logweir";
  };
  const get = async (path) => {
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), PATIENCE);
    try {
      const answer = await fetch(path, { signal: stop.signal, cache: "no-store" });
      return { status: answer.status, text: await answer.text() };
    } finally {
      clearTimeout(timer);
    }
  };
  let last = null, lastAnswer = null, timer = null, busy = false;
  const poll = async () => {
    try {
      const { status: code, text } = await get("metrics");
      if (code !== 200) throw new Error("status " + code);
      const at = performance.now(), after = parse(text);
      lastAnswer = new Date();
      if (sum(after, "logweir_ready") > 0) status("ready", "good");
      else status("not ready: " + (await get("readyz")).text.trim().slice(0, 300), "bad");
      const engine = of(after, "logweir_engine_info")[0];
      $("about").textContent = engine ? `engine ${engine.labels.engine}` : "";
      account(after);
      // The first scrape has nothing before it: rates of 0.
      const w = { before: last ? last.after : after, after, seconds: last ? Math.max(0.001, (at - last.at) / 1000) : 1 };
      figures(w);
      tables(w);
      charts.forEach((c) => draw(c, w, at));
      last = { at, after };
      document.body.dataset.polls = String(Number(document.body.dataset.polls || 0) + 1);
    } catch (error) {
      last = null;
      status(lastAnswer ? `no answer since ${lastAnswer.toLocaleTimeString()}; still trying` : "no answer; still trying", "bad");
    }
  };
  const turn = async () => {
    clearTimeout(timer);
    if (busy || document.hidden) return;
    busy = true;
    const start = performance.now();
    await poll();
    busy = false;
    timer = setTimeout(turn, Math.max(100, EVERY - (performance.now() - start)));
  };
  document.addEventListener("visibilitychange", turn);
  turn();
})();
