// Asks each second, shows what comes, and says so when nothing comes.

const PATIENCE = 4000;
// Longer between two answers than this, and what happened in between is no rate of now.
const GAP = 10000;

const status = (text, kind) => {
  say("status", text);
  $("status").className = kind;
};
const get = async (path) => {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), PATIENCE);
  try {
    const answer = await fetch(path, { signal: stop.signal, cache: "no-store" });
    return { code: answer.status, date: Date.parse(answer.headers.get("Date")), text: await answer.text() };
  } finally {
    clearTimeout(timer);
  }
};

// The last answer: the scrape, and when it came. `null`: none, or what comes next cannot be compared with it.
let last = null;
let answered = null;

// Which server this is. Its uptime is by its own clock: that of this browser may be another.
let about = {};
const identify = (scrape, date) => {
  const build = info(scrape, "logweir_build_info"), server = info(scrape, "logweir_server_info");
  const started = of(scrape, "process_start_time_seconds")[0];
  const uptime = started && Number.isFinite(date) ? span(date / 1000 - started.value) : UNKNOWN;
  const version = build.version ? `${build.version}${build.commit ? ` (${build.commit})` : ""}` : UNKNOWN;
  const engine = info(scrape, "logweir_engine_info").engine || UNKNOWN;
  about = { host: server.host || UNKNOWN, version, uptime, "data-dir": server.data_dir || UNKNOWN, engine };
  for (const [name, value] of Object.entries(about)) say(name, value);
};
const title = (isGood) => {
  const host = about.host && about.host !== UNKNOWN ? `${about.host} – ` : "";
  document.title = `${isGood ? "" : "\u26a0 "}${host}logweir`;
};

// What is shown is of now; or of a time that has passed, and then nothing on the page may read as if it were of now.
const asOfNow = (isMeasured) => {
  document.body.classList.remove("stale");
  say("when", isMeasured ? "Now" : "Now. What happens in a second is being measured…");
  say("uptime-name", "up");
  axes("2 min ago", "now");
};
const asOfThen = () => {
  if (!answered) return;
  const then = clock(answered.date);
  document.body.classList.add("stale");
  say("when", `As of ${then}, when the server last answered`);
  say("uptime-name", `at ${then} up`);
  axes("2 min before", then);
  balance(then);
};

const startOf = (scrape) => (of(scrape, "process_start_time_seconds")[0] || { value: 0 }).value;
const show = (after, at) => {
  // Another start is another run. The kernel's start of the machine, which is in it, may jump by a second.
  const isNext = last && at - last.at < GAP && Math.abs(startOf(after) - startOf(last.scrape)) < 2;
  const w = { before: isNext ? last.scrape : null, after, seconds: isNext ? Math.max(0.001, (at - last.at) / 1000) : 0 };
  asOfNow(isNext);
  account(after);
  figures(w);
  tables(w);
  charts.forEach((c) => draw(c, w, at));
  last = { at, scrape: after };
};
const poll = async () => {
  try {
    const { code, date, text } = await get("metrics");
    if (code !== 200) throw new Error(`status ${code}`);
    const at = performance.now(), after = parse(text);
    if (!after.has("logweir_ready")) throw new Error("what answers is no logweir");
    identify(after, date);
    const isReady = sum(after, "logweir_ready") > 0;
    const why = isReady ? "" : await get("readyz").then((a) => a.text.trim(), () => "it does not say why");
    answered = { at, date: new Date() };
    status(isReady ? "ready" : "not ready: " + why.slice(0, 300), isReady ? "good" : "bad");
    title(isReady);
    show(after, at);
    document.body.dataset.polls = String(Number(document.body.dataset.polls || 0) + 1);
  } catch (error) {
    last = null;
    const because = /^(status|what)/.test(error.message) ? ` (${error.message})` : "";
    status(`no answer ${answered ? "since " + clock(answered.date) : "yet"}${because}; asking again each second`, "bad");
    title(false);
    asOfThen();
  }
};
let timer = null, busy = false;
const turn = async () => {
  clearTimeout(timer);
  if (busy || document.hidden) return;
  busy = true;
  const start = performance.now();
  // The page was hidden, and nothing was asked for.
  if (answered && start - answered.at > 4 * EVERY) asOfThen();
  await poll();
  busy = false;
  timer = setTimeout(turn, Math.max(100, EVERY - (performance.now() - start)));
};
document.addEventListener("visibilitychange", turn);
turn();
