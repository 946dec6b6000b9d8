// Runs beside each other: groups of runs that agree in a key, seeds aggregated, cost against quality.

// What columns are called and where they are shown is told by fedbatch/core/columns.py.
const { labels: LABELS, compare: COMPARED, cost: COSTLY, scores: SCORES } = JSON.parse(document.getElementById("data").textContent).columns;
const labelled = names => Object.fromEntries(names.map(name => [name, LABELS[name] || name.replaceAll("_", " ")]));
const METRICS = labelled(COMPARED), COSTS = labelled([...COSTLY, "bytes"]);
// The score of a run's task, as its summary has it; runs of an earlier fedbatch do not say it.
const scoreOf = run => run.summary.score || "test_accuracy";
const labelOfScore = name => LABELS[name] || name.replaceAll("_", " ");
const EVERYTHING = "all that differs but the seed", EACH = "run";

const last = values => values && [...values].reverse().find(v => v !== null);
// A part that is chosen, e.g. model._target_, goes by its group and its class.
const labelOf = key => key.replace(/\._target_$/, "");
const valueOf = (run, key) => key.endsWith("._target_") && run.config[key] ? run.config[key].split(".").at(-1) : run.config[key];
const shortened = key => labelOf(key).split(".").at(-1);
const final = (run, name) => {
  const curve = last(run.curves[name]);
  const value = curve === undefined ? run.summary[name] : curve;
  return typeof value === "number" && value < OPEN ? value : null;
};

const capital = text => text[0].toUpperCase() + text.slice(1);

// Colour, dash and mark of the i-th group: 28 lines and 49 marks that all differ.
const SYMBOLS = { circle: "\u25CF", square: "\u25A0", diamond: "\u25C6", "triangle-up": "\u25B2", cross: "\u271A", star: "\u2605", hexagon: "\u2B22" };
function look(i) {
  const n = GROUP_COLOURS.length, turn = Math.floor(i / n), symbols = Object.keys(SYMBOLS);
  return { color: GROUP_COLOURS[i % n], dash: DASHES[turn % DASHES.length], symbol: symbols[(i + turn) % symbols.length] };
}

function groupsOf(runs, key, differing) {
  const keys = key === EVERYTHING ? differing.filter(k => k !== "seed") : [key];
  const name = run => key === EACH ? run.name : keys.map(k => `${shortened(k)}=${valueOf(run, k) ?? "-"}`).join(", ") || "all";
  const groups = new Map();
  for (const run of runs) groups.set(name(run), [...(groups.get(name(run)) || []), run]);
  return [...groups].map(([name, runs], i) => ({
    name, runs, ...look(i),
  })).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

function moments(values) {
  const kept = values.filter(v => v !== null && v !== undefined), n = kept.length;
  const mean = n ? kept.reduce((a, b) => a + b, 0) / n : null;
  return { n, mean, sd: n > 1 ? Math.sqrt(kept.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1)) : 0 };
}

const spread = ({ mean, sd }, say = number) => mean === null ? "" : sd > 1e-9 * Math.abs(mean) ? `${say(mean)} ± ${say(sd, 2)}` : say(mean);

// Values of a curve at given points of its x axis, by lines between its own points.
function interpolated(x, y, at) {
  const kept = y.map((v, i) => i).filter(i => y[i] !== null && y[i] < OPEN);
  let right = 0;
  return at.map(point => {
    while (right < kept.length - 1 && x[kept[right]] < point) right++;
    const b = kept[right], a = kept[Math.max(0, right - 1)];
    return x[b] === x[a] ? y[b] : y[a] + (y[b] - y[a]) * (Math.min(Math.max(point, x[a]), x[b]) - x[a]) / (x[b] - x[a]);
  });
}

// Mean and standard deviation of a group, where all of its runs have got to.
function together(group, metric, axis, smooth) {
  const known = group.runs.map(run => [run.curves[axis], run.curves[metric]]).filter(([x, y]) => x && y && y.some(v => v !== null));
  const curves = known.map(([x, y]) => [x, smoothed(y, smooth)]);
  if (!curves.length) return [];
  const look = { line: { dash: group.dash } };
  if (curves.length === 1) return [line(...curves[0].map(values => values.map(v => v >= OPEN ? null : v)), group.name, group.color, look)];
  const spans = curves.map(([x, y]) => { const kept = x.filter((_, i) => y[i] !== null); return [kept[0], kept.at(-1)]; });
  const from = Math.max(...spans.map(s => s[0])), to = Math.min(...spans.map(s => s[1]));
  const at = Array.from({ length: 101 }, (_, i) => from + (to - from) * i / 100);
  const values = curves.map(([x, y]) => interpolated(x, y, at)), all = at.map((_, i) => moments(values.map(v => v[i])));
  const edge = sign => all.map(m => m.mean + sign * m.sd);
  return [
    { ...band(at, edge(-1), edge(1), "", group.color), showlegend: false, legendgroup: group.name },
    line(at, all.map(m => m.mean), `${group.name} (${curves.length})`, group.color, { ...look, trace: { legendgroup: group.name } }),
  ];
}

// Those points that no other point beats in both: at most the cost, at least the quality.
function pareto(points) {
  let best = -Infinity;
  return [...points].sort((a, b) => a.x - b.x || b.y - a.y).filter(p => p.y > best && (best = p.y, true));
}

