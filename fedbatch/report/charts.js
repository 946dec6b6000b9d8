// The charts of one run: each takes (run, axis) and returns what to draw, or null where the run has no such numbers.

const curve = (run, axis, column, name, color, more) =>
  run.curves[column] ? [line(run.curves[axis], run.curves[column], name, color, more)] : [];

// Curves as means of the last values; axes, sizes and what is counted stay as they are.
const EXACT = new Set([...Object.keys(AXES), "phase", "switch", "global_batch", "cohort_size", "lr", "epsilon", "labels_used"]);
const smoothedCurves = (curves, count) => count === 1 ? curves
  : Object.fromEntries(Object.entries(curves).map(([name, values]) => [name, EXACT.has(name) ? values : smoothed(values, count)]));

function overTime(id, title, columns, layout = {}, note = "") {
  return (run, axis) => {
    const data = columns.flatMap(([column, name, color, dash]) =>
      curve(run, axis, column, name, color, { line: { dash: dash || "solid" } }));
    if (!data.length) return null;
    const showlegend = data.length > 1;
    return { id, title, note, data, timed: true, layout: { showlegend, ...events(run, axis), xaxis: { title: { text: AXES[axis] } }, ...layout } };
  };
}

// Every second phase is grey, from where the phase before it ended.
function phases(run) {
  const names = [...new Set(run.curves.phase)], found = [];
  run.curves.phase.forEach((phase, i) => {
    if (!found.length || found.at(-1).phase !== phase) found.push({ phase, from: Math.max(0, i - 1), grey: names.indexOf(phase) % 2 });
    found.at(-1).to = i;
  });
  return names.length > 1 ? found : [];
}

// What happened: a grey ground under every second phase, and the name of each where it begins, with the reason of the switch.
const MOST_NAMES = 9;
function events(run, axis) {
  const found = phases(run), at = run.curves[axis];
  const why = phase => run.curves.switch.slice(0, phase.from + 1).filter(Boolean).at(-1) || "";
  return {
    shapes: shades(run, axis),
    annotations: found.length > MOST_NAMES ? [] : found.map((phase, i) => ({
      text: phase.phase, hovertext: i ? `after round ${run.curves.rounds[phase.from]}: ${why(phase)}` : "", showarrow: false, font: { color: GREY, size: 11 },
      x: at[phase.from], xanchor: "left", yref: "paper", y: 1 - 0.07 * (i % 3), yanchor: "top",
    })),
  };
}

const shades = (run, axis) => phases(run).filter(p => p.grey).map(p => ({
  type: "rect", yref: "paper", y0: 0, y1: 1, x0: run.curves[axis][p.from], x1: run.curves[axis][p.to],
  fillcolor: SHADE, line: { width: 0 }, layer: "below",
}));

function noiseScale(run, axis) {
  const { noise_scale: scale, noise_scale_low: low, noise_scale_high: high } = run.curves, x = run.curves[axis];
  if (!scale) return null;
  const unit = run.summary.noise_scale_unit || "examples";
  const batch = unit === "clients" ? "cohort_size" : "global_batch";
  const finite = scale.map(v => v === null || v <= 0 || v >= OPEN ? null : v);
  const drawn = [...finite, ...run.curves[batch]].filter(v => v !== null);
  const top = 2 * Math.max(...drawn), least = Math.min(...drawn) / 4;
  const data = [line(x, finite, run.summary.privacy ? "noise scale with privacy noise" : "noise scale", BLUE), ...curve(run, axis, batch, "global batch", ORANGE, { line: { shape: "hv" } })];
  if (low && high) data.unshift({
    ...band(x, low.map(v => v === null ? null : Math.max(v, least)), high.map(v => v === null ? null : Math.min(v, top)), "its interval", BLUE),
  });
  return {
    id: "noise", title: "Noise scale and global batch", data, timed: true,
    note: phases(run).length ? "grey and white tell the phases apart, here and in the other charts" : "",
    layout: { ...events(run, axis), xaxis: { title: { text: AXES[axis] } }, yaxis: { ...logAxis([least, top]), title: { text: unit }, range: [Math.log10(least), Math.log10(1.5 * top)] } },
  };
}

