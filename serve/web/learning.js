// Learning: counts of corrections, training, models, and the list of what was corrected.

import { $, ask, attempt, download, fetched, make, many, moment, pause, percent, post, tell, Refused } from "./parts.js";

const PAGE_SIZE = 10;
const cell = (value, name) => make("td", name ? { class: name } : {}, value ?? "");
const heads = (...names) => make("thead", {}, make("tr", {}, ...names.map(([name, kind]) => make("th", kind ? { class: kind } : {}, name))));

let refresh = async () => {};
export const onChange = (call) => { refresh = call; };
let role = "train";
const may = (needed) => ["read", "correct", "train"].indexOf(role) >= ["read", "correct", "train"].indexOf(needed);

// Shows everything; returns whether something is under way.
export async function showLearning(stats) {
  role = (await ask("v1/key")).role;
  const models = (await ask("v1/models")).data, journal = await ask("v1/models/journal");
  const asked = may("correct") ? await ask("v1/retrain") : [];
  const last = asked.length ? await ask(`v1/retrain/${asked[0].id}`) : null;
  const running = Boolean(last && !last.ended);
  const live = models.find((model) => model.live)?.id;
  showFigures(stats);
  showTraining(stats, last, running, live);
  showErrors(stats);
  showModels(models, journal);
  $("stored").hidden = !may("correct") || !stats.corrections;
  if ($("stored").open && storedShown !== stats.corrections) await showStored(storedPage);
  $("journal").tBodies[0].replaceChildren(...[...journal].reverse().slice(0, 100).map((entry) => make("tr", {}, cell(moment(entry.at)), cell(entry.what), cell(entry.by), cell(entry.bundle), cell(entry.against ? `${entry.why ?? ""} (the gate had advised against it: ${entry.against})` : entry.why))));
  return running;
}

function showFigures(stats) {
  const figure = (name, value, note) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)), make("dd", { class: "note" }, note));
  $("figures").replaceChildren(
    figure("Corrections", stats.corrections, "lines that people looked at"),
    figure("Waiting", stats.waiting, "that no training has seen"),
    figure("Character errors", percent(stats.read.cer), `${many(stats.read.errors, "wrong character")} where the right text has ${stats.read.characters}`),
    figure("Lines all right", stats.read.lines ? percent(stats.read.right / stats.read.lines, 0) : "–", `${stats.read.right} of ${stats.read.lines}`));
}

// ---- training

const minutes = (seconds) => (seconds < 90 ? "about a minute" : seconds < 5400 ? `about ${Math.round(seconds / 60)} minutes` : `about ${Math.round(seconds / 3600)} hours`);

function showTraining(stats, last, running, live) {
  $("retrain").hidden = running;
  $("start").disabled = stats.corrections < stats.min_corrections || !may("train");
  $("training-note").textContent = running ? "" : !may("train") ? "Your key may not train; ask who runs this endpoint." : stats.corrections < stats.min_corrections ? `${many(stats.corrections, "correction")}; at least ${stats.min_corrections} are needed to train.` : `Trains the live model further on all ${stats.corrections} corrections, and on samples it knows, then tests it on lines that it was not trained on.`;
  $("progress").hidden = !running;
  $("log-box").hidden = !last;
  $("verdict").hidden = !last || running;
  if (!last) return;
  $("log").textContent = last.log;
  if (running) {
    const phase = last.status === "stopping" ? "stopping" : (last.phase || "starting").replace(/^fold_(\d+)$/, "held out in turn: part $1");
    $("phase").textContent = last.attempts > 1 ? `${phase} (resumed, attempt ${last.attempts})` : phase;
    $("meter").value = last.progress;
    $("percent").textContent = percent(last.progress, 0) + (last.seconds_left ? `, ${minutes(last.seconds_left)} left` : "");
    $("stop").hidden = !may("train");
    $("stop").disabled = last.status === "stopping";
    $("stop").dataset.id = last.id;
    return;
  }
  showVerdict(last, live);
}

const TITLES = { better: "Better", "too few to be sure": "Too few to be sure: you decide", refused: "Not better: the gate advises against it", failed: "Training failed", stopped: "Stopped" };

