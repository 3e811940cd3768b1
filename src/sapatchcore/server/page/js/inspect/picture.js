/** The image, a layer of its anomaly map over it, and lines around its regions; zoom with the wheel, move with the mouse. */

import { html, nothing, svg } from "../../vendor/lit-html/lit-html.js";
import { remember, remembered } from "../remember.js";
import { change } from "../store.js";
import { number, percent, t } from "../text.js";

export const LAYERS = ["none", "whole", "local", "context", "global_part"]; // keys 0 1 2 3 4; the last where the model has one

const look = { layer: "whole", opacity: remembered().opacity ?? 0.7, outlines: true, zoom: 1, x: 0, y: 0, of: null, cause: 0 };

export const lookingAt = look;

/** Whether the answer has this layer: a map of the image as a whole only models with a global part give. */
export const hasLayer = (layer, result) => layer !== "global_part" || result?.maps?.global_part != null;

/** The layer that a result shows: the chosen one, or the map where it lacks that. */
const layerOf = (result) => (hasLayer(look.layer, result) ? look.layer : "whole");

export function setLayer(layer) {
  look.layer = layer;
  change();
}

export function setOpacity(value) {
  look.opacity = Math.min(Math.max(value, 0), 1);
  remember({ opacity: look.opacity });
  change();
}

export function toggleOutlines() {
  look.outlines = !look.outlines;
  change();
}

export function setCause(index) {
  look.cause = index;
  change();
}

/** Zoom by `factor` around (x, y), given in the image's pixels; its middle where not given. */
export function zoomBy(factor, size, at = null) {
  const zoom = Math.min(Math.max(look.zoom * factor, 1), 40);
  const [x, y] = at ?? [size[0] / 2 / look.zoom - look.x / look.zoom, size[1] / 2 / look.zoom - look.y / look.zoom];
  moveTo(zoom, look.x + x * (look.zoom - zoom), look.y + y * (look.zoom - zoom), size);
}

export function zoomOut() {
  Object.assign(look, { zoom: 1, x: 0, y: 0 });
  change();
}

function moveTo(zoom, x, y, [width, height]) {
  const within = (value, side) => Math.min(0, Math.max(value, side * (1 - zoom)));
  Object.assign(look, { zoom, x: within(x, width), y: within(y, height) });
  change();
}

/** Where a mouse event lies, in the pixels of the image at zoom 1. */
function place(event) {
  const root = event.currentTarget;
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(root.getScreenCTM().inverse());
  return [(point.x - look.x) / look.zoom, (point.y - look.y) / look.zoom];
}

let grip = null;

function hold(event, size) {
  if (event.button !== 0 || look.zoom === 1) return;
  const scale = event.currentTarget.getScreenCTM().a;
  event.currentTarget.setPointerCapture(event.pointerId);
  grip = { from: [event.clientX, event.clientY], at: [look.x, look.y], scale, size };
}

function drag(event) {
  if (!grip) return;
  const [x, y] = [event.clientX - grip.from[0], event.clientY - grip.from[1]];
  moveTo(look.zoom, grip.at[0] + x / grip.scale, grip.at[1] + y / grip.scale, grip.size);
}

const release = () => (grip = null);

const png = (base64) => `data:image/png;base64,${base64}`;

/** Rectangle [top, left, height, width] twice: a dark casing under a light line, so that it reads on any ground. */
export const outline = ([top, left, height, width], kind) => svg`
  <rect class="casing" x=${left} y=${top} width=${width} height=${height} />
  <rect class="line ${kind}" x=${left} y=${top} width=${width} height=${height} />`;

/** What the network does not see, under a dark veil, which a map's picture has already; a thin line around what it sees. */
const border = ([width, height], [top, left, tall, wide], map) => svg`
  ${map ? nothing : svg`<path class="not-inspected" fill-rule="evenodd" d="M0 0H${width}V${height}H0ZM${left} ${top}h${wide}v${tall}h${-wide}Z" />`}
  <rect class="rim" x=${left} y=${top} width=${wide} height=${tall}><title>${t("not-inspected")}</title></rect>`;

