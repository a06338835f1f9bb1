// Reading and correcting: images become lines, lines are looked at, what was looked at is saved.

import { $, ask, attempt, download, fetched, make, many, post, tell, Refused } from "./parts.js";

const SURE = 0.9, DOUBTFUL = 0.5;  // of a line's confidence
const LINE_ASPECT = 2.5, LEAST_PAGE_PX = 200;  // an image that is wider, or lower, is taken for one line (ocr/reading/document.py)
const MOST_AT_ONCE = 32, MOST_BYTES = 6e6;  // of a request that saves
const documents = [];              // {name, id, file, level, pages: [{bitmap}], lines: [...]}

const LOOKED_AT = ["right", "corrected"];
const lines = () => documents.flatMap((entry) => entry.lines);
const shown = () => {
  const kept = (line) => line.state !== "none";
  const order = $("order").value === "certainty" ? (one, other) => one.confidence - other.confidence : () => 0;
  const all = lines();
  return [...all.filter(kept).sort(order), ...all.filter((line) => !kept(line))];
};
export const unsaved = () => lines().some((line) => LOOKED_AT.includes(line.state));

let afterSaving = () => {};
export const onSaved = (call) => { afterSaving = call; };

// ---- reading

export async function readFiles(files) {
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
  const entry = { name: file.name || "pasted image", id: await idOf(file), file, level, pages: [], lines: [] };
  if (level === "line") {
    if (!bitmap) throw new Refused("this browser cannot show this kind of file as a line; choose “a page”");
    entry.pages.push({ bitmap });
    entry.lines.push(lineOf(entry, answer, 1, null, 0, answer.model, 1));
  }
  for (const [place, page] of (answer.pages ?? []).entries()) {
    const picture = bitmap ?? await pictureOf(page.image);
    entry.pages.push({ bitmap: picture, degrees: page.degrees, width: page.width, height: page.height });
    page.lines.forEach((line, number) => entry.lines.push(lineOf(entry, line, place + 1, line.polygon, line.degrees, answer.model, number + 1)));
  }
  documents.push(entry);
}

export async function readSample() {
  await attempt(async () => {
    const image = await fetched("v1/sample");
    await readFiles([new File([image], "sample.png", { type: "image/png" })]);
  });
}

function chosenLevel(bitmap) {
  const level = document.querySelector("input[name=level]:checked").value;
  if (level !== "auto") return level;
  const isLine = bitmap && (bitmap.height < LEAST_PAGE_PX || bitmap.width >= LINE_ASPECT * bitmap.height);
  return isLine ? "line" : "page";
}

function lineOf(entry, read, page, polygon, degrees, model, number) {
  return { entry, page, polygon, degrees, model, number, reading: read.text, confidence: read.confidence, text: read.text, state: read.text ? "" : "none" };
}

