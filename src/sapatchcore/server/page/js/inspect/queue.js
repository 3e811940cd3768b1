/** The images of this visit, and how they go to the server: one at a time, in their order, until each has its verdict. */

import { Refused, Unreachable, api } from "../api.js";
import { announce, toast } from "../dialog.js";
import { whenOnline } from "../link.js";
import { change, chosenModel, state } from "../store.js";
import { t } from "../text.js";
import { spoken } from "./words.js";

const KEPT = 60; // finished images that this page holds; older ones are in the history
const TRIES = 8; // of one image that a busy server puts off
const BREAKS = 3; // of the connection while one image is sent, each time with a server that otherwise answers
const PAUSE = 2; // seconds to wait where a busy server does not say how long

export const queue = {
  parts: [], // {id, name, blob, url, state: "waiting"|"sending"|"done"|"failed", note, result, model, hash, feedback, source}
  shown: null, // id of the part in view
  following: true, // whether the view goes along with the newest verdict
};

let next = 1;
let working = false;

export const shownPart = () => queue.parts.find((part) => part.id === queue.shown) ?? null;
export const unfinished = () => queue.parts.filter((part) => part.state === "waiting" || part.state === "sending").length;

/** Take in `files` (File or Blob with a name); what is no image is named and left out. */
export function add(files, source = "file") {
  const images = [...files].filter((file) => file.type.startsWith("image/") || file.type === "");
  const others = [...files].filter((file) => !images.includes(file));
  if (others.length) toast(t("not-an-image", { name: others[0].name || others[0].type, n: others.length }));
  if (!images.length) return;
  for (const blob of images) {
    const part = { id: next++, name: blob.name ?? "", blob, url: URL.createObjectURL(blob), state: "waiting", feedback: null, source };
    queue.parts.push(part);
  }
  queue.following = true;
  if (!shownPart() || shownPart().state === "done") queue.shown = queue.parts.at(-images.length).id;
  change();
  work();
}

/** Send a failed image again. */
export function retry(part) {
  Object.assign(part, { state: "waiting", note: null });
  change();
  work();
}

async function work() {
  if (working) return;
  working = true;
  try {
    for (let part = first(); part; part = first()) await inspect(part);
  } finally {
    working = false;
  }
}

const first = () => queue.parts.find((part) => part.state === "waiting");

async function inspect(part) {
  const model = chosenModel();
  if (!model) return fail(part, t(state.models.length ? "choose-model" : "no-models"));
  part.state = "sending";
  change();
  const options = { map: "colour", explain: model.can_explain, keep: true, false_reject: state.rates[model.name] };
  for (let tried = 1, broken = 0; ; tried++) {
    try {
      const answer = await api.inspect(model.name, part.blob, part.name, options);
      return done(part, answer);
    } catch (error) {
      if (error instanceof Unreachable && ++broken < BREAKS) {
        part.note = t("waits-for-server");
        change();
        await whenOnline();
      } else if (error instanceof Refused && (error.status === 503 || error.status === 429) && tried < TRIES) {
        const seconds = Math.min(error.retryAfter ?? PAUSE, 60);
        part.note = t("busy-again-in", { n: seconds, sentence: error.message });
        change();
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      } else if (error instanceof Refused || error instanceof Unreachable) {
        return fail(part, error instanceof Refused ? error.message : t("cut-off"));
      } else {
        fail(part, String(error));
        throw error;
      }
    }
  }
}

function fail(part, note) {
  Object.assign(part, { state: "failed", note });
  if (queue.following) queue.shown = part.id;
  announce(note);
  forgetOldest();
  change();
}

function done(part, answer) {
  const [result] = answer.results;
  Object.assign(part, { state: "done", note: answer.note ?? null, result });
  Object.assign(part, { model: answer.model, hash: answer.model_hash, falseReject: answer.false_reject });
  if (queue.following) queue.shown = part.id;
  if (part.id === queue.shown) announce(spoken(part));
  forgetOldest();
  change();
}

function forgetOldest() {
  const finished = queue.parts.filter((part) => (part.state === "done" || part.state === "failed") && part.id !== queue.shown);
  for (const part of finished.slice(0, Math.max(0, finished.length - KEPT))) {
    URL.revokeObjectURL(part.url);
    queue.parts.splice(queue.parts.indexOf(part), 1);
  }
}

/** Show the part `step` places on, the first or the last of all, or the one with the id. */
export function show(part) {
  if (!part) return;
  queue.shown = part.id;
  queue.following = part === queue.parts.at(-1);
  if (part.state === "done") announce(spoken(part));
  change();
}

export function step(by) {
  const at = queue.parts.findIndex((part) => part.id === queue.shown);
  show(queue.parts[Math.min(Math.max(at + by, 0), queue.parts.length - 1)]);
}

/** The next rejected part after the one in view, from the front again after the last. */
export function nextRejected() {
  const at = queue.parts.findIndex((part) => part.id === queue.shown);
  const order = [...queue.parts.slice(at + 1), ...queue.parts.slice(0, at + 1)];
  show(order.find((part) => part.result?.verdict === "reject"));
}

/** Say that the part in view was good or a defect; null takes it back. */
export async function judge(label) {
  const part = shownPart();
  if (part?.state !== "done" || part.feedback === label) return;
  try {
    await api.feedback(part.model, part.result.record, label);
    part.feedback = label;
    toast(t(label === null ? "feedback-undone" : label === "good" ? "marked-good" : "marked-defect"));
  } catch (error) {
    toast(error instanceof Unreachable ? t("offline") : error.message);
  }
  change();
}
