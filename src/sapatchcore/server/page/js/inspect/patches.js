/** Why: each region's worst place beside the good patch that comes nearest to it. */

import { html, nothing, svg } from "../../vendor/lit-html/lit-html.js";
import { number, t } from "../text.js";
import { lookingAt, outline, setCause } from "./picture.js";

/** The nearest good patches of a finished part. */
export function goodPatches(part) {
  const causes = part.result.explanation?.causes;
  if (!causes?.length) return nothing;
  return html`<section class="patches">
    <h2>${t("nearest-good")}</h2>
    <ol>${causes.map((cause, index) => html`<li>
      <button class="pair ${lookingAt.cause === index ? "active" : ""}" aria-pressed=${lookingAt.cause === index} data-cause=${index}
        aria-label=${t("cause-n", { n: index + 1, name: cause.good.image })} @click=${() => setCause(index)}>
        <figure>${here(part, cause)}<figcaption>${t("here")}</figcaption></figure>
        <figure>${there(cause.good)}<figcaption title=${cause.good.image}>${shortName(cause.good.image)}</figcaption></figure>
      </button>
      <p>${t("distance", { score: number(cause.score, 3) })}</p>
    </li>`)}</ol>
  </section>`;
}

function here(part, cause) {
  const { width, height } = part.result;
  return html`<svg viewBox="0 0 ${width} ${height}" role="img" aria-label=${t("here")}>
    <image href=${part.url} width=${width} height=${height} preserveAspectRatio="none" />${cause.box ? outline(cause.box, "chosen") : nothing}</svg>`;
}

/** The training image's small picture with the cell, whose box is given in shares; the picture's own sides show on loading. */
function there(good) {
  if (!good.thumbnail) return html`<div class="no-thumbnail">${t("no-thumbnail")}</div>`;
  const box = good.thumbnail_box.map((share) => share * 100);
  return html`<div class="thumbnail"><img alt="" src="data:image/jpeg;base64,${good.thumbnail}"
    @load=${({ target }) => target.parentElement.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight)}>
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label=${good.image}>${svg`${outline(box, "good")}`}</svg></div>`;
}

/** A path's last part: the whole one is in the title. */
const shortName = (path) => path.split(/[\\/]/).at(-1);