const shortScore = run => scoreOf(run).replace(/^test_/, "");

function score(run, axis) {
  const name = shortScore(run), columns = [[`test_${name}`, "test", GREEN], [`training_set_${name}`, "training set", BLUE, "dash"]];
  const below = columns.some(([column]) => (run.curves[column] || []).some(v => v < 0));
  return overTime(name, capital(name.replaceAll("_", " ")), columns, { yaxis: { rangemode: below ? "normal" : "nonnegative" } })(run, axis);
}

function clients(run, axis) {
  const name = shortScore(run), at = q => run.curves[`client_${name}_p${q}`], x = run.curves[axis];
  if (!at(50)) return null;
  return {
    id: "clients", title: `${capital(name.replaceAll("_", " "))} of clients on what they hold out`, note: "median over clients, and the middle half and nine tenths of them",
    data: [band(x, at(5), at(95), "5 to 95 %", BLUE), band(x, at(25), at(75), "25 to 75 %", BLUE), line(x, at(50), "median", BLUE)],
    timed: true, layout: { ...events(run, axis), xaxis: { title: { text: AXES[axis] } }, yaxis: { rangemode: "tozero" } },
  };
}

function privacyLoss(run, axis) {
  const drawn = overTime("epsilon", "Privacy loss", [["epsilon", "epsilon spent", PURPLE]], { yaxis: { rangemode: "tozero", title: { text: "epsilon" } } })(run, axis);
  const { planned_epsilon: planned } = run.summary.privacy || {};
  if (!drawn || typeof planned !== "number") return drawn;
  const x = run.curves[axis];
  drawn.data.push(line([x[0], x.at(-1)], [planned, planned], "planned for the whole run", GREY, { line: { dash: "dash" }, trace: { mode: "lines" } }));
  drawn.layout.showlegend = true;
  return drawn;
}

function attention(run, axis) {
  const layers = Object.keys(run.curves).filter(name => name.startsWith("attention_layer_"));
  const names = layers.map((name, i) => [name, `layer ${i + 1}`, GROUP_COLOURS[i % GROUP_COLOURS.length], DASHES[Math.floor(i / GROUP_COLOURS.length) % DASHES.length]]);
  return overTime("attention", "Largest attention logit", names, { yaxis: { rangemode: "tozero" } }, "over examples, heads and pairs of positions")(run, axis);
}

function trustRatios(run, axis) {
  const names = [["trust_ratio_max", "largest", ORANGE, "dash"], ["trust_ratio_median", "median", BLUE], ["trust_ratio_min", "smallest", PURPLE, "dot"]];
  const drawn = overTime("ratios", "Trust ratios over layers", names)(run, axis);
  if (drawn) drawn.layout.yaxis = logAxis(drawn.data.flatMap(trace => trace.y));
  return drawn;
}

function stages(run) {
  const names = Object.keys(run.stages).reverse(), seconds = names.map(name => run.stages[name]);
  if (!names.length) return null;
  const all = seconds.reduce((a, b) => a + b, 0);
  return {
    id: "stages", title: `Time by stage: ${number(all, 3)} s measured`,
    data: [{
      type: "bar", orientation: "h", x: seconds, y: names.map(name => name.replace("_seconds", "")), marker: { color: BLUE },
      text: seconds.map(s => `${number(s, 3)} s, ${Math.round(100 * s / all)} %`), textposition: "auto", cliponaxis: false,
    }],
    layout: { showlegend: false, xaxis: { title: { text: "seconds" } } },
  };
}

