/** <line-chart>: uPlot in the page's own colours and size. `.spec` is {data, options(colours) → uPlot's options}. */

const COLOURS = ["ink", "faint", "line", "good", "bad", "accent"];

function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Draw an upright line through a plot at the value `x`. */
export function upright(plot, x, colour, dash = []) {
  const { ctx, bbox } = plot;
  const at = plot.valToPos(x, "x", true);
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 2 * devicePixelRatio;
  ctx.setLineDash(dash.map((length) => length * devicePixelRatio));
  ctx.beginPath();
  ctx.moveTo(at, bbox.top);
  ctx.lineTo(at, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

class LineChart extends HTMLElement {
  #spec = null;
  #plot = null;
  #width = 0;
  #size = new ResizeObserver(() => this.#fit());
  #themed = () => this.#draw();

  set spec(spec) {
    const same = this.#plot && this.#spec?.key === spec.key;
    this.#spec = spec;
    if (same) this.#plot.setData(spec.data);
    else this.#draw();
  }

  connectedCallback() {
    this.#size.observe(this);
    window.addEventListener("themed", this.#themed);
    this.#draw();
  }

  disconnectedCallback() {
    this.#size.disconnect();
    window.removeEventListener("themed", this.#themed);
    this.#plot?.destroy();
    this.#plot = null;
  }

  /** As wide as there is room, a third of the window high; uPlot puts its legend below that. */
  #measure() {
    this.#width = this.clientWidth;
    return { width: Math.max(this.#width, 200), height: Math.min(Math.max(innerHeight / 3, 200), 640) };
  }

  #fit() {
    if (this.clientWidth !== this.#width) this.#plot?.setSize(this.#measure());
  }

  #draw() {
    if (!this.isConnected || !this.#spec) return;
    this.#plot?.destroy();
    this.#plot = new window.uPlot({ ...this.#measure(), ...this.#spec.options(colours()) }, this.#spec.data, this);
  }
}

customElements.define("line-chart", LineChart);
