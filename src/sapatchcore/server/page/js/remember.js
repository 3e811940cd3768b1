/** What this browser remembers between visits: language, theme, model, rates, opacity, camera. Never an image or a record. */

const KEY = "sapatchcore";

export function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // storage is closed to this page, or holds what it did not write
  }
}

export function remember(patch) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...remembered(), ...patch }));
  } catch {
    // Without storage the page works all the same; it only forgets.
  }
}