// The standard error of an accuracy by the number of test examples alone, or null for other scores.
function byChance(run, score) {
  const n = run.summary.test_examples, p = final(run, score);
  return n && p !== null && score === "test_accuracy" ? Math.sqrt(p * (1 - p) / n) : null;
}

// A range that is at least eight standard errors high, so that two test examples are no front; null where that is not needed.
function widened(values, error) {
  const least = Math.min(...values), most = Math.max(...values), middle = (least + most) / 2;
  return error && most - least < 8 * error ? [middle - 5 * error, middle + 5 * error] : null;
}

function paretoChart(groups, cost, score) {
  const sign = SCORES[score] === "lower" ? -1 : 1, name = labelOfScore(score);
  const points = groups.map(group => {
    const x = moments(group.runs.map(run => final(run, cost))), y = moments(group.runs.map(run => final(run, score)));
    return { group, x: x.mean, y: y.mean, dx: x.sd, dy: y.sd };
  }).filter(p => p.x !== null && p.y !== null);
  const costs = points.map(p => p.x), dearest = Math.max(...costs), alike = dearest - Math.min(...costs) <= 1e-3 * dearest;
  const error = Math.max(...groups.flatMap(group => group.runs.map(run => byChance(run, score) || 0)));
  const front = alike ? [] : pareto(points.map(p => ({ ...p, y: sign * p.y }))).map(p => ({ ...p, y: sign * p.y }));
  const data = points.map(p => ({
    type: "scatter", mode: "markers", name: p.group.name, x: [p.x], y: [p.y], showlegend: false,
    marker: { color: p.group.color, size: 10, symbol: p.group.symbol + (front.some(f => f.group === p.group) ? "" : "-open") },
    error_x: { array: [p.dx], color: p.group.color, thickness: 1 }, error_y: { array: [p.dy], color: p.group.color, thickness: 1 },
  }));
  if (front.length) data.push({ type: "scatter", mode: "lines", x: front.map(p => p.x), y: front.map(p => p.y), name: "Pareto front", line: { color: GREY, dash: "dot", shape: "hv" }, hoverinfo: "skip" });
  const range = widened(points.map(p => p.y), error);
  return {
    id: Object.keys(SCORES).length > 1 ? `pareto-${score}` : "pareto", title: `${capital(name.replace(/^test /, ""))} against ${COSTS[cost]}`, data,
    note: alike ? "mean and standard deviation of a group; all cost the same, so that there is no front" : "mean and standard deviation of a group; full marks: no group is both better and cheaper",
    layout: { xaxis: { title: { text: COSTS[cost] }, ...(alike && { range: [0, 1.25 * dearest] }) }, yaxis: { title: { text: name }, ...(range && { range }) } },
  };
}

// The name of a group beside a piece of its line, and its mark.
function swatch({ name, color, dash, symbol }) {
  const style = { solid: "solid", dash: "dashed", dot: "dotted", dashdot: "double" }[dash];
  const label = element("span"), mark = element("span", "", { className: "swatch" });
  mark.style.borderTop = `3px ${style} ${color}`;
  const sign = element("span", SYMBOLS[symbol], { className: "sign" });
  sign.style.color = color;
  label.append(mark, sign, name);
  return label;
}

// The best groups by their mean last score, at most ``count``; the table below has all.
function best(groups, score, count) {
  const sign = SCORES[score] === "lower" ? 1 : -1, mean = group => moments(group.runs.map(run => final(run, score))).mean;
  const ranked = groups.filter(group => mean(group) !== null).sort((a, b) => sign * (mean(a) - mean(b)));
  const kept = new Set(ranked.slice(0, count));
  return groups.length <= count || !ranked.length ? groups.slice(0, Math.max(count, 1)) : groups.filter(group => kept.has(group));
}

function compare(box, table, all, { metric, over, cost, score, most, scales }) {
  clear(box);
  const groups = best(all, score, most);
  const legend = groups.length <= 4 && innerWidth > 600;  // else the table below tells the lines
  const few = groups.length < all.length ? `; the best ${groups.length} of ${all.length} groups` : "";
  chart(box, scaled({
    id: "comparison", title: `${capital(METRICS[metric])} over ${AXES[over]}`, note: `mean of a group's runs and its standard deviation; in brackets their number${few}`,
    data: groups.flatMap(g => together(g, metric, over, scales.smooth)),
    layout: { showlegend: legend, xaxis: { title: { text: AXES[over] } }, yaxis: { title: { text: METRICS[metric] } } },
  }, scales));
  for (const score of Object.keys(SCORES)) {
    const drawn = groups.filter(g => g.runs.some(run => final(run, score) !== null));
    if (drawn.length) chart(box, paretoChart(drawn, cost, score));
  }
  const columns = [...Object.keys(SCORES), "test_loss", "rounds", "examples", "simulated_seconds", "noise_scale"];
  fill(table, ["group", "runs", ...columns.map(name => name.replaceAll("_", " "))], all.map(g =>
    row([swatch(g), g.runs.length, ...columns.map(name => spread(moments(g.runs.map(run => final(run, name)))))])));
}
