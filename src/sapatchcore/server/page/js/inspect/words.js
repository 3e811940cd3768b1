/** A verdict in words. */

import { chosenModel, state } from "../store.js";
import { count, pValue, percent, t } from "../text.js";

// "both" is of records that an earlier version made.
const KINDS = ["local", "co-occurrence", "unclear", "both"];

/** The verdict's own word: ACCEPT, REJECT, or that there is none. */
export const verdictWord = (verdict) => t(verdict === null ? "no-verdict" : verdict);

export const kindWord = (kind) => (KINDS.includes(kind) ? t(`kind-${kind}`) : kind);

/** Why, in the reader's language where the kind is one we know; else as the server says it. */
export const reasonSentence = (result) => (KINDS.includes(result.kind) ? t(`reason-${result.kind}`) : (result.reason ?? ""));

/** How many of the good parts that the model knows score as high: p = (1 + k) / (n + 1). */
export function pSentence(p, model = chosenModel()) {
  if (p === null) return "";
  const n = model?.calibration_images;
  const place = p * (n + 1);
  if (n && Math.abs(place - Math.round(place)) < 1e-3) {
    const k = Math.round(place) - 1;
    if (k === 0) return t("p-none", { n: count(n) });
    if (k === 1) return t("p-one", { n: count(n) });
    return t("p-some", { k: count(k), n: count(n) });
  }
  return t("p-share", { share: percent(p) }); // of another model than the one now loaded
}

/** The whole finding for a screen reader. */
export function spoken(part) {
  const { result } = part;
  const pieces = [verdictWord(result.verdict), part.name];
  if (result.p_value !== null) pieces.push(pSentence(result.p_value, modelOf(part)), `p = ${pValue(result.p_value)}`);
  if (result.verdict === "reject") pieces.push(reasonSentence(result));
  if (part.note) pieces.push(part.note);
  return pieces.filter(Boolean).join(". ");
}

/** The model that decided, as it then was; null once another file has taken its place. */
export function modelOf(part) {
  return state.models.find((model) => model.name === part.model && model.hash === part.hash) ?? null;
}
