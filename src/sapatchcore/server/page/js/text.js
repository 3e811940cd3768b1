/** The words of the page, in the reader's language, and how that language writes numbers and times. */

export const LANGUAGES = { en: "English", vi: "Tiếng Việt" };

let words = {};
let language = "en";
let locale = "en"; // the language as this browser's region writes it, "en-GB"
let plural = new Intl.PluralRules("en");

/** The language to begin with: the one remembered, else the first of the browser's that we speak. */
export function firstLanguage(rememberedOne) {
  if (rememberedOne in LANGUAGES) return rememberedOne;
  const spoken = navigator.languages.map((code) => code.slice(0, 2));
  return spoken.find((code) => code in LANGUAGES) ?? "en";
}

/** Load the words of `code`; from then on everything is said in it. */
export async function speak(code) {
  const found = await fetch(new URL(`../words/${code}.json`, import.meta.url));
  words = await found.json();
  language = code;
  locale = navigator.languages.find((spoken) => spoken.slice(0, 2) === code) ?? code;
  plural = new Intl.PluralRules(code);
  document.documentElement.lang = code;
}

/** The text `key`, with {places} filled from `values`. Where it has several forms, values.n chooses. */
export function t(key, values = {}) {
  let text = words[key];
  if (text === undefined) throw new Error(`There is no text "${key}" in words/${language}.json.`);
  if (typeof text === "object") text = text[plural.select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : value;
  });
}

export function number(value, digits = 4) {
  return new Intl.NumberFormat(locale, { maximumSignificantDigits: Math.max(digits, 1) }).format(value);
}

/** A whole number, written out. */
export function count(value) {
  return new Intl.NumberFormat(locale, { maximumFractionDigits: 0 }).format(value);
}

/** A share in percent: 0.0123 is "1.2 %". */
export function percent(share, digits = 2) {
  return new Intl.NumberFormat(locale, { style: "percent", maximumSignificantDigits: digits }).format(share);
}

/** A p-value as people write it; never "0". */
export function pValue(p) {
  return p === null ? "–" : number(p, 2);
}

export function megabytes(bytes) {
  return new Intl.NumberFormat(locale, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 }).format(bytes / 1e6);
}

/** "24 Nov 2026, 23:10:05" of an ISO time, in this PC's zone. */
export function when(iso) {
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso));
}

/** A promised rate in words: "1 in 100", or "3 in 1,000". */
export function oneIn(rate) {
  const whole = Math.round(1 / rate);
  if (Math.abs(rate * whole - 1) < 1e-6) return t("one-in", { part: "1", whole: count(whole) });
  const size = 10 ** Math.ceil(-Math.log10(rate) + 1);
  return t("one-in", { part: number(rate * size, 3), whole: count(size) });
}
