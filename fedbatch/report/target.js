"use strict";
// What a target costs: where each run first reaches it, in rounds, examples, bytes and simulated seconds.

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
    + "Mean and standard deviation of the runs that reached it.";
  fill(table, ["group", "reached", ...PRICES.map(price => AXES[price])], groups.map(group => {
    const costs = PRICES.map(price => group.runs.map(run => costOf(run, score, target, price)));
    const reached = costs[0].filter(cost => cost !== null).length;
    return row([swatch(group), `${reached} of ${group.runs.length}`, ...costs.map((each, i) => PRICES[i] === "bytes" ? spread(moments(each), bytes) : spread(moments(each)))]);
  }));
}