// The same for a file that is read again. Without https a browser gives no hash.
async function idOf(file) {
  if (!crypto.subtle) return `${file.name} ${file.size} ${file.lastModified}`;
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function pictureOf(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return createImageBitmap(image);
}

// ---- showing

const tone = (confidence) => (confidence >= SURE ? "high" : confidence >= DOUBTFUL ? "middle" : "low");

export function showWork() {
  $("work").hidden = !documents.length;
  $("sample").hidden = documents.length > 0;
  const pages = documents.filter((entry) => entry.level === "page").flatMap((entry) => entry.pages.map((page, place) => pageView(entry, page, place + 1)));
  $("pages").replaceChildren(...pages);
  $("work").classList.toggle("with-pages", pages.length > 0);
  $("lines").replaceChildren(...shown().map(lineRow));
  if (documents.length && !lines().length) tell("No line was found in these images.", true);
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
  const about = `${entry.name}${entry.pages.length > 1 ? `, page ${number}` : ""}: ${many(overlay.childElementCount, "line")}${turned}`;
  return make("figure", { class: "page-view" }, make("div", { class: "sheet" }, canvas, overlay), make("figcaption", {}, about));
}

function cropOf(line) {
  const bitmap = line.entry.pages[line.page - 1].bitmap;
  if (!line.polygon) return drawn(bitmap, 0, 0, bitmap.width, bitmap.height);
  const [a, b, , d] = line.polygon;
  const width = Math.max(1, Math.hypot(b[0] - a[0], b[1] - a[1])), height = Math.max(1, Math.hypot(d[0] - a[0], d[1] - a[1]));
  const canvas = make("canvas", { width: Math.ceil(width), height: Math.ceil(height) });
  const pen = canvas.getContext("2d");
  pen.rotate(-(line.degrees * Math.PI) / 180);
  pen.drawImage(bitmap, -a[0], -a[1]);
  return canvas;
}

function drawn(bitmap, left, top, width, height) {
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(bitmap, -left, -top);
  return canvas;
}

function lineRow(line) {
  const crop = cropOf(line);
  crop.className = "crop";
  crop.setAttribute("role", "img");
  crop.setAttribute("aria-label", `line ${line.number} of ${line.entry.name}`);
  line.field = make("textarea", { rows: 1, dir: "auto", spellcheck: "false", autocomplete: "off", autocapitalize: "off", "aria-label": `text of line ${line.number} of ${line.entry.name}, ${Math.round(line.confidence * 100)} % sure` });
  line.field.value = line.text;
  line.field.addEventListener("input", () => { line.text = line.field.value; mark(line, line.text.trim() === "" ? "none" : line.text === line.reading ? "" : "corrected"); });
  line.field.addEventListener("focus", () => line.outline?.classList.add("current"));
  line.field.addEventListener("blur", () => line.outline?.classList.remove("current"));
  line.field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    confirmText(line);
    next(line);
  });
  line.right = make("button", { type: "button", class: "right", title: "It says this", "aria-label": `line ${line.number}: it says this`, onclick: () => toggle(line, LOOKED_AT.includes(line.state) ? "" : textState(line)) }, "✓");
  line.none = make("button", { type: "button", class: "none", title: "There is no text here; leave it out", "aria-label": `line ${line.number}: no line`, onclick: () => toggle(line, line.state === "none" ? "" : "none") }, "no line");
  line.mark = make("span", { class: "state" });
  const where = line.entry.pages.length > 1 ? `${line.entry.name}, page ${line.page}` : line.entry.name;
  line.row = make("li", { class: tone(line.confidence) },
    crop, make("div", { class: "entry" }, line.field, line.right, line.none),
    make("div", { class: "under" }, make("span", {}, make("b", {}, `${Math.round(line.confidence * 100)} %`), ` sure · ${where}`), line.mark));
  mark(line, line.state);
  return line.row;
}

const textState = (line) => (line.text.trim() === "" ? "none" : line.text === line.reading ? "right" : "corrected");

function toggle(line, state) {
  mark(line, state);
  if (LOOKED_AT.includes(state)) next(line);
}

function confirmText(line) {
  if (line.state !== "saved") mark(line, line.state === "none" && line.text.trim() ? "none" : textState(line));
}

function next(line) {
  const all = shown();
  const rest = all.slice(all.indexOf(line) + 1).find((other) => other.state === "");
  (rest?.field ?? $("save")).focus();
}

function mark(line, state) {
  line.state = state;
  line.row.classList.toggle("checked", LOOKED_AT.includes(state));
  line.row.classList.toggle("saved", state === "saved");
  line.row.classList.toggle("left-out", state === "none");
  line.outline?.classList.toggle("left-out", state === "none");
  line.right.setAttribute("aria-pressed", String(LOOKED_AT.includes(state) || state === "saved"));
  line.none.setAttribute("aria-pressed", String(state === "none"));
  line.mark.textContent = { right: "✓ right", corrected: "✎ corrected", saved: "✓ saved", none: "left out" }[state] ?? "";
  countLines();
}

function countLines() {
  const all = lines(), looked = all.filter((line) => LOOKED_AT.includes(line.state)).length;
  const kept = all.filter((line) => line.state !== "none").length;
  $("count").textContent = all.length ? `${kept}${kept < all.length ? `, ${all.length - kept} left out` : ""}, ${looked} looked at` : "";
  $("save").textContent = looked ? `Save ${many(looked, "line")}` : "Save";
  $("save").disabled = !looked;
}

// ---- saving: each line with the part of the image that it is cut from, so a page's size does not matter

