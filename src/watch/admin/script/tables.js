// The tables and the large figures. Rows are of cells, each a text or [text, class].

// Each cell has the header of its column with it: in a narrow window a row becomes a card of names and figures.
const fill = (id, rows, nothing) => {
  const heads = [...$(id).closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
  const made = rows.map((cells) => {
    const tr = make("tr", { role: "row" });
    cells.forEach((cell, i) => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
      const what = i === 0 ? { scope: "row", role: "rowheader" } : { role: "cell", "data-label": heads[i] };
      tr.append(make(i === 0 ? "th" : "td", { ...what, ...(kind ? { class: kind } : {}) }, text));
    });
    return tr;
  });
  if (!made.length) made.push(make("tr"));
  if (!rows.length) made[0].append(make("td", { colspan: "9" }, nothing));
  $(id).replaceChildren(...made);
};
const TERMS = [
  ["received", "logweir_received_", "_total"], ["= durable", "logweir_durable_", "_total"], ["+ written, not yet durable", "logweir_written_", ""],
  ["+ in flight (in memory)", "logweir_in_flight_", ""], ["+ dropped", "logweir_dropped_", "_total"], ["+ at risk (a sync failed)", "logweir_at_risk_", "_total"],
];
// Whether the account balanced when it was last shown.
let balances = true;
const balance = (asOf) => {
  const good = asOf ? `Every line was accounted for at ${asOf}.` : "Every line is accounted for.";
  say("balance", balances ? good : "The account does not balance: a bug. Please report it with /metrics.");
  $("balance").className = balances ? "" : "bad";
};
const account = (now) => {
  const term = (before, behind) => ["lines", "bytes"].map((unit) => sum(now, before + unit + behind));
  const all = TERMS.map(([, before, behind]) => term(before, behind));
  const left = [0, 1].map((u) => all[0][u] - all.slice(1).reduce((a, t) => a + t[u], 0));
  const bad = left.some((v) => v !== 0);
  const rows = TERMS.map(([name], i) => [name, ...all[i].map((v) => [whole(v), i > 3 && v > 0 ? "warn" : ""])]);
  fill("account", [...rows, ["left over", ...left.map((v) => [whole(v), bad ? "bad" : ""])]], "");
  balances = !bad;
  balance();
};
const tables = (w) => {
  const now = w.after;
  const reasons = (name, what) => values(now, name, "reason").map((reason) => [what + reason, sum(now, name, { reason }), rate(w, name, { reason })]);
  const lost = ["datagrams: lost before reception", sum(now, "logweir_lost_datagrams_total"), rate(w, "logweir_lost_datagrams_total")];
  const all = [lost, ...reasons("logweir_dropped_lines_total", "lines: "), ...reasons("logweir_connections_refused_total", "connections: ")];
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
    const buffer = level("logweir_buffer_utilisation"), paused = pausedShare(w, f);
    return [level("logweir_disk_full") > 0 ? [shard + " (disk full)", "bad"] : shard, whole(level("logweir_connections")), [percent(buffer), buffer > 0.7 ? "warn" : ""],
      bytes(rate(w, "logweir_appended_bytes_total", f)), time(quantile(w, "logweir_write_seconds", 0.99, f)), short(rate(w, "logweir_syncs_total", f)),
      time(quantile(w, "logweir_sync_seconds", 0.5, f)), time(quantile(w, "logweir_sync_seconds", 0.99, f)), [percent(paused), paused > 0.05 ? "warn" : ""]];
  }), "none");
  targets(w);
};
// Only where something is shipped.
const targets = (w) => {
  const now = w.after, all = values(now, "logweir_ship_up", "target");
  $("targets-card").hidden = !all.length;
  fill("targets", all.map((target) => {
    const f = { target }, level = (name) => sum(now, "logweir_ship_" + name, f);
    const is_up = level("up") > 0, age = level("lag_seconds"), lost = level("lost_before_shipping_lines_total"), errors = level("errors_total");
    return [target, is_up ? "runs" : ["does not run", "bad"], short(rate(w, "logweir_ship_lines_total", f)), whole(level("lines_total")),
      whole(level("lag_lines")), bytes(level("lag_bytes")), [time(age), age > 60 ? "warn" : ""], [whole(errors), errors > 0 ? "warn" : ""], [whole(lost), lost > 0 ? "bad" : ""]];
  }), "none");
};
const figures = (w) => {
  const buffer = fullest(w.after);
  const drops = rate(w, "logweir_dropped_lines_total");
  say("now-lines", short(rate(w, "logweir_received_lines_total")));
  say("now-bytes", bytes(rate(w, "logweir_received_bytes_total")));
  say("now-buffer", percent(buffer));
  say("now-sync", time(quantile(w, "logweir_sync_seconds", 0.99)));
  say("now-drops", short(drops));
  say("now-connections", whole(sum(w.after, "logweir_connections")));
  const size = sum(w.after, "logweir_data_size_bytes"), room = sum(w.after, "logweir_data_free_bytes") / size;
  say("now-room", size > 0 ? percent(room) : UNKNOWN);
  $("box-room").className = room < 0.05 ? "bad" : room < 0.1 ? "warn" : "";
  $("box-buffer").className = buffer > 0.9 ? "bad" : buffer > 0.7 ? "warn" : "";
  $("box-drops").className = drops > 0 ? "bad" : "";
};
