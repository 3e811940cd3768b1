"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("controls"), list = byId("cards"), dialog = byId("large");
  // Cards stand in the order of the records: worst first.
  const all = JSON.parse(byId("records").textContent).map((record) => ({
    ...record,
    card: byId("card-" + record.index),
    text: [record.name, record.label, record.kind, record.verdict || "", record.wrong].join(" ").toLowerCase(),
  }));
  const compare = {
    rank: (a, b) => a.rank - b.rank,
    score: (a, b) => b.score - a.score || a.rank - b.rank,
    p_value: (a, b) => a.p_value - b.p_value || b.score - a.score,
    name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }) || a.index - b.index,
  };
  let order = [...all];

  const chosen = (name) => (form.elements[name] ? form.elements[name].value : "");
  const fits = (one) => {
    const verdict = chosen("verdict");
    const words = chosen("search").toLowerCase().split(/\s+/).filter(Boolean);
    return (
      (!chosen("label") || one.label === chosen("label")) &&
      (!chosen("kind") || one.kind === chosen("kind")) &&
      (!verdict || (verdict === "wrong" ? Boolean(one.wrong) : one.verdict === verdict)) &&
      words.every((word) => one.text.includes(word))
    );
  };
  const show = () => {
    let count = 0;
    for (const one of all) {
      one.card.hidden = !fits(one);
      count += one.card.hidden ? 0 : 1;
    }
    byId("count").textContent = `showing ${count} of ${all.length}`;
    byId("none").hidden = count > 0;
  };
  const sort = () => {
    order = [...all].sort(compare[chosen("sort")]);
    list.append(...order.map((one) => one.card));
    show();
  };

  let at = 0;
  const enlarge = (one) => {
    at = order.indexOf(one);
    const copy = one.card.cloneNode(true);
    copy.removeAttribute("id");
    const button = copy.querySelector("h3");
    if (button) button.remove();
    byId("large-name").textContent = one.name;
    byId("large-card").replaceChildren(copy);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  };
  const step = (by) => {
    const seen = order.filter((one) => !one.card.hidden);
    const next = seen[seen.indexOf(order[at]) + by];
    if (next) enlarge(next);
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => (event.target.name === "sort" ? sort() : show()));
  for (const one of all) {
    one.card.addEventListener("click", () => {
      if (!String(getSelection())) enlarge(one);
    });
  }
  byId("close").addEventListener("click", () => dialog.close());
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => order[at].card.querySelector(".open").focus());
  sort(); // a browser may have kept the controls of an earlier visit
})();
