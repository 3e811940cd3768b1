/** What the page knows, in one place. Whoever changes it says so, and the page is drawn again at the next frame. */

import { remembered } from "./remember.js";

const known = remembered();

export const state = {
  me: null, // {name, role, token_needed} of GET /v1/me
  login: null, // {error} while a token is asked for
  online: true,
  ready: false, // the first list of models has come
  view: "inspect",
  language: known.language ?? null,
  theme: known.theme ?? "auto",
  models: [],
  model: known.model ?? null, // name of the chosen one
  rates: known.rates ?? {}, // promised false-reject rate by model, where another than the server's was chosen
};

let draw = () => {};
let waiting = false;

/** Call `render` whenever something changed. */
export function drawWith(render) {
  draw = render;
}

/** Take over `patch`, and draw at the next frame. */
export function change(patch = {}) {
  Object.assign(state, patch);
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    draw();
  });
}

/** The chosen model's entry of GET /v1/models, or null. */
export function chosenModel() {
  return state.models.find((model) => model.name === state.model) ?? null;
}

const RANKS = { inspect: 1, feedback: 2, admin: 3 };

/** Whether the one at the page may do what `role` may. */
export function can(role) {
  return (RANKS[state.me?.role] ?? 0) >= RANKS[role];
}