export async function save() {
  if ($("save").disabled) return;
  $("save").disabled = true;
  let stored = 0, unchanged = 0;
  await attempt(async () => {
    let batch = [], bytes = 0;
    const send = async () => {
      if (!batch.length) return;
      const images = Object.fromEntries(batch.map((one, place) => [`line ${place + 1}`, one.image]));
      const corrections = batch.map((one, place) => ({ ...one.correction, image: `line ${place + 1}` }));
      const answer = await post("v1/corrections", { images, corrections });
      stored += answer.stored;
      unchanged += answer.unchanged;
      batch.forEach((one) => mark(one.line, "saved"));
      batch = [];
      bytes = 0;
    };
    for (const line of lines().filter((line) => LOOKED_AT.includes(line.state))) {
      const one = await correctionOf(line);
      if (bytes + one.image.length > MOST_BYTES || batch.length === MOST_AT_ONCE) await send();
      batch.push(one);
      bytes += one.image.length;
    }
    await send();
    tell(`${stored} saved${unchanged ? `, ${unchanged} were there already` : ""}.`);
  });
  countLines();
  afterSaving();
}

// The box around a line's polygon is all that the endpoint cuts from, so the line's pixels are the same.
async function correctionOf(line) {
  const bitmap = line.entry.pages[line.page - 1].bitmap;
  const about = { text: line.text, reading: line.reading, confidence: line.confidence, model: line.model, document: `${line.entry.id}-${line.page}` };
  if (!line.polygon) return { line, correction: about, image: await base64Of(drawn(bitmap, 0, 0, bitmap.width, bitmap.height)) };
  const xs = line.polygon.map((corner) => corner[0]), ys = line.polygon.map((corner) => corner[1]);
  const left = Math.max(0, Math.floor(Math.min(...xs))), top = Math.max(0, Math.floor(Math.min(...ys)));
  const right = Math.min(bitmap.width, Math.ceil(Math.max(...xs))), bottom = Math.min(bitmap.height, Math.ceil(Math.max(...ys)));
  const polygon = line.polygon.map(([x, y]) => [x - left, y - top]);
  const image = await base64Of(drawn(bitmap, left, top, Math.max(1, right - left), Math.max(1, bottom - top)));
  return { line, correction: { ...about, polygon, degrees: line.degrees }, image };
}

async function base64Of(canvas) {
  const url = canvas.toDataURL("image/png");
  return url.slice(url.indexOf(",") + 1);
}

// ---- taking the text away

const textOf = () => documents.map((entry) => entry.pages.map((_, place) => entry.lines.filter((line) => line.page === place + 1 && line.state !== "none").map((line) => line.text).join("\n")).join("\n\n")).join("\n\n");
const fileName = (ending) => `${documents.length === 1 ? documents[0].name.replace(/\.[^.]*$/, "") : "lipi"}.${ending}`;

export async function copyText() {
  try {
    await navigator.clipboard.writeText(textOf());
    tell("Copied.");
  } catch {
    tell("This browser lets nothing be copied from here.", true);
  }
}

export const downloadText = () => download(fileName("txt"), `${textOf()}\n`, "text/plain;charset=utf-8");

export function downloadJson() {
  const lineValue = ({ text, reading, confidence, polygon }) => ({ text, reading, confidence, ...(polygon ? { polygon } : {}) });
  const value = documents.map((entry) => ({
    name: entry.name,
    model: entry.lines[0]?.model ?? null,
    pages: entry.pages.map((page, place) => ({ width: page.bitmap.width, height: page.bitmap.height, lines: entry.lines.filter((line) => line.page === place + 1 && line.state !== "none").map(lineValue) })),
  }));
  download(fileName("json"), `${JSON.stringify(value, null, 2)}\n`, "application/json");
}

// Files for other programs: the endpoint writes them of what it reads, one of each document.
export const downloadAs = (format) => attempt(async () => {
  for (const entry of documents) {
    const type = entry.file.type || "application/octet-stream";
    const content = await fetched(`v1/ocr?level=${entry.level}&format=${format}`, { method: "POST", headers: { "Content-Type": type }, body: entry.file });
    const ending = format === "pdf" ? "pdf" : content.type === "application/zip" ? "zip" : "xml";
    download(`${entry.name.replace(/\.[^.]*$/, "")}.${ending}`, content);
  }
});

export function clearWork() {
  if (unsaved() && !window.confirm("Some lines are not saved. Clear them all the same?")) return;
  documents.length = 0;
  $("drop").classList.remove("small");
  showWork();
}
