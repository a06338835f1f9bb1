// The page of the endpoint: read, correct, watch it learn. No library, no build step, nothing from elsewhere; what was read is only ever shown as text.

const $ = (id) => document.getElementById(id);
const SURE = 0.9, DOUBTFUL = 0.5;       // of a line's confidence
const LINE_ASPECT = 2.5;                  // wider than this, an image is taken for one line
const documents = [];                    // {name, base64, pages: [{bitmap}], lines: [...]}
let everyLine = [];

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polygon", "polyline", "circle", "line", "text"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// ---- talking to the endpoint

class Refused extends Error {}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("lipi-key");
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  for (let trial = 0; ; trial++) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch {
      if (trial < 5) { await pause(300 * 2 ** trial); continue; }
      throw new Refused("The endpoint does not answer.");
    }
    if (answer.ok) return answer.json();
    if ([502, 503, 504].includes(answer.status) && trial < 5) { await pause(300 * 2 ** trial); continue; }
    const said = await answer.json().catch(() => null);
    if (answer.status === 401) $("key-form").hidden = false;
    throw new Refused(said?.error?.message ?? `${answer.status} ${answer.statusText}`);
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const post = (path, value) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

let messageTimer;
function tell(text, bad = false) {
  const box = $("message");
  box.textContent = text;
  box.classList.toggle("bad", bad);
  box.hidden = false;
  clearTimeout(messageTimer);
  if (!bad) messageTimer = setTimeout(() => { box.hidden = true; }, 6000);
}

// ---- reading

async function readFiles(files) {
  const waiting = [...files];
  if (!waiting.length) return;
  $("drop").classList.add("small");
  for (const [place, file] of waiting.entries()) {
    tell(`Reading ${file.name} (${place + 1} of ${waiting.length})…`);
    try {
      await readFile(file);
    } catch (problem) {
      tell(`${file.name}: ${problem.message}`, true);
      if (!(problem instanceof Refused)) throw problem;
      return showWork();
    }
  }
  $("message").hidden = true;
  showWork();
  document.querySelector("#lines textarea")?.focus({ preventScroll: true });
}

async function readFile(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);  // PDF and TIFF: the endpoint sends what it drew
  const level = chosenLevel(bitmap);
  const type = file.type || "application/octet-stream";
  const answer = await ask(`v1/ocr?level=${level}${bitmap ? "" : "&detail=images"}`, { method: "POST", headers: { "Content-Type": type }, body: file });
  const entry = { name: file.name || "pasted image", base64: await base64Of(file), level, pages: [], lines: [] };
  if (level === "line") {
    const picture = bitmap ?? await pictureOf(file);
    entry.pages.push({ bitmap: picture });
    entry.lines.push(lineOf(entry, answer, 1, null, 0, answer.model, 1));
  }
  for (const [place, page] of (answer.pages ?? []).entries()) {
    const picture = bitmap ?? await pictureOf(page.image);
    entry.pages.push({ bitmap: picture, degrees: page.degrees, width: page.width, height: page.height });
    page.lines.forEach((line, number) => entry.lines.push(lineOf(entry, line, place + 1, line.polygon, page.degrees, answer.model, number + 1)));
  }
  documents.push(entry);
  everyLine.push(...entry.lines);
}

function chosenLevel(bitmap) {
  const level = document.querySelector("input[name=level]:checked").value;
  if (level !== "auto") return level;
  return bitmap && bitmap.width > LINE_ASPECT * bitmap.height ? "line" : "page";
}

function lineOf(entry, read, page, polygon, degrees, model, number) {
  return { entry, page, polygon, degrees, model, number, reading: read.text, confidence: read.confidence, text: read.text, state: "" };
}

async function base64Of(file) {
  const url = await new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(new Refused("cannot be opened"));
    reader.readAsDataURL(file);
  });
  return url.slice(url.indexOf(",") + 1);
}

async function pictureOf(source) {
  if (typeof source !== "string") throw new Refused("this browser cannot show this kind of file as a line; choose “a page”");
  const image = new Image();
  image.src = source;
  await image.decode();
  return createImageBitmap(image);
}

// ---- showing and correcting

const tone = (confidence) => (confidence >= SURE ? "high" : confidence >= DOUBTFUL ? "middle" : "low");