function showVerdict(last, live) {
  const box = $("verdict"), verdict = last.verdict?.verdict ?? last.status;
  const signature = JSON.stringify([last.id, last.status, live, role]);
  if (box.dataset.shown === signature) return;
  box.dataset.shown = signature;
  box.className = verdict === "better" ? "better" : verdict === "refused" || verdict === "failed" ? "refused" : "";
  const worse = last.verdict?.worse ?? [];
  const table = worse.length ? make("details", {}, make("summary", {}, `${many(worse.length, "line")} got worse`), make("div", { class: "scroll" }, make("table", {}, heads(["Text"], ["Before"], ["After"]),
    make("tbody", {}, ...worse.map((line) => make("tr", {}, cell(line.text, "script"), cell(line.old, "script"), cell(line.new, "script"))))))) : null;
  const promotable = last.candidate && last.candidate !== live && may("train");
  const button = promotable ? make("button", { id: "promote-candidate", onclick: () => promote(last.candidate, verdict) }, verdict === "refused" ? "Promote it all the same" : `Promote ${last.candidate}`) : null;
  box.replaceChildren(...[make("h3", {}, TITLES[verdict]), make("p", {}, last.why ?? ""), table, button].filter(Boolean));
}

export async function startTraining(event) {
  event.preventDefault();
  const given = Object.fromEntries([...new FormData($("retrain"))].filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
  await act("v1/retrain", given, "Training has begun.");
}

export async function stopTraining() {
  if (!window.confirm("End this training? What it has learnt so far is lost.")) return;
  await attempt(async () => {
    await ask(`v1/retrain/${$("stop").dataset.id}`, { method: "DELETE" });
    tell("The training is ending.");
  });
  refresh();
}

// ---- errors

function showErrors(stats) {
  const days = stats.days;
  $("chart").replaceChildren(days.length > 1 ? chart(days) : make("p", { class: "note" }, days.length ? `${days[0].day}: ${percent(days[0].cer)} in ${many(days[0].lines, "line")}.` : "Nothing yet."));
  $("by-model").replaceChildren(stats.models.length ? make("table", {}, heads(["Read by"], ["Lines", "n"], ["All right", "n"], ["Character errors", "n"]),
    make("tbody", {}, ...stats.models.map((one) => make("tr", {}, cell(one.model, "id"), cell(one.lines, "n"), cell(one.right, "n"), cell(percent(one.cer), "n"))))) : "");
}

function chart(days) {
  const width = 480, height = 160, left = 40, bottom = 22, top = 10;
  const most = Math.max(0.01, ...days.map((day) => day.cer));
  const x = (place) => left + (place * (width - left - 10)) / (days.length - 1), y = (cer) => height - bottom - (cer / most) * (height - bottom - top);
  const marks = [0, most].map((value) => [make("line", { class: "grid", x1: left, x2: width, y1: y(value), y2: y(value) }), make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, percent(value))]).flat();
  const points = days.map((day, place) => {
    const point = make("circle", { class: "point", cx: x(place), cy: y(day.cer), r: 3.5 });
    point.append(Object.assign(document.createElementNS("http://www.w3.org/2000/svg", "title"), { textContent: `${day.day}: ${percent(day.cer)} in ${many(day.lines, "line")}` }));
    return point;
  });
  const ends = [[0, "start"], [days.length - 1, "end"]].map(([place, anchor]) => make("text", { x: x(place), y: height - 4, "text-anchor": anchor }, days[place].day));
  return make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `character error rate by day, from ${percent(days[0].cer)} to ${percent(days.at(-1).cer)}` },
    ...marks, make("polyline", { class: "line", points: days.map((day, place) => `${x(place)},${y(day.cer)}`).join(" ") }), ...points, ...ends);
}

// ---- models

