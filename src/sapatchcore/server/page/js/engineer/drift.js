/** Has the scene changed? The parts' p-values in their order, and the evidence against "all as it was". */

import { upright } from "./line-chart.js";
import { html, nothing } from "../../vendor/lit-html/lit-html.js";
import { api } from "../api.js";
import { change, chosenModel, state } from "../store.js";
import { count, number, pValue, percent, t, when } from "../text.js";
import { problem } from "./records.js";

const LAST = 2000;
const WINDOW = 25; // parts of the running median

const here = { found: null, error: null, of: null };

export const driftView = { enter, template };

async function enter() {
  const model = chosenModel();
  Object.assign(here, { found: null, error: null, of: model?.name });
  change();
  if (!model) return;
  try {
    const found = await api.drift(model.name, LAST);
    if (here.of !== model.name) return;
    here.found = found;
  } catch (error) {
    here.error = problem(error);
  }
  change();
}

/** The median of each value and those before it, WINDOW in all; null until there are as many. */
export function runningMedian(values, width = WINDOW) {
  return values.map((_, at) => {
    if (at + 1 < width) return null;
    const some = values.slice(at + 1 - width, at + 1).sort((a, b) => a - b);
    const middle = width >> 1;
    return width % 2 ? some[middle] : (some[middle - 1] + some[middle]) / 2;
  });
}

function template() {
  const { found } = here;
  return html`<main class="view drift">
    <h1>${t("drift-title")}</h1>
    <p>${t("drift-explained")}</p>
    ${here.error ? html`<p class="alert alert-danger" role="alert">${here.error}</p>` : nothing}
    ${found === null ? (here.error ? nothing : html`<p>${t("loading")}</p>`) : found.points.length ? charts(found) : html`<p class="alert alert-info">${t("no-records")}</p>`}
    <p><button class="btn btn-outline-secondary btn-lg" data-reload @click=${enter}>${t("reload")}</button></p>
  </main>`;
}

function charts(found) {
  const { points } = found;
  const alarm = points.find((point) => point.record === found.alarm);
  const since = points.find((point) => point.record === found.since);
  return html`
    ${found.alarm === null ? html`<p class="alert alert-success" data-drift="none"><span aria-hidden="true">✓</span> ${t("drift-none", { n: count(points.length) })}</p>`
      : html`<p class="alert alert-warning fs-5" role="alert" data-drift="alarm"><span aria-hidden="true">⚠</span> ${t("drift-alarm", { alarm: count(found.alarm), since: count(found.since) })}
        ${since ? when(since.time) : nothing}${alarm ? html` – ${when(alarm.time)}` : nothing}. ${t("drift-check")}</p>`}
    <h2>${t("drift-p")}</h2>
    <line-chart .spec=${pSpec(points, found)}></line-chart>
    <h2>${t("drift-evidence")}</h2>
    <p>${t("drift-evidence-explained", { chance: percent(Math.exp(-found.limit), 2) })}</p>
    <line-chart .spec=${capitalSpec(points, found)}></line-chart>`;
}

const parts = (points) => points.map((_, at) => at + 1);

/** The first series of both charts: which part, when. */
const partSeries = (points) => ({ label: t("part"), value: (_plot, value) => (value == null ? "" : `${count(points[value - 1]?.record ?? value)} · ${points[value - 1] ? when(points[value - 1].time) : ""}`) });

/** Parts are evenly spaced, however the line stood; the axis names their records. */
const axes = (points, colours) => [
  { stroke: colours.ink, grid: { stroke: colours.line }, ticks: { stroke: colours.line }, values: (_plot, values) => values.map((value) => (points[value - 1] ? count(points[value - 1].record) : "")) },
  { stroke: colours.ink, grid: { stroke: colours.line }, ticks: { stroke: colours.line }, values: (_plot, values) => values.map((value) => number(value, 3)) },
];

/** Where the alarm was raised, and dotted, since when about. */
function marks(plot, points, found, colours) {
  const place = (record) => points.findIndex((point) => point.record === record) + 1;
  if (place(found.alarm)) upright(plot, place(found.alarm), colours.bad);
  if (place(found.since)) upright(plot, place(found.since), colours.bad, [3, 4]);
}

const keyOf = (points) => `${state.language} ${here.of} ${points.length} ${points[0].record}`;

function pSpec(points, found) {
  const values = points.map((point) => point.p_value);
  return {
    key: `p ${keyOf(points)}`,
    data: [parts(points), values, runningMedian(values)],
    options: (colours) => ({
      cursor: { sync: { key: "drift" } },
      scales: { x: { time: false }, y: { range: [0, 1] } },
      series: [
        partSeries(points),
        { label: t("p-value"), paths: () => null, points: { show: true, size: 4, fill: colours.faint, stroke: colours.faint }, stroke: colours.faint, value: (_plot, value) => (value == null ? "" : pValue(value)) },
        { label: t("drift-median", { n: WINDOW }), stroke: colours.accent, width: 3, value: (_plot, value) => (value == null ? "" : pValue(value)) },
      ],
      axes: axes(points, colours),
      hooks: { draw: [(plot) => marks(plot, points, found, colours)] },
    }),
  };
}

function capitalSpec(points, found) {
  const { limit } = found;
  const capital = points.map((point) => point.log_capital);
  return {
    key: `capital ${keyOf(points)}`,
    data: [parts(points), capital, points.map(() => limit)],
    options: (colours) => ({
      cursor: { sync: { key: "drift" } },
      scales: { x: { time: false }, y: { range: (_plot, low, high) => [Math.min(low, -1), Math.max(high, limit) * 1.1] } },
      series: [
        partSeries(points),
        { label: t("drift-capital"), stroke: colours.accent, width: 2, value: (_plot, value) => (value == null ? "" : number(value, 3)) },
        { label: t("drift-limit"), stroke: colours.bad, width: 3, dash: [10, 6], points: { show: false }, value: (_plot, value) => (value == null ? "" : number(value, 3)) },
      ],
      axes: axes(points, colours),
      hooks: { draw: [(plot) => marks(plot, points, found, colours)] },
    }),
  };
}
