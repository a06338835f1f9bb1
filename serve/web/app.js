// The page of the endpoint: read, correct, watch it learn. No library, no build step, nothing from elsewhere; what was read is only ever shown as text.

import { $, ask, KeyAsked, Refused, tell } from "./parts.js";
import { clearWork, copyText, downloadJson, downloadText, onSaved, readFiles, readSample, save, showWork, unsaved } from "./reading.js";
import { exportAll, onChange, showLearning, showStored, startTraining, stopTraining, turnStored } from "./learning.js";

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
    locked(false);
  } catch (problem) {
    if (problem instanceof KeyAsked) {
      locked(true, problem.message);
    } else {
      document.querySelector(".dot").classList.remove("on");
      if (!(problem instanceof Refused)) throw problem;
      tell(problem.message, true);
    }
  } finally {
    timer = setTimeout(refresh, busy ? 1000 : 5000);
  }
}

// While a key is asked for, nothing else can be done.
function locked(on, why) {
  $("key-form").hidden = !on;
  if (on) $("key-label").textContent = `${why} It stays in this tab.`;
  for (const id of ["read", "learn"]) $(id).inert = on;
}

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
window.addEventListener("beforeunload", (event) => { if (unsaved()) event.preventDefault(); });
const clicks = {
  sample: readSample, save, copy: copyText, "as-text": downloadText, "as-json": downloadJson, clear: clearWork, stop: stopTraining,
  "stored-before": () => turnStored(-1), "stored-after": () => turnStored(1), "export-zip": () => exportAll("zip", "zip"), "export-tasks": () => exportAll("label_studio", "json"),
};
for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", act);
$("order").addEventListener("change", showWork);
$("stored").addEventListener("toggle", () => { if ($("stored").open) showStored(1); });
$("retrain").addEventListener("submit", startTraining);
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); sessionStorage.setItem("lipi-key", $("key").value); $("message").hidden = true; refresh(); });
onSaved(refresh);
onChange(refresh);
show(location.hash === "#learn" ? "learn" : "read");
