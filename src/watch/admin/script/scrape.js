// What /metrics says: the text format, and what happened between two scrapes.

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
// The labels of a metric that is always 1.
const info = (scrape, name) => (of(scrape, name)[0] || { labels: {} }).labels;

// A window is two scrapes and the seconds between them. Without the first, rates and quantiles are not known yet: null.
// A counter that is smaller than before began anew.
const growths = (w, name, filter) => {
  const before = new Map(of(w.before, name, filter).map((s) => [s.key, s.value]));
  return of(w.after, name, filter).map((s) => {
    const b = before.get(s.key) || 0;
    const n = s.value < b ? s.value : s.value - b;
    return { labels: s.labels, n: Number.isFinite(n) ? n : 0 };
  });
};
const rate = (w, name, filter) => (w.before ? growths(w, name, filter).reduce((a, g) => a + g.n, 0) / w.seconds : null);
const quantile = (w, name, q, filter) => {
  if (!w.before) return null;
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

// The share of the time in which reading was paused, at most all of it.
const pausedShare = (w, filter) => {
  const share = rate(w, "logweir_backpressure_seconds_total", filter);
  return share === null ? null : Math.min(1, share);
};
// The fullest shard's share of its buffer in use.
const fullest = (scrape) => Math.max(0, ...of(scrape, "logweir_buffer_utilisation").map((s) => s.value));
