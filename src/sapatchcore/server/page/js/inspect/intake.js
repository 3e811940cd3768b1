/** How images come to the page: dropped anywhere, pasted, or chosen from a folder. */

import { html } from "../../vendor/lit-html/lit-html.js";
import { change, state } from "../store.js";
import { t } from "../text.js";
import { add } from "./queue.js";

let over = 0; // elements of the page that a dragged file is over; enter and leave come in pairs

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

export const dragging = () => over > 0;

/** Listen on the whole window; `toInspect()` brings the inspector's view up. */
export function listen(toInspect) {
  window.addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over += 1;
    change();
  });
  window.addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  window.addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    over = Math.max(0, over - 1);
    change();
  });
  window.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    over = 0;
    take(event.dataTransfer.files, toInspect);
  });
  window.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) take(files, toInspect);
  });
}

function take(files, toInspect) {
  change();
  if (!state.me || !files.length) return;
  toInspect();
  add(files);
}

export function openFiles() {
  document.getElementById("files")?.click();
}

/** The hidden file field behind the button. */
export const fileField = () => html`<input id="files" class="visually-hidden" type="file" accept="image/*" multiple tabindex="-1"
  aria-label=${t("open-images")}
  @change=${(event) => {
    add(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  }}>`;

/** What lies over the page while files are dragged. */
export const dropHint = () => html`<div class="drop-over" aria-hidden="true"><div>${t("drop-here")}</div></div>`;