/** The picture of one finished part, or of one that waits. */
export function picture(part) {
  const { result } = part;
  if (look.of !== part.id) Object.assign(look, { of: part.id, zoom: 1, x: 0, y: 0, cause: 0 });
  if (!result) return html`<div class="stage"><img class="plain" alt=${part.name} src=${part.url}></div>`;
  const size = [result.width, result.height];
  const layer = layerOf(result);
  const map = layer === "none" ? null : result.maps?.[layer];
  const causes = result.explanation?.causes ?? [];
  const chosen = causes.length > 1 ? causes[look.cause] : null; // of one there is nothing to tell apart
  return html`<div class="stage ${look.zoom > 1 ? "zoomed" : ""}">
    <svg viewBox="0 0 ${size[0]} ${size[1]}" role="img" aria-label=${described(part)} data-layer=${layer}
      @wheel=${{ handleEvent: (event) => { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.25 : 0.8, size, place(event)); }, passive: false }}
      @pointerdown=${(event) => hold(event, size)} @pointermove=${drag} @pointerup=${release} @pointercancel=${release}
      @dblclick=${zoomOut}>
      <g transform="translate(${look.x} ${look.y}) scale(${look.zoom})">
        <rect class="ground" width=${size[0]} height=${size[1]} />
        <image class="photo" href=${part.url} width=${size[0]} height=${size[1]} preserveAspectRatio="none" />
        ${map ? svg`<image class="layer" href=${png(map)} width=${size[0]} height=${size[1]} opacity=${look.opacity} preserveAspectRatio="none" />` : nothing}
        ${result.inspected ? border(size, result.inspected, map) : nothing}
        ${look.outlines ? result.regions.map((region) => outline(region.box, "region")) : nothing}
        ${look.outlines && chosen?.box ? outline(chosen.box, "chosen") : nothing}
      </g>
    </svg></div>`;
}

function described(part) {
  const shown = t(`layer-${layerOf(part.result)}`);
  return `${part.name || t("image")}: ${shown}, ${t("regions-n", { n: part.result.regions.length })}`;
}

/** Buttons and sliders of the picture. */
export function pictureTools(part) {
  const maps = part?.result?.maps;
  const size = part?.result ? [part.result.width, part.result.height] : null;
  return html`<div class="tools" role="toolbar" aria-label=${t("picture")}>
    <div class="btn-group" role="group" aria-label=${t("layer")}>
      ${LAYERS.map((layer, key) => !hasLayer(layer, part?.result) ? nothing : html`<button class="btn btn-outline-secondary ${layerOf(part?.result) === layer ? "active" : ""}" data-layer=${layer}
        aria-pressed=${layerOf(part?.result) === layer} ?disabled=${!maps && layer !== "none"} @click=${() => setLayer(layer)}>${t(`layer-${layer}`)} <kbd>${key}</kbd></button>`)}
    </div>
    <label class="opacity">${t("opacity")}
      <input class="form-range" id="opacity" type="range" min="0" max="1" step="0.05" .value=${String(look.opacity)} aria-valuetext=${percent(look.opacity)}
        ?disabled=${!maps} @input=${(event) => setOpacity(Number(event.target.value))}></label>
    <button class="btn btn-outline-secondary ${look.outlines ? "active" : ""}" aria-pressed=${look.outlines} @click=${toggleOutlines}>${t("outlines")} <kbd>B</kbd></button>
    <div class="btn-group" role="group" aria-label=${t("zoom")}>
      <button class="btn btn-outline-secondary" aria-label=${t("zoom-out")} ?disabled=${!size} @click=${() => zoomBy(0.8, size)}>−</button>
      <button class="btn btn-outline-secondary zoom" ?disabled=${!size} @click=${zoomOut} aria-label=${t("zoom-fit")}>${number(look.zoom, 2)}×</button>
      <button class="btn btn-outline-secondary" aria-label=${t("zoom-in")} ?disabled=${!size} @click=${() => zoomBy(1.25, size)}>+</button>
    </div>
  </div>`;
}
