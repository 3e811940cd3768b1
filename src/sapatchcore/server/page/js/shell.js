/** What stands around every view: name, model, tabs, settings, and what is wrong where all can see it. */

import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { dragging, dropHint } from "./inspect/intake.js";
import { showKeys } from "./keys.js";
import { chooseModel, logIn, logOut } from "./link.js";
import { remember } from "./remember.js";
import { token } from "./session.js";
import { can, change, chosenModel, state } from "./store.js";
import { LANGUAGES, speak, t } from "./text.js";

export const VIEWS = { inspect: "I", rate: "R", history: "H", learn: "L", drift: "T", models: "M" };
const NEEDS = { learn: "feedback" }; // the role without which a view shows nothing

export const viewsHere = () => Object.keys(VIEWS).filter((view) => !NEEDS[view] || can(NEEDS[view]));

export function shell(content) {
  if (state.login) return html`${topBar(false)}${loginForm()}`;
  return html`${topBar(true)}${banners()}${content}${dragging() ? dropHint() : nothing}`;
}

function topBar(known) {
  return html`<header class="top">
    <span class="brand">sapatchcore</span>
    ${known ? html`<label class="model"><span class="visually-hidden">${t("model")}</span>
      <select class="form-select" id="model" @change=${chosen(chooseModel)}>
        ${state.models.map(({ name, state: is }) => html`<option value=${name} .selected=${name === state.model}>${is === "failed" ? `⚠ ${name}` : name}</option>`)}
      </select></label>
    <nav class="views" aria-label=${t("views")}>${viewsHere().map((view) => html`<a class="btn ${view === state.view ? "active" : ""}" href="#${view}"
      aria-current=${view === state.view ? "page" : "false"}>${t(`view-${view}`)} <kbd>${VIEWS[view]}</kbd></a>`)}</nav>` : html`<span class="views"></span>`}
    <div class="settings">
      <button class="btn btn-outline-secondary" id="keys" aria-label=${t("keys")} @click=${showKeys}>?</button>
      <select class="form-select" id="language" aria-label="Language / Ngôn ngữ" @change=${chosen(chooseLanguage)}>
        ${Object.entries(LANGUAGES).map(([code, name]) => html`<option value=${code} .selected=${code === state.language}>${name}</option>`)}</select>
      <select class="form-select" id="theme" aria-label=${t("theme")} @change=${chosen(chooseTheme)}>
        ${["auto", "light", "dark"].map((theme) => html`<option value=${theme} .selected=${theme === state.theme}>${t(`theme-${theme}`)}</option>`)}</select>
      ${token() && known ? html`<button class="btn btn-outline-secondary" id="log-out" title=${state.me?.name ?? ""} @click=${logOut}>${t("log-out")}</button>` : nothing}
    </div>
  </header>`;
}

/** Act on what a list was set to; a list that was set with the mouse gives the keys back to the view. */
const chosen = (act) => ({ target }) => {
  if (!target.matches(":focus-visible")) target.blur();
  act(target.value);
};

async function chooseLanguage(code) {
  await speak(code);
  remember({ language: code });
  change({ language: code });
}

function chooseTheme(theme) {
  remember({ theme });
  window.dispatchEvent(new Event("theme"));
  change({ theme });
}

function banners() {
  const drifting = chosenModel()?.drift?.alarm;
  return html`
    ${state.online ? nothing : html`<div class="banner alert alert-danger" role="alert" data-banner="offline">${t("offline")}</div>`}
    ${drifting && state.view !== "drift" ? html`<div class="banner alert alert-warning" role="alert" data-banner="drift">
      <span aria-hidden="true">⚠</span> ${t("drift-alarm-short", { model: state.model })} <a class="alert-link" href="#drift">${t("view-drift")}</a></div>` : nothing}`;
}

function loginForm() {
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    logIn(form.get("token").trim(), form.get("keep") !== null);
  };
  return html`<main class="login"><form class="card" @submit=${submit}>
    <h1 class="fs-3">${t("token-wanted")}</h1>
    <p>${t("token-explained")}</p>
    ${state.login.error ? html`<p class="alert alert-danger" role="alert">${state.login.error}</p>` : nothing}
    <label class="form-label" for="token">${t("token")}</label>
    <input class="form-control form-control-lg" id="token" name="token" type="password" autocomplete="current-password" required autofocus>
    <label class="form-check my-3"><input class="form-check-input" type="checkbox" name="keep"> ${t("token-keep")}</label>
    <button class="btn btn-primary btn-lg w-100">${t("log-in")}</button>
  </form></main>`;
}