function reliability(run) {
  const scores = run.summary.calibration || {}, data = [];
  const pool = ["held_out", "test"].find(name => scores.before && scores.before[name] && scores.before[name].bins);
  if (!pool) return null;
  const styles = { before: [ORANGE, "circle"], after: [BLUE, "diamond"] };
  for (const [stage, [color, symbol]] of Object.entries(styles)) {
    const found = scores[stage] && scores[stage][pool];
    if (!found) continue;
    const { count, confidence, correct } = found.bins, full = count.map((n, i) => i).filter(i => count[i] > 0);
    data.push({
      type: "scatter", mode: "lines+markers", name: `${stage} (ECE ${number(found.ece, 3)})`, line: { color, width: 1 },
      x: full.map(i => confidence[i] / count[i]), y: full.map(i => correct[i] / count[i]), text: full.map(i => `${count[i]} predictions`),
      marker: { symbol, size: full.map(i => 6 + 12 * Math.sqrt(count[i] / Math.max(...count))), opacity: 0.7 },
    });
  }
  data.push({ type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], name: "calibrated", line: { color: GREY, dash: "dot" }, hoverinfo: "skip" });
  const what = pool === "test" ? "test split" : "what clients hold out";
  return {
    id: "reliability", title: `Reliability, ${what}`, note: scores.temperature ? `before and after temperature ${number(scores.temperature, 3)}; a larger mark is more predictions` : "a larger mark is more predictions",
    data, layout: { xaxis: { title: { text: "confidence" }, range: [0, 1.03] }, yaxis: { title: { text: "accuracy" }, range: [0, 1.05] } },
  };
}

// Of the tables after the last round; they are not over time.
function confusion(run) {
  const counts = (run.views || {}).confusion;
  if (!counts) return null;
  const sums = counts.map(row => row.reduce((a, b) => a + b, 0)), shares = counts.map((row, i) => row.map(n => sums[i] ? n / sums[i] : null));
  return {
    id: "confusion", title: "Which class is taken for which", note: "shares of each class of the test split, after the last round",
    data: [{
      type: "heatmap", z: shares, customdata: counts, zmin: 0, zmax: 1, colorscale: [[0, colour("--paper")], [1, BLUE]], xgap: 1, ygap: 1,
      hovertemplate: "class %{y}, taken for %{x}: %{customdata} (%{z:.1%})<extra></extra>",
    }],
    layout: { showlegend: false, xaxis: { title: { text: "taken for class" }, constrain: "domain" }, yaxis: { title: { text: "class" }, autorange: "reversed" } },
  };
}

function recall(run) {
  const shares = (run.views || {}).recall;
  if (!shares) return null;
  const there = shares.map((_, i) => i).filter(i => shares[i] !== null);
  return {
    id: "recall", title: "Recall by class", note: "share of each class of the test split that is found, after the last round",
    data: [{ type: "bar", x: there, y: there.map(i => shares[i]), marker: { color: GREEN } }],
    layout: { showlegend: false, xaxis: { title: { text: "class" } }, yaxis: { range: [0, 1.02] } },
  };
}

function worstClients(run) {
  const [ids, examples, scores] = (run.views || {}).worst || [];
  if (!ids) return null;
  const kept = ids.map((_, i) => i).filter(i => scores[i] !== null).reverse(), name = shortScore(run).replaceAll("_", " ");
  return {
    id: "worst", title: `Clients with the worst ${name}`, note: "on what they hold out, after the last round",
    data: [{
      type: "bar", orientation: "h", x: kept.map(i => scores[i]), y: kept.map(i => `client ${ids[i]}`), marker: { color: BLUE },
      text: kept.map(i => `${number(scores[i], 3)}, ${examples[i]} examples`), textposition: "auto", cliponaxis: false,
    }],
    layout: { showlegend: false, xaxis: { title: { text: name } }, yaxis: { automargin: true } },
  };
}

const CHARTS = [
  score,
  overTime("loss", "Loss", [["train_loss", "of the round's clients", BLUE], ["test_loss", "test", GREEN], ["training_set_loss", "training set", ORANGE, "dash"]], { yaxis: { rangemode: "tozero" } }),
  noiseScale,
  overTime("rate", "Server learning rate", [["lr", "learning rate", ORANGE]], { yaxis: { rangemode: "tozero" } }),
  clients,
  recall,
  confusion,
  worstClients,
  privacyLoss,
  overTime("calibration", "Calibration error (ECE)", [["test_ece", "test split", GREEN], ["held_out_ece", "held out by clients", BLUE]], { yaxis: { rangemode: "tozero" } }),
  reliability,
  trustRatios,
  attention,
  overTime("labels", "Labels asked for", [["labels_used", "labels", BLUE]], { yaxis: { rangemode: "tozero" } }),
  stages,
];
