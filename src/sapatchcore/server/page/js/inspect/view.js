/** The inspector's view: verdict, picture, reasons, and the strip of this visit's images. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { repeat } from "../../vendor/lit-html/directives/repeat.js";
import { can, chosenModel, state } from "../store.js";
import { count, t } from "../text.js";
import { cameraCard, cameraIsOn, takePicture, toggleCamera } from "./camera.js";
import { fileField, openFiles } from "./intake.js";
import { goodPatches } from "./patches.js";
import { LAYERS, hasLayer, lookingAt, picture, pictureTools, setLayer, setOpacity, toggleOutlines, zoomBy, zoomOut } from "./picture.js";
import { judge, nextRejected, queue, retry, show, shownPart, step, unfinished } from "./queue.js";
import { judgement, numbers, promiseLine, sign, verdictBand } from "./verdict.js";
import { verdictWord } from "./words.js";

export const inspectView = { enter() {}, template, key, drawn };

function template() {
  const part = shownPart();
  return html`<main class="inspect ${part ? "" : "empty"}">
    ${verdictBand()}
    <div class="work">
      <div class="left">
        ${part ? html`${pictureTools(part)} ${picture(part)}` : empty()}
      </div>
      <aside class="right" tabindex="-1">
        ${fileField()} ${part ? sources() : nothing} ${cameraCard()}
        ${part ? html`<p class="name" title=${part.name}>${part.name || t("image")}</p>` : nothing}
        ${part?.result ? html`${goodPatches(part)} ${numbers(part)}` : nothing}
        ${promiseLine()}
      </aside>
    </div>
    ${part ? html`<div class="foot">${judgement(part)} ${strip()}</div>` : nothing}
  </main>`;
}

function sources() {
  return html`<div class="sources">
    <button class="btn btn-primary" data-open @click=${openFiles}>${t("open-images")} <kbd>O</kbd></button>
    <button class="btn btn-outline-primary ${cameraIsOn() ? "active" : ""}" aria-pressed=${cameraIsOn()} data-camera-on @click=${toggleCamera}>${t("camera")} <kbd>C</kbd></button>
  </div>`;
}

function empty() {
  const model = chosenModel();
  const problem = state.ready && !state.models.length ? t("no-models") : model?.state === "failed" ? t("model-failed", { name: model.name, error: model.error }) : null;
  return html`<div class="stage hint"><div>
    ${problem ? html`<p class="alert alert-danger" role="alert">${problem}</p>` : nothing}
    <p class="big">${t("drop-paste")}</p>
    <p>${t("drop-more")}</p>
    ${sources()}
  </div></div>`;
}

function strip() {
  const { parts } = queue;
  const [accepted, rejected] = ["accept", "reject"].map((verdict) => parts.filter((part) => part.result?.verdict === verdict).length);
  const waiting = unfinished();
  return html`<nav class="strip-bar" aria-label=${t("images")}>
    <p class="tally"><span>✓ ${count(accepted)}</span> <span>✕ ${count(rejected)}</span>
      ${waiting ? html`<small>${t("waiting-n", { n: waiting })}</small>` : nothing}</p>
    <div class="strip">${repeat(parts, (part) => part.id, thumbnail)}</div>
  </nav>`;
}

function thumbnail(part) {
  const verdict = part.state === "done" ? part.result.verdict : part.state === "failed" ? null : "wait";
  const word = part.state === "done" ? verdictWord(part.result.verdict) : t(`state-${part.state}`);
  return html`<button class="thumb ${part.id === queue.shown ? "active" : ""} ${part.state} ${verdict ?? ""}" data-part=${part.id}
    aria-current=${part.id === queue.shown} aria-label="${part.name}: ${word}" title=${part.name} @click=${() => show(part)}>
    <img alt="" src=${part.url} loading="lazy">${sign(verdict)}</button>`;
}

const STEPS = { arrowleft: -1, arrowright: 1 };
let scrolledTo = null;

/** Keep the part in view in the strip's view, too. */
function drawn() {
  if (queue.shown === scrolledTo) return;
  scrolledTo = queue.shown;
  document.querySelector(".thumb.active")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** What a key does here; true where it did something. */
function key(pressed) {
  const part = shownPart();
  const size = part?.result ? [part.result.width, part.result.height] : null;
  if (pressed in STEPS) step(STEPS[pressed]);
  else if (LAYERS[pressed] && hasLayer(LAYERS[pressed], part?.result)) setLayer(LAYERS[pressed]);
  else if (pressed === "[") setOpacity(lookingAt.opacity - 0.1);
  else if (pressed === "]") setOpacity(lookingAt.opacity + 0.1);
  else if (pressed === "b") toggleOutlines();
  else if ((pressed === "+" || pressed === "=") && size) zoomBy(1.25, size);
  else if (pressed === "-" && size) zoomBy(0.8, size);
  else if (pressed === "z") zoomOut();
  else if (pressed === "o") openFiles();
  else if (pressed === "c") toggleCamera();
  else if ((pressed === " " || pressed === "enter") && cameraIsOn()) takePicture();
  else if (pressed === "n") nextRejected();
  else if (pressed === "home") show(queue.parts[0]);
  else if (pressed === "end") show(queue.parts.at(-1));
  else if (pressed === "a" && part?.state === "failed") retry(part);
  else if (pressed === "g" && can("feedback")) judge("good");
  else if (pressed === "d" && can("feedback")) judge("defect");
  else if (pressed === "u" && can("feedback")) judge(null);
  else return false;
  return true;
}
