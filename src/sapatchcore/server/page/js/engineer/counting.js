/** What another promised rate would have decided: rejected ⇔ p ≤ rate, from the records' p-values alone. */

const STEPS = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8];
const TOP = 0.2;

/** Whether a part with the p-value is rejected at the promised rate, as the server decides it (score/threshold.py). */
export const rejectedAt = (p, rate) => p <= rate + 1e-12; // 0.29 is 0.28999…

/** The rates of the slider: from the smallest that can be promised to 20 %, about ten a decade. */
export function rates(smallest) {
  const found = [smallest];
  for (let decade = 1e-6; decade < 1; decade *= 10) {
    for (const step of STEPS) {
      const rate = Number((step * decade).toPrecision(3));
      if (rate > smallest * (1 + 1e-9) && rate <= TOP) found.push(rate);
    }
  }
  return found;
}

/** The place in `rates` nearest to `rate`, on their logarithmic scale. */
export function nearestPlace(found, rate) {
  let best = 0;
  found.forEach((each, place) => {
    if (Math.abs(Math.log(each / rate)) < Math.abs(Math.log(found[best] / rate))) best = place;
  });
  return best;
}

/** What `rate` would change of `records`: counts before and after, and the records whose verdict is another then. */
export function changes(records, rate) {
  const decided = records.filter((record) => record.p_value !== null && record.verdict !== null);
  const then = (record) => rejectedAt(record.p_value, rate);
  const now = (record) => record.verdict === "reject";
  const tally = (some) => ({ of: some.length, before: some.filter(now).length, after: some.filter(then).length });
  const good = tally(decided.filter((record) => record.feedback === "good"));
  const defects = decided.filter((record) => record.feedback === "defect");
  return {
    all: tally(decided),
    good,
    missed: { of: defects.length, before: defects.filter((record) => !now(record)).length, after: defects.filter((record) => !then(record)).length },
    changed: decided.filter((record) => now(record) !== then(record)),
    undecided: records.length - decided.length,
  };
}

/** How many of `records` each of `found` rates rejects, as uPlot takes it: [rates, all, known good, known defects]. */
export function curve(records, found) {
  const decided = records.filter((record) => record.p_value !== null);
  const rejected = (some) => found.map((rate) => some.filter((record) => rejectedAt(record.p_value, rate)).length);
  const of = (label) => decided.filter((record) => record.feedback === label);
  return [found, rejected(decided), rejected(of("good")), rejected(of("defect"))];
}
