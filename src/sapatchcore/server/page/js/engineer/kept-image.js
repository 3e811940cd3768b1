/** <kept-image record="17">: the image that the server kept of a record, fetched with the token once it scrolls into view. */

import { api } from "../api.js";
import { t } from "../text.js";

class KeptImage extends HTMLElement {
  static observedAttributes = ["record"];

  #url = null;
  #abort = null;
  #watch = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && this.#load());

  connectedCallback() {
    this.#watch.observe(this);
  }

  disconnectedCallback() {
    this.#watch.disconnect();
    this.#clear();
  }

  attributeChangedCallback(_name, before, now) {
    if (before === null || before === now) return;
    this.#clear();
    this.#watch.unobserve(this);
    this.#watch.observe(this); // tells anew whether it is in view
  }

  async #load() {
    this.#watch.unobserve(this);
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      const blob = await api.image(Number(this.getAttribute("record")), signal);
      if (signal.aborted) return;
      this.#url = URL.createObjectURL(blob);
      const image = Object.assign(new Image(), { src: this.#url, alt: this.getAttribute("alt") ?? "" });
      this.replaceChildren(image);
    } catch (error) {
      if (signal.aborted) return;
      this.replaceChildren(Object.assign(document.createElement("small"), { textContent: error.status === 404 ? t("image-not-kept") : error.message }));
    }
  }

  #clear() {
    this.#abort?.abort();
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
    this.replaceChildren();
  }
}

customElements.define("kept-image", KeptImage);
