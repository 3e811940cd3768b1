/** The models that the server has, and how they are. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { chooseModel, refresh } from "../link.js";
import { state } from "../store.js";
import { count, megabytes, percent, t, when } from "../text.js";

export const modelsView = { enter: refresh, template };

function template() {
  return html`<main class="view models">
    <h1>${t("view-models")}</h1>
    ${!state.ready ? html`<p>${t("loading")}</p>` : state.models.length ? html`<ul>${state.models.map(card)}</ul>` : html`<p class="alert alert-info">${t("no-models")}</p>`}
  </main>`;
}

function card(model) {
  const rows = [
    ["model-file", model.file], ["model-format", t(`format-${model.format}`)], ["size", model.bytes ? megabytes(model.bytes) : "–"], ["loaded-at", model.loaded_at ? when(model.loaded_at) : "–"],
    ["backbone", model.backbone ?? "–"], ["attention", model.attention ?? "–"], ["calibration-images", model.calibration_images ? count(model.calibration_images) : t("not-calibrated-short")],
    ["smallest-rate", model.smallest_false_reject ? percent(model.smallest_false_reject, 3) : "–"], ["model-hash", model.hash ?? "–"],
  ];
  return html`<li class="card ${model.state}" data-model=${model.name}>
    <h2>${model.name} <span class="badge text-bg-${model.state === "ready" ? "success" : "danger"}">${t(`model-${model.state}-short`)}</span>
      ${model.drift?.alarm ? html`<a class="badge text-bg-warning" href="#drift" @click=${() => chooseModel(model.name)}>⚠ ${t("view-drift")}</a>` : nothing}</h2>
    ${model.error ? html`<p class="alert alert-danger" role="alert">${model.error}</p>` : nothing}
    <dl>${rows.map(([name, value]) => html`<div><dt>${t(name)}</dt><dd class=${name.endsWith("-hash") ? "hash" : ""}>${value}</dd></div>`)}</dl>
    <p>${["explain", "update"].map((what) => html`<span class="badge ${model[`can_${what}`] ? "text-bg-secondary" : "border text-body-secondary"}">${model[`can_${what}`] ? "✓" : "✕"} ${t(`can-${what}`)}</span> `)}
      ${model.name === state.model ? html`<b>${t("chosen")}</b>` : html`<button class="btn btn-outline-primary" @click=${() => chooseModel(model.name)}>${t("choose")}</button>`}</p>
  </li>`;
}