function showWork() {
  $("work").hidden = !everyLine.length && !documents.length;
  everyLine.sort((one, other) => one.confidence - other.confidence);
  const pages = documents.filter((entry) => entry.level === "page").flatMap((entry) => entry.pages.map((page, place) => pageView(entry, page, place + 1)));
  $("pages").replaceChildren(...pages);
  $("work").classList.toggle("with-pages", pages.length > 0);
  $("lines").replaceChildren(...everyLine.map(lineRow));
  if (documents.length && !everyLine.length) tell("No line was found in these images.", true);
  countLines();
}

function pageView(entry, page, number) {
  const canvas = make("canvas", { width: page.bitmap.width, height: page.bitmap.height });
  canvas.getContext("2d").drawImage(page.bitmap, 0, 0);
  const overlay = make("svg", { viewBox: `0 0 ${page.width} ${page.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const line of entry.lines.filter((line) => line.page === number && line.polygon)) {
    line.outline = make("polygon", { points: line.polygon.map((corner) => corner.join(",")).join(" "), class: tone(line.confidence), onclick: () => line.field.focus() });
    overlay.append(line.outline);
  }
  const turned = Math.abs(page.degrees ?? 0) >= 0.1 ? `, turned by ${page.degrees}°` : "";
  const about = `${entry.name}${entry.pages.length > 1 ? `, page ${number}` : ""}: ${overlay.childElementCount} ${overlay.childElementCount === 1 ? "line" : "lines"}${turned}`;
  return make("figure", { class: "page-view" }, canvas, overlay, make("figcaption", {}, about));
}

function cropOf(line) {
  const bitmap = line.entry.pages[line.page - 1].bitmap;
  if (!line.polygon) {
    const canvas = make("canvas", { class: "crop", width: bitmap.width, height: bitmap.height });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas;
  }
  const [a, b, , d] = line.polygon;
  const width = Math.max(1, Math.hypot(b[0] - a[0], b[1] - a[1])), height = Math.max(1, Math.hypot(d[0] - a[0], d[1] - a[1]));
  const canvas = make("canvas", { class: "crop", width: Math.ceil(width), height: Math.ceil(height) });
  const pen = canvas.getContext("2d");
  pen.rotate(-(line.degrees * Math.PI) / 180);
  pen.drawImage(bitmap, -a[0], -a[1]);
  return canvas;
}

function lineRow(line) {
  const id = `line-${everyLine.indexOf(line)}`;
  const crop = cropOf(line);
  crop.setAttribute("role", "img");
  crop.setAttribute("aria-label", `line ${line.number} of ${line.entry.name}`);
  line.field = make("textarea", { id, rows: 1, dir: "auto", spellcheck: "false", autocomplete: "off", autocapitalize: "off", "aria-label": `text of line ${line.number} of ${line.entry.name}, ${Math.round(line.confidence * 100)} % sure` });
  line.field.value = line.text;
  line.field.addEventListener("input", () => { line.text = line.field.value; mark(line, line.text === line.reading ? "" : "corrected"); });
  line.field.addEventListener("focus", () => line.outline?.classList.add("current"));
  line.field.addEventListener("blur", () => line.outline?.classList.remove("current"));
  line.field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    confirm(line);
    next(line);
  });
  const right = make("button", { type: "button", title: "It says this", "aria-label": `line ${line.number}: it says this`, onclick: () => { confirm(line); next(line); } }, "✓");
  line.mark = make("span", { class: "state" });
  const where = line.entry.pages.length > 1 ? `${line.entry.name}, page ${line.page}` : line.entry.name;
  line.row = make("li", { class: tone(line.confidence) },
    crop, make("div", { class: "entry" }, line.field, right),
    make("div", { class: "under" }, make("span", {}, make("b", {}, `${Math.round(line.confidence * 100)} %`), ` sure · ${where}`), line.mark));
  mark(line, line.state);
  return line.row;
}

function confirm(line) {
  if (line.state !== "saved") mark(line, line.text === line.reading ? "right" : "corrected");
}

function next(line) {
  const rest = everyLine.slice(everyLine.indexOf(line) + 1).find((other) => other.state === "");
  (rest?.field ?? $("save")).focus();
}

function mark(line, state) {
  line.state = state;
  line.row.classList.toggle("checked", state === "right" || state === "corrected");
  line.row.classList.toggle("saved", state === "saved");
  line.mark.textContent = { right: "✓ right", corrected: "✎ corrected", saved: "✓ saved" }[state] ?? "";
  countLines();
}

function countLines() {
  const looked = everyLine.filter((line) => line.state === "right" || line.state === "corrected").length;
  $("count").textContent = everyLine.length ? `${everyLine.length}, ${looked} looked at` : "";
  $("save").textContent = looked ? `Save ${looked} ${looked === 1 ? "line" : "lines"}` : "Save";
  $("save").disabled = !looked;
}

async function save() {
  if ($("save").disabled) return;
  $("save").disabled = true;
  let stored = 0, unchanged = 0;
  try {
    for (const entry of documents) {
      const looked = entry.lines.filter((line) => line.state === "right" || line.state === "corrected");
      if (!looked.length) continue;
      const sent = looked.map((line) => ({
        image: "document", page: line.page, text: line.text, reading: line.reading, confidence: line.confidence, model: line.model,
        ...(line.polygon ? { polygon: line.polygon, degrees: line.degrees } : {}),
      }));
      const answer = await post("v1/corrections", { images: { document: entry.base64 }, corrections: sent });
      stored += answer.stored;
      unchanged += answer.unchanged;
      looked.forEach((line) => mark(line, "saved"));
    }
    tell(`${stored} saved${unchanged ? `, ${unchanged} were there already` : ""}.`);
  } catch (problem) {
    tell(`Not everything was saved: ${problem.message}`, true);
    if (!(problem instanceof Refused)) throw problem;
  } finally {
    countLines();
    refresh();
  }
}

async function copyText() {
  const text = documents.map((entry) => entry.lines.map((line) => line.text).join("\n")).join("\n\n");
  try {
    await navigator.clipboard.writeText(text);
    tell("Copied.");
  } catch {
    tell("This browser lets nothing be copied from here.", true);
  }
}

function clearWork() {
  if (everyLine.some((line) => line.state === "right" || line.state === "corrected") && !window.confirm("Some lines are not saved. Clear them all the same?")) return;
  documents.length = 0;
  everyLine = [];
  $("drop").classList.remove("small");
  showWork();
}

// ---- learning

let timer;
async function refresh() {
  clearTimeout(timer);
  let busy = false;
  try {
    const ready = await ask("readyz");
    $("live").textContent = ready.model;
    document.querySelector(".dot").classList.add("on");
    const stats = await ask("v1/corrections/stats");
    $("waiting-badge").textContent = stats.waiting;
    $("waiting-badge").hidden = !stats.waiting;
    if (!$("learn").hidden) busy = await showLearning(stats);
    $("key-form").hidden = true;
  } catch (problem) {
    document.querySelector(".dot").classList.remove("on");
    if (!(problem instanceof Refused)) throw problem;
    tell(problem.message, true);
  } finally {
    timer = setTimeout(refresh, busy ? 1000 : 5000);
  }
}

const percent = (share, digits = 1) => (share == null ? "–" : `${(100 * share).toFixed(digits)} %`);
const cell = (value, name) => make("td", name ? { class: name } : {}, value ?? "");
const moment = (at) => (at ? new Date(at).toLocaleString([], { dateStyle: "short", timeStyle: "short" }) : "–");

async function showLearning(stats) {
  const [models, asked, journal] = await Promise.all([ask("v1/models"), ask("v1/retrain"), ask("v1/models/journal")]);
  const last = asked.length ? await ask(`v1/retrain/${asked[0].id}`) : null;
  const running = last && (last.status === "running" || last.status === "waiting");
  showFigures(stats);
  showTraining(stats, last, running, models.data.find((model) => model.live)?.id);
  showErrors(stats);
  showModels(models.data, journal);
  $("journal").tBodies[0].replaceChildren(...[...journal].reverse().slice(0, 100).map((entry) => make("tr", {}, cell(moment(entry.at)), cell(entry.what), cell(entry.bundle), cell(entry.why))));
  return running;
}

function showFigures(stats) {
  const figure = (name, value, note) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)), make("dd", { class: "note" }, note));
  $("figures").replaceChildren(
    figure("Corrections", stats.corrections, "lines that people looked at"),
    figure("Waiting", stats.waiting, "that no training has seen"),
    figure("Character errors", percent(stats.read.cer), `${stats.read.errors} in ${stats.read.characters} characters that were read`),
    figure("Lines all right", stats.read.lines ? percent(stats.read.right / stats.read.lines, 0) : "–", `${stats.read.right} of ${stats.read.lines}`));
}

function showTraining(stats, last, running, live) {
  $("retrain").hidden = running;
  $("start").disabled = stats.corrections < stats.min_corrections;
  $("training-note").textContent = running ? "" : stats.corrections < stats.min_corrections ? `${stats.corrections} corrections; at least ${stats.min_corrections} are needed to train.` : `Trains the live model further on all ${stats.corrections} corrections, and on replayed samples, then evaluates it on held-out lines.`;
  $("progress").hidden = !running;
  $("log-box").hidden = !last;
  $("verdict").hidden = !last || running;
  if (!last) return;
  $("log").textContent = last.log;
  if (running) {
    const phase = (last.phase || "starting").replace(/^fold_(\d+)$/, "held out in turn: part $1");
    $("phase").textContent = last.attempts > 1 ? `${phase} (resumed, attempt ${last.attempts})` : phase;
    $("meter").value = last.progress;
    $("percent").textContent = percent(last.progress, 0);
    return;
  }
  showVerdict(last, live);
}

function showVerdict(last, live) {
  const box = $("verdict"), verdict = last.verdict?.verdict ?? "failed";
  const signature = JSON.stringify([last.id, last.status, live]);
  if (box.dataset.shown === signature) return;
  box.dataset.shown = signature;
  box.className = verdict === "better" ? "better" : verdict === "refused" || verdict === "failed" ? "refused" : "";
  const worse = last.verdict?.worse ?? [];
  const table = worse.length ? make("details", {}, make("summary", {}, `${worse.length} lines got worse`), make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "Text"), make("th", {}, "Before"), make("th", {}, "After"))),
    make("tbody", {}, ...worse.map((line) => make("tr", {}, cell(line.text, "script"), cell(line.old, "script"), cell(line.new, "script"))))))) : null;
  const title = { better: "Better", "too few to be sure": "Too few to be sure: you decide", refused: "Refused", failed: "Training failed" }[verdict];
  box.replaceChildren(...[make("h3", {}, title), make("p", {}, last.why ?? ""), table,
    last.candidate && verdict !== "refused" && last.candidate !== live ? make("button", { id: "promote-candidate", onclick: () => promote(last.candidate) }, `Promote ${last.candidate}`) : null].filter(Boolean));
}

function showErrors(stats) {
  const days = stats.days;
  $("chart").replaceChildren(days.length > 1 ? chart(days) : make("p", { class: "note" }, days.length ? `${days[0].day}: ${percent(days[0].cer)} in ${days[0].lines} lines.` : "Nothing yet."));
  $("by-model").replaceChildren(stats.models.length ? make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "Read by"), make("th", { class: "n" }, "Lines"), make("th", { class: "n" }, "All right"), make("th", { class: "n" }, "CER"))),
    make("tbody", {}, ...stats.models.map((one) => make("tr", {}, cell(one.model), cell(one.lines, "n"), cell(one.right, "n"), cell(percent(one.cer), "n"))))) : "");
}

function chart(days) {
  const width = 480, height = 160, left = 40, bottom = 22, top = 10;
  const most = Math.max(0.01, ...days.map((day) => day.cer));
  const x = (place) => left + (place * (width - left - 10)) / (days.length - 1), y = (cer) => height - bottom - (cer / most) * (height - bottom - top);
  const marks = [0, most].map((value) => [make("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }), make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, percent(value))]).flat();
  const points = days.map((day, place) => {
    const point = make("circle", { class: "point", cx: x(place), cy: y(day.cer), r: 3.5 });
    point.append(Object.assign(document.createElementNS("http://www.w3.org/2000/svg", "title"), { textContent: `${day.day}: ${percent(day.cer)} in ${day.lines} lines` }));
    return point;
  });
  const ends = [[0, "start"], [days.length - 1, "end"]].map(([place, anchor]) => make("text", { x: x(place), y: height - 4, "text-anchor": anchor }, days[place].day));
  return make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `character error rate by day, from ${percent(days[0].cer)} to ${percent(days.at(-1).cer)}` },
    ...marks, make("polyline", { class: "line", points: days.map((day, place) => `${x(place)},${y(day.cer)}`).join(" ") }), ...points, ...ends);
}

let modelsShown = "";
function showModels(models, journal) {
  const live = models.find((model) => model.live)?.id;
  const before = journal.filter((entry) => entry.what === "live" && entry.bundle !== live).at(-1)?.bundle;
  const pending = journal.some((entry) => ["promote", "traffic"].includes(entry.what) && !journal.some((other) => other.of === entry.id));
  const signature = JSON.stringify([models, before, pending]);
  if (signature === modelsShown) return;
  modelsShown = signature;
  const rows = [...models].sort((one, other) => (other.last_live ?? "").localeCompare(one.last_live ?? "")).map((model) => {
    const cers = Object.values(model.cer ?? {});
    const actions = make("div", { class: "row" });
    if (!model.live) {
      actions.append(make("button", { disabled: pending, onclick: () => promote(model.id) }, model.id === before ? "Roll back to it" : "Promote"));
      actions.append(make("button", { disabled: pending, onclick: () => tryOut(model.id, model.share ? 0 : 0.1) }, model.share ? "End the trial" : "Try on 10 %"));
    }
    const tags = [model.live ? make("span", { class: "tag" }, "live") : null, model.share ? make("span", { class: "tag" }, `reads ${percent(model.share, 0)}`) : null];
    const name = make("td", {}, model.id);
    name.append(...tags.filter(Boolean));
    return make("tr", { "data-model": model.id }, name, cell(percent(cers.length ? Math.min(...cers) : null, 2), "n"), cell(model.verdict), cell(moment(model.last_live)), make("td", {}, actions));
  });
  $("models").tBodies[0].replaceChildren(...rows);
}

async function act(path, value, done) {
  try {
    const asked = await post(path, value);
    let outcome = { what: "pending" };
    while (asked.promotion && outcome.what === "pending") {
      await refresh();
      await pause(500);
      outcome = await ask(asked.see.slice(1));
    }
    if (asked.promotion && outcome.what !== "live") throw new Refused(`${outcome.what}: ${outcome.why}`);
    tell(done);
  } catch (problem) {
    tell(problem.message, true);
    if (!(problem instanceof Refused)) throw problem;
  }
  refresh();
}

const promote = (bundle) => act("v1/models/promote", { bundle, why: "from the web page" }, `${bundle} is live.`);
const tryOut = (candidate, share) => act("v1/models/traffic", { candidate, share }, share ? `${candidate} reads ${percent(share, 0)} of what comes.` : "The trial has ended.");

async function startTraining(event) {
  event.preventDefault();
  const given = Object.fromEntries([...new FormData($("retrain"))].filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
  await act("v1/retrain", given, "Training has begun.");
}

// ---- wiring

function show(view) {
  for (const name of ["read", "learn"]) {
    $(name).hidden = name !== view;
    $(`tab-${name}`).setAttribute("aria-selected", String(name === view));
    $(`tab-${name}`).tabIndex = name === view ? 0 : -1;
  }
  history.replaceState(null, "", view === "learn" ? "#learn" : location.pathname);
  refresh();
}

for (const name of ["read", "learn"]) {
  $(`tab-${name}`).addEventListener("click", () => show(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "read" ? "learn" : "read";
    show(other);
    $(`tab-${other}`).focus();
  });
}
$("files").addEventListener("change", async (event) => { await readFiles(event.target.files); event.target.value = ""; });
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer?.files.length) { show("read"); readFiles(event.dataTransfer.files); }
  });
}
document.addEventListener("paste", (event) => { if (event.clipboardData?.files.length) { show("read"); readFiles(event.clipboardData.files); } });
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && (event.key === "s" || event.key === "Enter")) { event.preventDefault(); save(); }
});
window.addEventListener("beforeunload", (event) => { if (everyLine.some((line) => line.state === "right" || line.state === "corrected")) event.preventDefault(); });
$("save").addEventListener("click", save);
$("copy").addEventListener("click", copyText);
$("clear").addEventListener("click", clearWork);
$("retrain").addEventListener("submit", startTraining);
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); sessionStorage.setItem("lipi-key", $("key").value); $("message").hidden = true; refresh(); });
show(location.hash === "#learn" ? "learn" : "read");
