/** Records as a table, and one record as a dialog with its kept image. */

import "./kept-image.js";
import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { Unreachable, api } from "../api.js";
import { closeDialog, openDialog, redrawDialog, toast } from "../dialog.js";
import { add } from "../inspect/queue.js";
import { sign } from "../inspect/verdict.js";
import { kindWord, pSentence, reasonSentence, verdictWord } from "../inspect/words.js";
import { can } from "../store.js";
import { count, number, oneIn, pValue, t, when } from "../text.js";

/** "✕ REJECT", small. */
export const verdictTag = (verdict) => html`<span class="tag ${verdict ?? "unknown"}">${sign(verdict)} ${verdictWord(verdict)}</span>`;

export const feedbackTag = (label) => (label ? html`<span class="feedback ${label}">${t(`was-${label}`)}</span>` : nothing);

/** Why a request failed, as one sentence. */
export const problem = (error) => (error instanceof Unreachable ? t("offline") : error.message);

/** The head of a table's columns, a row a record; a row opens it. `extra` may add a cell in front: [title, record → template]. */
export function recordTable(records, { extra = null, changed = () => {} } = {}) {
  const heads = ["record", "time", "file-name", "verdict", "p-value", "score", "kind", "feedback"];
  return html`<div class="table-responsive"><table class="table table-hover records">
    <thead><tr>${extra ? html`<th scope="col">${extra[0]}</th>` : nothing}${heads.map((head) => html`<th scope="col" class=${head}>${t(head)}</th>`)}</tr></thead>
    <tbody @keydown=${moveAmongRows}>${records.map((record) => html`<tr role="row" tabindex="0" data-record=${record.record} @click=${() => openRecord(record, changed)}
      @keydown=${(event) => event.key === "Enter" && event.target === event.currentTarget && openRecord(record, changed)}>
      ${extra ? html`<td>${extra[1](record)}</td>` : nothing}
      <td class="record">${count(record.record)}</td><td class="time">${when(record.time)}</td><td class="file-name" title=${record.file_name}>${record.file_name}</td>
      <td>${verdictTag(record.verdict)}</td><td>${pValue(record.p_value)}</td><td>${number(record.score)}</td>
      <td>${record.kind ? kindWord(record.kind) : nothing}</td><td>${feedbackTag(record.feedback)}</td></tr>`)}</tbody>
  </table></div>`;
}

function moveAmongRows(event) {
  const row = event.target.closest("tr");
  const to = event.key === "ArrowDown" ? row?.nextElementSibling : event.key === "ArrowUp" ? row?.previousElementSibling : null;
  if (!to) return;
  event.preventDefault();
  to.focus();
}

/** Show `record`; `changed(record)` is told of feedback given there. */
export function openRecord(record, changed = () => {}) {
  let shown = record;
  const judge = async (label) => {
    const note = document.getElementById("note")?.value ?? "";
    try {
      shown = { ...shown, ...(await api.feedback(shown.model, shown.record, label, label === null ? "" : note)) };
      toast(t(label === null ? "feedback-undone" : label === "good" ? "marked-good" : "marked-defect"));
      changed(shown);
      redrawDialog();
    } catch (error) {
      toast(problem(error));
    }
  };
  openDialog({
    title: () => t("record-n", { n: count(shown.record) }),
    template: () => recordBody(shown, judge),
    buttons: () => (shown.has_image ? html`<button class="btn btn-outline-primary btn-lg" data-again @click=${() => inspectAgain(shown)}>${t("inspect-again")}</button>` : nothing),
  });
}

function recordBody(record, judge) {
  const rows = [
    ["time", when(record.time)], ["file-name", record.file_name], ["model", record.model], ...(record.product === null ? [] : [["product", record.product]]), ["p-value", pValue(record.p_value)], ["score", number(record.score)],
    ["threshold", record.threshold === null ? "–" : number(record.threshold)], ["promise", record.false_reject === null ? "–" : oneIn(record.false_reject)],
    ["layer-local", number(record.local)], ["layer-context", number(record.context)],
    ...(record.global_score === null ? [] : [["layer-global_part", number(record.global_score)]]), ["size", `${record.width} × ${record.height}`],
    ["source", t(`source-${record.source}`)], ["model-hash", record.model_hash], ["image-hash", record.image_hash],
  ];
  const button = (label) => html`<button class="btn btn-lg btn-outline-${label === "good" ? "success" : "danger"} ${record.feedback === label ? "active" : ""}"
    data-feedback=${label} aria-pressed=${record.feedback === label} @click=${() => judge(label)}>${t(`was-${label}`)}</button>`;
  return html`<div class="record-body">
    ${record.has_image ? html`<kept-image record=${record.record} alt=${record.file_name}></kept-image>` : html`<p class="no-image">${t("image-not-kept")}</p>`}
    <div>
      <p class="fs-4">${verdictTag(record.verdict)}</p>
      <p>${record.p_value === null ? nothing : pSentence(record.p_value, null)} ${record.kind ? reasonSentence(record) : nothing}</p>
      ${record.notes.length ? html`<p class="unlike" data-notes><b>⚠ ${t("unlike")}</b> ${record.notes.join(" ")}</p>` : nothing}
      <dl>${rows.map(([name, value]) => html`<div><dt>${t(name)}</dt><dd class=${name.endsWith("-hash") ? "hash" : ""}>${value}</dd></div>`)}</dl>
      ${record.feedback ? html`<p>${feedbackTag(record.feedback)} ${record.feedback_by ?? ""} ${record.feedback_time ? when(record.feedback_time) : ""}
        ${record.feedback_note ? html`<br>“${record.feedback_note}”` : nothing}</p>` : nothing}
      ${can("feedback") ? html`<label class="form-label w-100">${t("note")}<input class="form-control" id="note" maxlength="500"></label>
        <div class="judgement">${button("good")} ${button("defect")}
          <button class="btn btn-lg btn-outline-secondary" ?disabled=${!record.feedback} @click=${() => judge(null)}>${t("undo")}</button></div>` : nothing}
    </div></div>`;
}

async function inspectAgain(record) {
  try {
    const blob = await api.image(record.record);
    closeDialog();
    location.hash = "inspect";
    add([new File([blob], record.file_name || `${record.record}`, { type: blob.type })]);
  } catch (error) {
    toast(problem(error));
  }
}
