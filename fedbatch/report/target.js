// What a target costs: where each run first reaches it, in rounds, examples, bytes and simulated seconds; and what one of
// the runs says that other batches would cost.

const PRICES = ["rounds", "examples", "bytes", "simulated_seconds"];
const isBetter = (value, target, score) => SCORES[score] === "lower" ? value <= target : value >= target;

// The cost at which a run's score first is at least as good as the target, or null. Scores are known where a run was evaluated.
function costOf(run, score, target, price) {
  const [x, y] = [run.curves[price], run.curves[score]];
  if (!x || !y) return null;
  const at = y.findIndex(value => value !== null && value < OPEN && isBetter(value, target, score));
  return at < 0 ? null : x[at];
}

// A target that the runs can tell apart: nine tenths of the way to the worst of the runs' best scores.
function usualTarget(runs, score) {
  const reached = runs.map(run => (run.curves[score] || []).filter(v => v !== null && v < OPEN)).filter(values => values.length);
  if (!reached.length) return null;
  const lower = SCORES[score] === "lower", best = values => lower ? Math.min(...values) : Math.max(...values);
  const bests = reached.map(best), firsts = reached.map(values => values[0]);
  const [worst, start] = lower ? [Math.max(...bests), Math.max(...firsts)] : [Math.min(...bests), Math.min(...firsts)];
  return Number((start + 0.9 * (worst - start)).toPrecision(3));
}

function costsToTarget(table, note, groups, score, target) {
  const runs = groups.flatMap(group => group.runs);
  const known = runs.filter(run => costOf(run, score, target, "rounds") !== null);
  note.textContent = `${labelOfScore(score)} ${SCORES[score] === "lower" ? "at most" : "at least"} ${number(target)}: reached by ${known.length} of ${runs.length} runs. `
    + "Mean and standard deviation of the runs that reached it, in steps of the rounds that were evaluated.";
  fill(table, ["group", "reached", ...PRICES.map(price => AXES[price])], groups.map(group => {
    const costs = PRICES.map(price => group.runs.map(run => costOf(run, score, target, price)));
    const reached = costs[0].filter(cost => cost !== null).length;
    return row([swatch(group), `${reached} of ${group.runs.length}`, ...costs.map((each, i) => PRICES[i] === "bytes" ? spread(moments(each), bytes) : spread(moments(each)))]);
  }));
}

// Those runs whose record says what other batches would cost, and that reached the target; the smallest batch first.
function tellers(runs, score, target) {
  const cost = (run, price) => costOf(run, score, target, price);
  return runs.filter(run => ((run.critical || {}).sums || []).length && cost(run, "rounds") !== null)
    .sort((a, b) => cost(a, "examples") / cost(a, "rounds") - cost(b, "examples") / cost(b, "rounds"));
}

// Rounds and examples that batches would need, by the sums S_min and E_min of a run up to the round at which it got there.
function toldBy(run, rounds, batches) {
  const sums = [[0, 0, 0], ...run.critical.sums], at = i => interpolated(sums.map(s => s[0]), sums.map(s => s[i]), [rounds])[0];
  const [least, fewest] = [at(1), at(2)];
  return batches.map(batch => ({ batch, rounds: least + fewest / batch, examples: least * batch + fewest }));
}

// Measured costs of groups, and the curve that one run tells: examples against rounds.
function targetChart(groups, teller, score, target) {
  const costs = groups.map(group => {
    const [x, y] = ["rounds", "examples"].map(price => moments(group.runs.map(run => costOf(run, score, target, price))));
    return { group, x, y };
  }).filter(({ x }) => x.n);
  if (!costs.length) return null;
  const data = costs.map(({ group, x, y }) => ({
    type: "scatter", mode: "markers", name: group.name, x: [x.mean], y: [y.mean], showlegend: false,
    marker: { color: group.color, size: 10, symbol: group.symbol }, text: [`a batch of ${number(y.mean / x.mean, 3)}`],
    error_x: { array: [x.sd], color: group.color, thickness: 1 }, error_y: { array: [y.sd], color: group.color, thickness: 1 },
  }));
  if (teller) {
    const sizes = costs.map(({ x, y }) => y.mean / x.mean), from = Math.log(Math.min(...sizes) / 2), to = Math.log(2 * Math.max(...sizes));
    const told = toldBy(teller, costOf(teller, score, target, "rounds"), Array.from({ length: 40 }, (_, i) => Math.exp(from + (to - from) * i / 39)));
    data.push({
      type: "scatter", mode: "lines", name: "told by one run", x: told.map(t => t.rounds), y: told.map(t => t.examples), line: { color: GREY, dash: "dash" },
      text: told.map(t => `a batch of ${number(t.batch, 3)}`), hovertemplate: "%{text}: %{x:.3s} rounds, %{y:.3s} examples",
    });
  }
  const axis = (name, text) => ({ ...logAxis(data.flatMap(trace => trace[name])), title: { text } });
  const doubts = teller && teller.critical.doubts.length ? `; not to be trusted as it is, by what the run says to its lowest loss: ${teller.critical.doubts[0]}` : "";
  return {
    id: "to-target", title: "Examples against rounds to the target", data,
    note: teller ? `marks: mean and standard deviation of groups; line: other batches as told by run ${teller.name} alone, each at its best rate${doubts}` : "mean and standard deviation of groups",
    layout: { showlegend: false, xaxis: axis("x", "rounds"), yaxis: axis("y", "examples") },
  };
}
