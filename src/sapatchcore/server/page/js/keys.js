/** The keyboard: letters open views and act in the one that is open; ? lists them. */

import { html } from "../vendor/lit-html/lit-html.js";
import { dialogIsOpen, openDialog } from "./dialog.js";
import { t } from "./text.js";

// What ? shows: [keys, text]. The views themselves act on them.
const SHOWN = [
  ["keys-everywhere", [["I", "view-inspect"], ["R", "view-rate"], ["H", "view-history"], ["L", "view-learn"], ["T", "view-drift"], ["M", "view-models"], ["?", "keys"]]],
  ["keys-inspect", [
    ["Ctrl V", "key-paste"], ["O", "open-images"], ["C", "camera"], ["␣ / ↵", "key-take"], ["← →", "key-step"], ["Home End", "key-ends"], ["N", "key-next-rejected"],
    ["0 1 2 3 4", "key-layers"], ["[ ]", "opacity"], ["B", "outlines"], ["+ − Z", "key-zoom"], ["G", "was-good"], ["D", "was-defect"], ["U", "undo"], ["A", "try-again"],
  ]],
  ["keys-tables", [["↑ ↓", "key-rows"], ["↵", "key-open"], ["← →", "key-rate"]]],
];

/** The list of keys, as a dialog. */
export function showKeys() {
  openDialog({
    title: () => t("keys"),
    template: () => html`<div class="keys">${SHOWN.map(([title, keys]) => html`<section><h3 class="fs-5">${t(title)}</h3>
      <dl>${keys.map(([key, text]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${t(text)}</dd></div>`)}</dl></section>`)}</div>`,
  });
}

/** The key as it is printed on it, lower case; by its place where an input method (Telex, for one) keeps the letter to itself. */
function named(event) {
  const byPlace = /^Key([A-Z])$/.exec(event.code);
  if (byPlace && !/^[ -~]$/.test(event.key)) return byPlace[1].toLowerCase();
  return event.key.toLowerCase();
}

const WRITES = "input:not([type=range], [type=checkbox], [type=file]), textarea, select, [contenteditable]";

/** Hand every key press that is not meant for a field to `act(key)`; what it took is not done twice. */
export function listenForKeys(act) {
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || dialogIsOpen()) return;
    if (event.target.closest?.(WRITES)) return;
    const pressed = named(event);
    const onControl = event.target.closest?.("button, a, summary, [role=row]");
    if (onControl && (pressed === " " || pressed === "enter")) return; // the focused control's own
    if (event.target.type === "range" && /^(arrow|home|end|page)/.test(pressed)) return;
    if (event.repeat && !/^(arrow|\[|\]|\+|-)/.test(pressed)) return;
    if (act(pressed)) event.preventDefault();
  });
}
