// Words for numbers, and elements of the page. Texts reach the page as text only (textContent), never as markup.

const UNKNOWN = "–";
const short = (v) => {
  if (v === null || !Number.isFinite(v)) return UNKNOWN;
  const [d, unit] = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e4, " k"]].find(([least]) => Math.abs(v) >= least) || [1, ""];
  const scaled = v / (unit === " k" ? 1e3 : d);
  const digits = (unit === "" && Number.isInteger(v)) || Math.abs(scaled) >= 100 ? 0 : Math.abs(scaled) >= 10 ? 1 : 2;
  return scaled.toFixed(digits) + unit;
};
const bytes = (v) => (short(v) === UNKNOWN ? UNKNOWN : /\d$/.test(short(v)) ? short(v) + " B" : short(v) + "B");
const percent = (v) => (v === null ? UNKNOWN : (v * 100).toFixed(v > 0 && v < 0.1 ? 1 : 0) + " %");
const time = (s) => (s === null ? UNKNOWN : s < 1e-3 ? Math.round(s * 1e6) + " µs" : s < 1 ? (s * 1e3).toPrecision(3) + " ms" : s.toFixed(2) + " s");
const whole = (v) => Math.round(v).toLocaleString("en").replaceAll(",", "\u202f");
// A span of time in its two largest units.
const span = (seconds) => {
  const s = Math.max(0, Math.floor(seconds)), minutes = Math.floor(s / 60);
  if (minutes === 0) return `${s} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
};
// A time of day; with its day, where that is another one than today.
const clock = (date) => (date.toDateString() === new Date().toDateString() ? date.toLocaleTimeString() : date.toLocaleString());

const $ = (id) => document.getElementById(id);
const say = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};
const make = (tag, attributes = {}, text) => {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
};
