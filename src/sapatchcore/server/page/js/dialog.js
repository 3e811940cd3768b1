/** The one dialog of the page, on Bootstrap's modal: it keeps the focus inside, and Escape closes it. */

import { html, nothing, render } from "../vendor/lit-html/lit-html.js";
import { t } from "./text.js";

let modal = null;
let content = null; // () => template of what is open
let closed = () => {};

const element = () => document.getElementById("dialog");

function draw() {
  if (content) render(content(), document.getElementById("dialog-content"));
}

/** Show `template()` as the dialog's body under `title()`; `buttons()` beside the one that closes. `after` runs when it closes. */
export function openDialog({ title, template, buttons = () => nothing, after = () => {} }) {
  closed();
  closed = after;
  content = () => html`
    <div class="modal-header">
      <h2 class="modal-title fs-4" id="dialog-title">${title()}</h2>
      <button type="button" class="btn-close" data-bs-dismiss="modal" aria-label=${t("close")}></button>
    </div>
    <div class="modal-body">${template()}</div>
    <div class="modal-footer">${buttons()}
      <button type="button" class="btn btn-outline-secondary btn-lg" data-bs-dismiss="modal">${t("close")}</button>
    </div>`;
  if (!modal) {
    modal = new window.bootstrap.Modal(element());
    element().addEventListener("hidden.bs.modal", () => {
      closed();
      closed = () => {};
      content = null;
      render(nothing, document.getElementById("dialog-content"));
    });
  }
  draw();
  modal.show();
}

export function closeDialog() {
  modal?.hide();
}

export const redrawDialog = draw;
export const dialogIsOpen = () => content !== null;

let fading = null;

/** Say `text` for some seconds at the page's foot. */
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(fading);
  fading = setTimeout(() => place.classList.remove("shown"), 5000);
}

/** Say `text` to those who listen instead of looking. */
export function announce(text) {
  document.getElementById("announce").textContent = text;
}
