/** The verdict as one sees it from two metres, and the numbers behind it. */

import { html, nothing, svg } from "../../vendor/lit-html/lit-html.js";
import { can, chosenModel, state } from "../store.js";
import { count, number, oneIn, pValue, t } from "../text.js";
import { judge, retry, shownPart } from "./queue.js";
import { kindWord, modelOf, pSentence, reasonSentence, verdictWord } from "./words.js";

// Shape, and not colour alone, tells them apart: a tick in a circle, a cross in an octagon, a question mark in a square.
const SIGNS = {
  accept: svg`<circle cx="50" cy="50" r="46" /><path d="M27 52 L44 69 L75 33" />`,
  reject: svg`<path class="fill" d="M31 4 H69 L96 31 V69 L69 96 H31 L4 69 V31 Z" /><path d="M32 32 L68 68 M68 32 L32 68" />`,
  none: svg`<rect x="6" y="6" width="88" height="88" rx="8" /><path d="M37 38 Q37 24 50 24 Q63 24 63 37 Q63 46 50 52 V60 M50 74 V75" />`,
  wait: svg`<circle cx="50" cy="50" r="46" /><path d="M50 22 V50 L68 62" />`,
};

export const sign = (verdict) => svg`<svg class="sign" viewBox="0 0 100 100" aria-hidden="true">${SIGNS[verdict ?? "none"]}</svg>`;

/** The coloured band across the page. */
export function verdictBand() {
  const part = shownPart();
  if (!part) return nothing;
  if (part.state === "failed") {
    return html`<section class="band failed" data-verdict="failed">${sign(null)}<div class="said"><p class="p-words">${part.note}</p>
      <button class="btn btn-light btn-lg" data-retry @click=${() => retry(part)}>${t("try-again")} <kbd>A</kbd></button></div></section>`;
  }
  if (part.state !== "done") {
    return html`<section class="band waiting" data-verdict="waiting">${sign("wait")}<div class="said">
      <p class="p-words">${part.note ?? t("inspecting")}</p></div></section>`;
  }
  const { result } = part;
  return html`<section class="band ${result.verdict ?? "unknown"}" data-verdict=${result.verdict ?? "unknown"}>
    <div class="word">${sign(result.verdict)}<strong>${verdictWord(result.verdict)}</strong></div>
    <div class="said">
      ${result.verdict === null ? html`<p class="p-words">${part.note ?? t("not-calibrated")}</p>` : html`
        <p class="p-words">${pSentence(result.p_value, modelOf(part))} <span class="p">p = ${pValue(result.p_value)}</span></p>
        ${result.verdict === "reject" ? html`<p class="why"><b>${kindWord(result.kind)}.</b> ${reasonSentence(result)}</p>` : nothing}`}
      ${result.notes?.length ? html`<p class="unlike" data-notes><b>⚠ ${t("unlike")}</b> ${result.notes.join(" ")}</p>` : nothing}
    </div>
  </section>`;
}

/** Score against threshold, as a bar; the score's parts. */
export function numbers(part) {
  const { result } = part;
  const top = Math.max(result.score, (result.threshold ?? 0) * 1.25) * 1.1 || 1;
  const share = (value) => (100 * value) / top;
  return html`<section class="numbers">
    <h2>${t("score")} <span class="value">${number(result.score)}</span></h2>
    <svg class="bar ${result.verdict ?? ""}" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">
      <rect class="track" width="100" height="12" />
      <rect class="score" y="2" height="8" width=${share(result.score)} />
      ${result.threshold === null ? nothing : svg`<rect class="limit-casing" x=${share(result.threshold) - 0.8} width="1.6" height="12" /><rect class="limit" x=${share(result.threshold) - 0.4} width="0.8" height="12" />`}
    </svg>
    <dl>
      ${result.product == null ? nothing : html`<div><dt>${t("product")}</dt><dd>${result.product}</dd></div>`}
      ${result.threshold === null ? nothing : html`<div><dt>${t("threshold")}</dt><dd>${number(result.threshold)}</dd></div>
        <div><dt>${t("promise")}</dt><dd>${oneIn(part.falseReject)}</dd></div>`}
      <div><dt>${t("layer-local")}</dt><dd>${times(result.local, result.local_ratio)}</dd></div>
      <div><dt>${t("layer-context")}</dt><dd>${times(result.context, result.context_ratio)}</dd></div>
      ${result.global_score == null ? nothing : html`<div><dt>${t("layer-global_part")}</dt><dd>${times(result.global_score, result.global_ratio)}</dd></div>`}
      <div><dt>${t("regions")}</dt><dd>${number(result.regions.length)}</dd></div>
      <div><dt>${t("record")}</dt><dd>${result.record ?? "–"}</dd></div>
    </dl>
  </section>`;
}

const times = (value, ratio) => (ratio == null ? number(value) : html`${number(value)} <small>${t("times-usual", { times: number(ratio, 3) })}</small>`);

/** "This was good", "this was a defect", and taking it back. */
export function judgement(part) {
  if (!can("feedback") || part?.state !== "done") return nothing;
  const button = (label, key) => html`<button class="btn btn-lg btn-outline-${label === "good" ? "success" : "danger"} ${part.feedback === label ? "active" : ""}"
    data-feedback=${label} aria-pressed=${part.feedback === label} @click=${() => judge(label)}>
    <span aria-hidden="true">${label === "good" ? "✓" : "✕"}</span> ${t(`was-${label}`)} <kbd>${key}</kbd></button>`;
  return html`<div class="judgement" role="group" aria-label=${t("feedback")}>
    ${button("good", "G")} ${button("defect", "D")}
    <button class="btn btn-lg btn-outline-secondary" data-feedback="undo" ?disabled=${part.feedback === null} @click=${() => judge(null)}>${t("undo")} <kbd>U</kbd></button>
  </div>`;
}

/** What the next image will be decided by. */
export function promiseLine() {
  const model = chosenModel();
  if (!model || model.smallest_false_reject === null) return nothing;
  const rate = state.rates[model.name];
  const few = model.smallest_false_reject > 0.01 ? t("promised-coarse", { rate: oneIn(model.smallest_false_reject), n: count(model.calibration_images) }) : "";
  return html`<p class="promise">${rate ? t("promised", { rate: oneIn(rate) }) : t("promised-default")} ${few}</p>`;
}
