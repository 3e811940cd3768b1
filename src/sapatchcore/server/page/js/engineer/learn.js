/** Parts that people said were good, as a list from which the model learns: choose, preview what changes, apply. */

import "./kept-image.js";
import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { lastRecords, api } from "../api.js";
import { closeDialog, openDialog, toast } from "../dialog.js";
import { refresh } from "../link.js";
import { can, change, chosenModel } from "../store.js";
import { count, number, pValue, percent, t, when } from "../text.js";
import { openRecord, problem, verdictTag } from "./records.js";

const MOST = 500; // of the list

const here = { records: null, chosen: new Set(), preview: null, busy: null, error: null, of: null };

export const learnView = { enter, template };

async function enter() {
  const model = chosenModel();
  Object.assign(here, { records: null, preview: null, error: null, busy: null, of: model?.name });
  change();
  if (!model) return;
  try {
    const records = await lastRecords({ model: model.name, feedback: "good" }, MOST);
    if (here.of !== model.name) return;
    here.records = records;
    here.chosen = new Set(records.filter((record) => record.has_image && !isOlder(record)).map((record) => record.record));
  } catch (error) {
    here.error = problem(error);
  }
  change();
}

/** Whether another version of the model decided: this one may have learned the image since, so a person has to choose it. */
const isOlder = (record) => record.model_hash !== chosenModel()?.hash;

function choose(record, wanted) {
  if (wanted) here.chosen.add(record.record);
  else here.chosen.delete(record.record);
  here.preview = null; // of another choice
  change();
}

/** Run `work` with the buttons off, and say what went wrong where one looks. */
async function during(text, work) {
  Object.assign(here, { busy: text, error: null });
  change();
  try {
    await work();
  } catch (error) {
    here.error = problem(error);
  }
  here.busy = null;
  change();
}

const preview = (model) => during(t("previewing"), async () => {
  here.preview = await api.preview(model.name, [...here.chosen]);
});

function confirmUpdate(model) {
  openDialog({
    title: () => t("update-title", { model: model.name }),
    template: () => html`<p class="fs-5">${t("update-sure", { n: here.preview.images_added })}</p>`,
    buttons: () => html`<button class="btn btn-danger btn-lg" data-apply @click=${() => apply(model)}>${t("update-apply")}</button>`,
  });
}

function apply(model) {
  closeDialog();
  return during(t("updating"), async () => {
    await api.update(model.name, here.preview.preview);
    here.preview = null;
    toast(t("updated", { model: model.name }));
    await refresh();
    await enter();
  });
}

function template() {
  const model = chosenModel();
  return html`<main class="view learn">
    <h1>${t("learn-title")}</h1>
    <p>${t("learn-explained")}</p>
    ${here.error ? html`<p class="alert alert-danger" role="alert">${here.error}</p>` : nothing}
    ${model && !model.can_update ? html`<p class="alert alert-info">${t("cannot-update")}</p>` : nothing}
    ${here.records === null ? html`<p>${t("loading")}</p>` : here.records.length ? html`<ul class="pool">${here.records.map(item)}</ul>` : html`<p class="alert alert-info">${t("learn-empty")}</p>`}
    ${can("admin") && model?.can_update && here.records?.length ? html`<p class="use">
      <button class="btn btn-primary btn-lg" data-preview ?disabled=${!here.chosen.size || here.busy !== null} @click=${() => preview(model)}>${t("preview", { n: here.chosen.size })}</button>
      ${here.busy ? html`<span class="spinner-border" aria-hidden="true"></span> <span role="status">${here.busy}</span>` : nothing}</p>` : nothing}
    ${can("admin") ? nothing : html`<p class="text-body-secondary">${t("admin-only")}</p>`}
    ${here.preview ? previewed(model) : nothing}
  </main>`;
}

function item(record) {
  return html`<li class="card" data-record=${record.record}>
    <button class="look" aria-label=${t("record-n", { n: count(record.record) })} @click=${() => openRecord(record, enter)}>
      ${record.has_image ? html`<kept-image record=${record.record} alt=${record.file_name}></kept-image>` : html`<span class="no-image">${t("image-not-kept")}</span>`}</button>
    <label class="form-check"><input class="form-check-input" type="checkbox" ?disabled=${!record.has_image || !can("admin")} .checked=${here.chosen.has(record.record)}
      @change=${(event) => choose(record, event.target.checked)}> ${record.file_name || count(record.record)}</label>
    ${isOlder(record) ? html`<p class="older">${t("older-model")}</p>` : nothing}
    <p>${verdictTag(record.verdict)} p = ${pValue(record.p_value)}</p>
    <p class="text-body-secondary">${when(record.time)}${record.feedback_by ? ` · ${record.feedback_by}` : ""}</p>
  </li>`;
}

function previewed(model) {
  const found = here.preview;
  const turned = found.changes.filter(({ before, after }) => before.verdict !== after.verdict);
  const row = (name, before, after) => html`<tr><th scope="row">${t(name)}</th><td>${before}</td><td><b>${after}</b></td></tr>`;
  return html`<section class="preview card" data-preview-of=${found.preview}>
    <h2>${t("preview-title")}</h2>
    <table class="table"><thead><tr><th></th><th scope="col">${t("before")}</th><th scope="col">${t("after")}</th></tr></thead><tbody>
      ${row("images-added", "", count(found.images_added))}
      ${row("rows", count(found.rows_before), count(found.rows_after))}
      ${row("threshold", found.threshold_before === null ? "–" : number(found.threshold_before), found.threshold_after === null ? "–" : number(found.threshold_after))}
    </tbody></table>
    ${found.false_reject ? html`<p>${t("preview-rate", { rate: percent(found.false_reject, 3) })}</p>` : nothing}
    <p><b>${t("preview-changes", { n: turned.length, checked: count(found.checked) })}</b> ${t("preview-scores", { n: found.changes.length - turned.length })}</p>
    ${found.changes.length ? html`<div class="table-responsive"><table class="table"><thead><tr>${["record", "before", "after"].map((head) => html`<th scope="col">${t(head)}</th>`)}</tr></thead>
      <tbody>${[...turned, ...found.changes.filter((each) => !turned.includes(each))].map((each) => html`<tr class=${turned.includes(each) ? "" : "same"}><td>${count(each.record)}</td><td>${side(each.before)}</td><td>${side(each.after)}</td></tr>`)}</tbody></table></div>` : nothing}
    <p><button class="btn btn-danger btn-lg" data-update ?disabled=${here.busy !== null} @click=${() => confirmUpdate(model)}>${t("update-apply")}</button></p>
  </section>`;
}

const side = ({ score, p_value: p, verdict }) => html`${verdictTag(verdict)} p = ${pValue(p)}, ${t("score")} ${number(score)}`;