let modelsShown = "";
function showModels(models, journal) {
  const live = models.find((model) => model.live)?.id;
  const before = journal.filter((entry) => entry.what === "live" && entry.bundle !== live).at(-1)?.bundle;
  const pending = journal.some((entry) => ["promote", "traffic"].includes(entry.what) && !journal.some((other) => other.of === entry.id));
  const signature = JSON.stringify([models, before, pending, role]);
  if (signature === modelsShown) return;
  modelsShown = signature;
  const rows = [...models].sort((one, other) => (other.last_live ?? "").localeCompare(one.last_live ?? "")).map((model) => {
    const actions = make("div", { class: "row" });
    if (!model.live && may("train")) {
      actions.append(make("button", { disabled: pending, onclick: () => promote(model.id, model.verdict) }, model.id === before ? "Roll back to it" : "Promote"));
      actions.append(make("button", { disabled: pending, onclick: () => tryOut(model.id, model.share ? 0 : 0.1) }, model.share ? "End the trial" : "Try on 10 %"));
    }
    const tags = [model.live ? make("span", { class: "tag" }, "live") : null, model.share ? make("span", { class: "tag" }, `reads ${percent(model.share, 0)}`) : null];
    const name = make("td", { class: "id" }, model.id);
    name.append(...tags.filter(Boolean));
    return make("tr", { "data-model": model.id }, name, cell(model.verdict ?? "–"), cell(moment(model.last_live)), make("td", {}, actions));
  });
  $("models").tBodies[0].replaceChildren(...rows);
}

async function act(path, value, done) {
  await attempt(async () => {
    const asked = await post(path, value);
    let outcome = { what: "pending" };
    while (asked.promotion && outcome.what === "pending") {
      await refresh();
      await pause(500);
      outcome = await ask(asked.see.slice(1));
    }
    if (asked.promotion && outcome.what !== "live") throw new Refused(`${outcome.what}: ${outcome.why}`);
    tell(done);
  });
  refresh();
}

async function promote(bundle, verdict) {
  const against = "The gate found this model no better, or too forgetful. It is your right to promote it; the journal will say that the gate advised against it. Promote it?";
  if (verdict === "refused" && !window.confirm(against)) return;
  await act("v1/models/promote", { bundle, why: "from the web page" }, `${bundle} is live.`);
}

const tryOut = (candidate, share) => act("v1/models/traffic", { candidate, share }, share ? `${candidate} reads ${percent(share, 0)} of what comes.` : "The trial has ended.");

// ---- the stored corrections

let storedPage = 1, storedShown = -1;
export async function showStored(page) {
  await attempt(async () => {
    const found = await ask(`v1/corrections?page=${page}&size=${PAGE_SIZE}`);
    if (page > 1 && !found.data.length) return showStored(page - 1);
    [storedPage, storedShown] = [page, found.total];
    const rows = await Promise.all(found.data.map(storedRow));
    $("stored-rows").replaceChildren(...rows);
    $("stored-page").textContent = `Page ${page} of ${Math.max(1, found.pages)}`;
    $("stored-before").disabled = page <= 1;
    $("stored-after").disabled = page >= found.pages;
  });
}

async function storedRow(one) {
  const url = URL.createObjectURL(await fetched(`v1/corrections/${one.id}/image`));
  const image = make("img", { class: "crop", alt: "the corrected line", src: url, onload: () => URL.revokeObjectURL(url) });
  const who = [one.by ?? one.user, moment(one.at)].filter(Boolean).join(" · ");
  const texts = make("div", {}, make("div", { class: "script" }, one.text), one.reading != null && one.reading !== one.text ? make("small", { class: "script" }, `read as ${one.reading || "nothing"}`) : null);
  return make("li", {}, image, texts, make("div", { class: "under" }, make("span", {}, who), make("button", { class: "remove", onclick: () => removeStored(one) }, "Remove")));
}

async function removeStored(one) {
  if (!window.confirm(`Remove “${one.text}” for good? No later training will see it.`)) return;
  await attempt(async () => {
    await ask(`v1/corrections/${one.id}`, { method: "DELETE" });
    tell("Removed.");
    await showStored(storedPage);
  });
  refresh();
}

export const turnStored = (by) => showStored(storedPage + by);

// All pages of the export, a file each.
export async function exportAll(format, ending) {
  await attempt(async () => {
    const { total } = await ask("v1/corrections?size=1");
    for (let page = 1; (page - 1) * 1000 < total; page++) download(`corrections-${page}.${ending}`, await fetched(`v1/corrections/export?format=${format}&page=${page}`));
  });
}
