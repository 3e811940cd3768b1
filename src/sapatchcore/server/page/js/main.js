/** The page begins here: words, keys, the link to the server, and which view is open. */

import { render } from "../vendor/lit-html/lit-html.js";
import { redrawDialog } from "./dialog.js";
import { driftView } from "./engineer/drift.js";
import { historyView } from "./engineer/history.js";
import { learnView } from "./engineer/learn.js";
import { modelsView } from "./engineer/models.js";
import { rateView } from "./engineer/rate.js";
import { listen } from "./inspect/intake.js";
import { inspectView } from "./inspect/view.js";
import { listenForKeys, showKeys } from "./keys.js";
import { refresh } from "./link.js";
import { VIEWS, shell, viewsHere } from "./shell.js";
import { change, drawWith, state } from "./store.js";
import { firstLanguage, speak } from "./text.js";

const views = { inspect: inspectView, rate: rateView, history: historyView, learn: learnView, drift: driftView, models: modelsView };

let entered = null; // the view, model and reader for which the open view last fetched what it shows

/** The address says which view is open, so that Back works and a view can be bookmarked. */
function openFromAddress() {
  const wanted = location.hash.slice(1);
  change({ view: wanted in views ? wanted : "inspect" });
}

function draw() {
  if (state.ready && !viewsHere().includes(state.view)) state.view = "inspect";
  const now = `${state.view} ${state.model} ${state.me?.role}`;
  if (state.ready && !state.login && now !== entered) {
    entered = now;
    views[state.view].enter();
  }
  render(shell(views[state.view].template()), document.getElementById("page"));
  views[state.view].drawn?.();
  redrawDialog();
  document.title = `${state.model ?? "sapatchcore"} · sapatchcore`;
}

function press(key) {
  if (!state.me) return false;
  if (key === "?") showKeys();
  else if (views[state.view].key?.(key)) return true;
  else {
    const view = viewsHere().find((name) => VIEWS[name].toLowerCase() === key);
    if (!view) return false;
    location.hash = view;
  }
  return true;
}

state.language = firstLanguage(state.language);
await speak(state.language);
drawWith(draw);
window.addEventListener("hashchange", openFromAddress);
window.addEventListener("themed", () => change());
listen(() => {
  if (state.view !== "inspect") location.hash = "inspect";
});
listenForKeys(press);
openFromAddress();
refresh();
