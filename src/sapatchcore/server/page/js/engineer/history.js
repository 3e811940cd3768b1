/** All records, newest first, by whatever one looks for. */

import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { api } from "../api.js";
import { toast } from "../dialog.js";
import { can, change, state } from "../store.js";
import { t } from "../text.js";
import { problem, recordTable } from "./records.js";

const PAGE = 50;

const here = { filter: null, records: null, next: null, pages: [], error: null, asked: 0 };

export const historyView = { enter, template, key };

function enter() {
  here.filter ??= { model: state.model };
  load([]);
}

/** The page of records before the last of `pages`; the first where that is empty. */
async function load(pages) {
  const mine = ++here.asked; // of the requests; only the last one's answer is shown
  try {
    const { records, next } = await api.records({ ...here.filter, limit: PAGE, before: pages.at(-1) ?? null });
    if (mine !== here.asked) return;
    Object.assign(here, { records, next, pages, error: null });
  } catch (error) {
    if (mine !== here.asked) return;
    here.error = problem(error);
  }
  change();
}

const older = () => here.next !== null && load([...here.pages, here.next]);
const newer = () => here.pages.length && load(here.pages.slice(0, -1));

function filterBy(name, value) {
  here.filter = { ...here.filter, [name]: value };
  load([]);
}

/** A day as people choose it → its first moment here, or with `after` that of the next day: the server takes since ≤ time < until. */
function moment(day, after) {
  if (!day) return "";
  const time = new Date(`${day}T00:00:00`);
  if (after) time.setDate(time.getDate() + 1);
  return time.toISOString();
}

/** Part of a name is enough; where * stands, the pattern is taken as it is. */
const pattern = (text) => (!text || text.includes("*") ? text : `*${text}*`);

function select(name, label, options) {
  const chosen = here.filter?.[name] ?? "";
  return html`<label>${label}<select class="form-select" data-filter=${name} @change=${(event) => filterBy(name, event.target.value)}>
    <option value="" .selected=${chosen === ""}>${t("all")}</option>
    ${options.map(([value, text]) => html`<option value=${value} .selected=${value === chosen}>${text}</option>`)}</select></label>`;
}

function template() {
  const days = (name, label, last) => html`<label>${label}<input class="form-control" type="date" data-filter=${name} @change=${(event) => filterBy(name, moment(event.target.value, last))}></label>`;
  return html`<main class="view history">
    <h1>${t("view-history")}</h1>
    <form class="filters" @submit=${(event) => event.preventDefault()}>
      ${select("model", t("model"), state.models.map(({ name }) => [name, name]))}
      ${select("verdict", t("verdict"), [["reject", t("reject")], ["accept", t("accept")]])}
      ${select("kind", t("kind"), ["local", "co-occurrence", "unclear", "both"].map((kind) => [kind, t(`kind-${kind}`)]))}
      ${select("feedback", t("feedback"), [["good", t("was-good")], ["defect", t("was-defect")], ["none", t("feedback-none")]])}
      ${days("since", t("since"), false)} ${days("until", t("until"), true)}
      <label>${t("file-name")}<input class="form-control" type="search" data-filter="file_name" @input=${later((event) => filterBy("file_name", pattern(event.target.value.trim())))}></label>
    </form>
    ${here.error ? html`<p class="alert alert-danger" role="alert">${here.error}</p>` : nothing}
    ${here.records === null ? html`<p>${t("loading")}</p>` : here.records.length ? recordTable(here.records, { changed: replaceRecord }) : html`<p class="alert alert-info">${t("no-records")}</p>`}
    <div class="pages">
      <button class="btn btn-outline-secondary btn-lg" data-page="newer" ?disabled=${!here.pages.length} @click=${newer}>← ${t("newer")}</button>
      <button class="btn btn-outline-secondary btn-lg" data-page="older" ?disabled=${here.next === null} @click=${older}>${t("older")} →</button>
      ${can("admin") ? ["csv", "parquet"].map((format) => html`<button class="btn btn-outline-primary btn-lg" data-export=${format} @click=${() => download(format)}>${t("download", { format: format === "csv" ? "CSV" : "Parquet" })}</button>`) : nothing}
    </div>
  </main>`;
}

let pause = null;

/** Call `act` with the last of several events, once nothing has been typed for a moment. */
const later = (act) => (event) => {
  clearTimeout(pause);
  pause = setTimeout(() => act(event), 250);
};

function replaceRecord(record) {
  here.records = here.records.map((each) => (each.record === record.record ? record : each));
  change();
}

/** All records of the filter as one file; fetched with the token, which a plain link would not carry. */
async function download(format) {
  try {
    const blob = await api.export(format, here.filter);
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `records.${format}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    toast(problem(error));
  }
}

function key(pressed) {
  if (pressed === "arrowright") older();
  else if (pressed === "arrowleft") newer();
  else if (pressed === "arrowdown") document.querySelector(".records tbody tr")?.focus();
  else return false;
  return true;
}
