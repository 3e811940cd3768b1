/** Is the server there, and what are its models? Asked again and again; those who wait are told. */

import { Refused, Unreachable, api } from "./api.js";
import { setToken, token } from "./session.js";
import { change, state } from "./store.js";
import { remember } from "./remember.js";

const EVERY = 15; // seconds between two looks at the models while all is well
const SOON = 3; // and while the server does not answer

let waiters = [];
let timer = null;

/** Resolves when the server answers again. */
export function whenOnline() {
  return new Promise((resolve) => {
    waiters.push(resolve);
    if (state.online) lost();
  });
}

function lost() {
  change({ online: false });
  again(SOON);
}

function again(seconds) {
  clearTimeout(timer);
  timer = setTimeout(refresh, seconds * 1000);
}

/** Ask who is here and which models there are. */
export async function refresh() {
  clearTimeout(timer);
  try {
    if (!state.me) await whoIsHere();
    if (!state.login) takeModels(await api.models());
    change({ online: true });
    for (const waiter of waiters.splice(0)) waiter();
    again(EVERY);
  } catch (error) {
    if (error instanceof Unreachable) return lost();
    if (!(error instanceof Refused)) throw error;
    change({ online: true });
    if (error.status === 401) askForToken(token() ? error.message : null);
    else again(SOON); // not ready yet: it says so to whoever inspects
  }
}

async function whoIsHere() {
  const me = await api.me();
  change({ me });
  if (me.token_needed && !me.role) askForToken(null);
}

function askForToken(sentence) {
  change({ me: null, login: { error: sentence } });
}

/** Try `text` as the token; says in state.login why it was refused. */
export async function logIn(text, onThisPc) {
  setToken(text, onThisPc);
  change({ me: null, login: null });
  await refresh();
  if (state.login) setToken(null);
}

export function logOut() {
  setToken(null);
  location.reload();
}

function takeModels(models) {
  const names = models.map((model) => model.name);
  const ready = models.find((model) => model.state === "ready");
  const model = names.includes(state.model) ? state.model : (ready?.name ?? names[0] ?? null);
  change({ models, model, ready: true });
}

export function chooseModel(name) {
  remember({ model: name });
  change({ model: name });
}
