/** The server's API. What it refuses comes back as `Refused` with its own sentence; no answer at all is `Unreachable`. */

import { token } from "./session.js";

export class Refused extends Error {
  constructor(status, sentence, retryAfter) {
    super(sentence);
    this.status = status;
    this.retryAfter = retryAfter; // seconds, or null
  }
}

export class Unreachable extends Error {}

/** Query text of what is set in `values`. */
function query(values) {
  const set = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
}

async function ask(path, { method = "GET", body, json, signal } = {}) {
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), {
      method, headers, signal, cache: "no-store", credentials: "omit", body: json === undefined ? body : JSON.stringify(json),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable(String(error));
  }
  if (answer.ok) return answer;
  const after = Number.parseFloat(answer.headers.get("Retry-After"));
  throw new Refused(answer.status, await sentence(answer), Number.isFinite(after) ? after : null);
}

async function sentence(answer) {
  const text = await answer.text().catch(() => "");
  try {
    const said = JSON.parse(text).error;
    if (typeof said === "string" && said) return said;
  } catch {
    // Not from our server: something between it and this page.
  }
  return `${answer.status} ${answer.statusText}`.trim();
}

const read = async (path, options) => (await ask(path, options)).json();
const at = (model) => `v1/models/${encodeURIComponent(model)}`;

export const api = {
  me: () => read("v1/me"),
  models: async () => (await read("v1/models")).models,
  /** One image's result, with what its answer says of the model. */
  async inspect(model, blob, name, options) {
    const body = new FormData();
    body.append("images", blob, name);
    return read(`${at(model)}/inspect${query(options)}`, { method: "POST", body });
  },
  feedback: (model, record, label, note = "") =>
    read(`${at(model)}/feedback`, { method: "POST", json: { record, label, note } }),
  drift: (model, last) => read(`${at(model)}/drift${query({ last })}`),
  records: (filter) => read(`v1/records${query(filter)}`),
  record: (number) => read(`v1/records/${number}`),
  image: async (number, signal) => (await ask(`v1/records/${number}/image`, { signal })).blob(),
  export: async (format, filter) => (await ask(`v1/records/export${query({ format, ...filter })}`)).blob(),
  preview: (model, records) => read(`${at(model)}/update/preview`, { method: "POST", json: { records } }),
  update: (model, preview) => read(`${at(model)}/update`, { method: "POST", json: { preview } }),
};

/** The last `wanted` records of `filter`, newest first, over as many pages as the server makes of them. */
export async function lastRecords(filter, wanted) {
  const found = [];
  let before = null;
  do {
    const page = await api.records({ ...filter, limit: Math.min(wanted - found.length, 500), before });
    found.push(...page.records);
    before = page.next;
  } while (before !== null && found.length < wanted);
  return found;
}
