/** The token of whoever is at the page: for this tab, or for this PC where that was asked for. */

const KEY = "sapatchcore-token";

function stored(storage) {
  try {
    return storage().getItem(KEY);
  } catch {
    return null; // storage is closed to this page
  }
}

let current = stored(() => sessionStorage) ?? stored(() => localStorage);

export function token() {
  return current;
}

/** Use `text` from now on; keep it for this tab, or with `onThisPc` for good. null forgets it everywhere. */
export function setToken(text, onThisPc = false) {
  current = text;
  for (const [storage, keeps] of [[() => sessionStorage, !onThisPc], [() => localStorage, onThisPc]]) {
    try {
      if (text !== null && keeps) storage().setItem(KEY, text);
      else storage().removeItem(KEY);
    } catch {
      // Kept in this page's memory alone, then.
    }
  }
}
