// What both views share: elements, the talk with the endpoint, messages.

export const $ = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
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

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
export const many = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;
export const percent = (share, digits = 1) => (share == null ? "–" : `${(100 * share).toFixed(digits)} %`);
export const moment = (at) => (at ? new Date(at).toLocaleString([], { dateStyle: "short", timeStyle: "short" }) : "–");

// ---- talking to the endpoint

export class Refused extends Error {}
export class KeyAsked extends Refused {}

const SAID = {  // in place of messages for programs
  unsupported_media_type: "This kind of file cannot be read; PNG, JPEG, WebP, TIFF, JPEG 2000 and PDF can.",
  body_too_large: "This file is too large for this endpoint; send a smaller image or fewer pages.",
  cross_site: "This page was not opened from the endpoint itself, so it may change nothing. Open the endpoint's own address.",
};
const ROLES = { correct: "Your key may read only; saving needs a key that may correct.", train: "Your key may not train or promote." };
const RETRIED = [502, 503, 504];

// A header is bytes: a key beyond ASCII is sent as UTF-8.
const asBytes = (text) => String.fromCharCode(...new TextEncoder().encode(text));

async function answered(path, options) {
  const key = sessionStorage.getItem("lipi-key");
  const headers = { ...options.headers, ...(key ? { Authorization: `Bearer ${asBytes(key)}` } : {}) };
  for (let trial = 0; ; trial++) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch {
      if (trial < 5) { await pause(300 * 2 ** trial); continue; }
      throw new Refused("The endpoint does not answer.");
    }
    if (answer.ok) return answer;
    if (RETRIED.includes(answer.status) && trial < 5) { await pause(300 * 2 ** trial); continue; }
    throw await refusal(answer);
  }
}

async function refusal(answer) {
  const said = (await answer.json().catch(() => null))?.error;
  if (answer.status === 401) return new KeyAsked(sessionStorage.getItem("lipi-key") ? "This key is not known here." : "This endpoint asks for a key.");
  if (said?.code === "not_allowed") return new Refused(ROLES[said.message.split(" ").at(-1)] ?? said.message);
  return new Refused(SAID[said?.code] ?? said?.message ?? `${answer.status} ${answer.statusText}`);
}

export const ask = async (path, options = {}) => (await answered(path, options)).json();
export const fetched = async (path, options = {}) => (await answered(path, options)).blob();
export const post = (path, value) => ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

export function download(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

let messageTimer;
export function tell(text, bad = false) {
  const box = $("message");
  box.textContent = text;
  box.classList.toggle("bad", bad);
  box.hidden = false;
  clearTimeout(messageTimer);
  if (!bad) messageTimer = setTimeout(() => { box.hidden = true; }, 6000);
}

// Runs what a person asked for; what the endpoint refuses is shown, our own mistakes are thrown.
export async function attempt(work) {
  try {
    await work();
  } catch (problem) {
    tell(problem.message, true);
    if (!(problem instanceof Refused)) throw problem;
  }
}
