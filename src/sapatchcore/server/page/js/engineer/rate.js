/** The promised false-reject rate: a slider that shows at once what another one would have decided of the last 500 parts. */

import { upright } from "./line-chart.js";
import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { live } from "../../vendor/lit-html/directives/live.js";
import { lastRecords } from "../api.js";
import { toast } from "../dialog.js";
import { remember } from "../remember.js";
import { can, change, chosenModel, state } from "../store.js";
import { count, oneIn, percent, t } from "../text.js";
import { changes, curve, nearestPlace, rates } from "./counting.js";
import { problem, recordTable, verdictTag } from "./records.js";

const LAST = 500;
const USUAL = 0.01; // the promise where none was chosen

const here = { records: null, error: null, place: null, of: null };

export const rateView = { enter, template, key };

async function enter() {
  const model = chosenModel();
  Object.assign(here, { records: null, error: null, place: null, of: model?.name });
  change();
  if (!model) return;
  try {
    const records = await lastRecords({ model: model.name }, LAST);
    if (here.of !== model.name) return;
    here.records = records;
  } catch (error) {
    here.error = problem(error);
  }
  change();
}

/** The slider's rates, and the one in use; null where the model can promise none. */
function scale() {
  const model = chosenModel();
  if (!model?.smallest_false_reject) return null;
  const found = rates(model.smallest_false_reject);
  const used = state.rates[model.name] ?? here.records?.find((record) => record.false_reject !== null)?.false_reject ?? USUAL;
  return { model, found, used: nearestPlace(found, used) };
}

function move(place) {
  here.place = place;
  change();
}

function use(model, rate) {
  const chosen = { ...state.rates };
  if (rate === null) delete chosen[model.name];
  else chosen[model.name] = rate;
  remember({ rates: chosen });
  change({ rates: chosen });
  toast(rate === null ? t("rate-server") : t("rate-used", { rate: oneIn(rate) }));
}

function template() {
  const on = scale();
  if (here.error) return html`<main class="view"><p class="alert alert-danger" role="alert">${here.error}</p></main>`;
  if (!on) return html`<main class="view"><h1>${t("view-rate")}</h1><p class="alert alert-info">${t("not-calibrated")}</p></main>`;
  const place = here.place ?? on.used;
  const rate = on.found[place];
  return html`<main class="view rate">
    <h1>${t("rate-title")}</h1>
    <div class="slider">
      <output for="rate"><b>${percent(rate, 3)}</b> ${t("rate-means", { rate: oneIn(rate) })}</output>
      <input class="form-range" id="rate" type="range" min="0" max=${on.found.length - 1} step="1" .value=${live(String(place))} aria-label=${t("rate-title")}
        aria-valuetext=${`${percent(rate, 3)}, ${oneIn(rate)}`} @input=${(event) => move(Number(event.target.value))}>
      <div class="ends"><span>${percent(on.found[0], 3)} · ${t("rate-smallest", { n: count(on.model.calibration_images) })}</span><span>${percent(on.found.at(-1), 3)}</span></div>
    </div>
    ${here.records === null ? html`<p>${t("loading")}</p>` : findings(on, rate)}
  </main>`;
}

function findings(on, rate) {
  const found = changes(here.records, rate);
  if (!found.all.of) return html`<p class="alert alert-info">${t("no-records")}</p>`;
  const used = state.rates[on.model.name];
  return html`
    <section class="counts" aria-live="polite">
      ${card("rejected", "rate-rejected", found.all)} ${card("good", "rate-good", found.good)} ${card("missed", "rate-missed", found.missed)}
    </section>
    ${found.undecided ? html`<p class="text-body-secondary">${t("rate-undecided", { n: found.undecided })}</p>` : nothing}
    ${can("feedback") ? html`<p class="use">
      <button class="btn btn-primary btn-lg" data-use ?disabled=${used === rate} @click=${() => use(on.model, rate)}>${t("rate-use", { rate: percent(rate, 3) })}</button>
      <button class="btn btn-outline-secondary btn-lg" ?disabled=${used === undefined} @click=${() => use(on.model, null)}>${t("rate-server")}</button></p>` : nothing}
    <line-chart class="curve" aria-label=${t("rate-curve")} .spec=${chart(on.found, rate)}></line-chart>
    <h2>${t("rate-changes", { n: found.changed.length, of: count(here.records.length) })}</h2>
    ${found.changed.length ? recordTable(found.changed, {
      extra: [t("rate-then"), (record) => verdictTag(record.verdict === "reject" ? "accept" : "reject")], changed: replaceRecord,
    }) : nothing}`;
}

function card(name, text, { of, before, after }) {
  return html`<div class="count ${after > before ? "more" : after < before ? "fewer" : ""}" data-count=${name}>
    <h2>${t(text)}</h2>
    <p class="figure"><span class="before">${count(before)}</span> <span aria-hidden="true">→</span> <b class="after">${count(after)}</b></p>
    <p>${of ? t("of-n", { n: count(of), share: percent(after / of) }) : t("none-known")}</p></div>`;
}

function replaceRecord(record) {
  here.records = here.records.map((each) => (each.record === record.record ? record : each));
  change();
}

const shown = (_plot, value) => (value == null ? "" : count(value)); // nothing while nobody points at the chart

/** Parts rejected by rate, with a line at the slider's. */
function chart(found, rate) {
  const stepped = window.uPlot.paths.stepped({ align: 1 });
  return {
    key: `${state.language} ${state.model} ${rate}`,
    data: curve(here.records, found),
    options: (colours) => ({
      scales: { x: { time: false, distr: 3, range: () => [found[0], found.at(-1)] }, y: { range: (_plot, _low, high) => [0, Math.max(high, 1)] } },
      series: [
        { label: t("promise"), value: (_plot, value) => (value == null ? "" : percent(value, 3)) },
        { label: t("rate-rejected"), value: shown, stroke: colours.accent, width: 2, points: { show: false }, paths: stepped },
        { label: t("rate-good"), value: shown, stroke: colours.good, width: 2, dash: [8, 4], points: { show: false }, paths: stepped },
        { label: t("rate-caught"), value: shown, stroke: colours.bad, width: 2, dash: [2, 3], points: { show: false }, paths: stepped },
      ],
      axes: [
        { stroke: colours.ink, grid: { stroke: colours.line }, values: (_plot, values) => values.map((value) => (value === null ? "" : percent(value))) },
        { stroke: colours.ink, grid: { stroke: colours.line } },
      ],
      hooks: { draw: [(plot) => upright(plot, rate, colours.ink)] },
    }),
  };
}

function key(pressed) {
  const on = scale();
  if (!on || !/^arrow(left|right)$/.test(pressed)) return false;
  const place = (here.place ?? on.used) + (pressed === "arrowright" ? 1 : -1);
  move(Math.min(Math.max(place, 0), on.found.length - 1));
  return true;
}
