// Settings against results, a point a run: a scatter of any two quantities, a map of two settings, lines through all.

const VIEWS = { scatter: "scatter", map: "heat map", lines: "parallel lines" };
const SCALE = "Viridis", ROOM = { showlegend: false, margin: { l: 10, r: 10, t: 34, b: 10 } };
const isNumber = value => typeof value === "number" && value < OPEN;
const numeric = (quantity, runs) => runs.every(run => quantity.value(run) === null || quantity.value(run) === undefined || isNumber(quantity.value(run)));
const shownValue = value => value === null || value === undefined ? "-" : isNumber(value) ? value : String(value);

// An axis of numbers, or of names in the order in which numbers in them rise.
function axisOf(quantity, runs) {
  if (numeric(quantity, runs)) return { title: { text: quantity.name } };
  return { title: { text: quantity.name }, type: "category", categoryorder: "array", categoryarray: namesOf(quantity, runs) };
}

const namesOf = (quantity, runs) => [...new Set(runs.map(run => String(shownValue(quantity.value(run)))))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));

function scatterOf(runs, [x, y, colour]) {
  const coloured = runs.filter(run => isNumber(colour.value(run)));
  return {
    data: [{
      type: "scatter", mode: "markers", name: "runs", x: coloured.map(run => shownValue(x.value(run))), y: coloured.map(run => shownValue(y.value(run))),
      customdata: coloured.map(run => run.name), text: coloured.map(run => `${run.name}: ${colour.name} ${number(colour.value(run))}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { color: coloured.map(run => colour.value(run)), colorscale: SCALE, showscale: true, size: 10, colorbar: { title: { text: colour.name, side: "right" }, thickness: 12 } },
    }],
    layout: { ...ROOM, xaxis: axisOf(x, coloured), yaxis: axisOf(y, coloured) },
  };
}

// Mean over the runs of each pair of settings, and how many they are.
function mapOf(runs, [x, y, colour]) {
  const across = namesOf(x, runs), down = namesOf(y, runs);
  const cell = (column, line) => moments(runs.filter(run => String(shownValue(x.value(run))) === column && String(shownValue(y.value(run))) === line)
    .map(run => colour.value(run)).filter(isNumber));
  const cells = down.map(line => across.map(column => cell(column, line)));
  return {
    data: [{
      type: "heatmap", x: across, y: down, z: cells.map(line => line.map(each => each.mean)), colorscale: SCALE, xgap: 1, ygap: 1,
      text: cells.map(line => line.map(each => each.n ? number(each.mean, 3) : "")), texttemplate: "%{text}",
      customdata: cells.map(line => line.map(each => each.n)), hovertemplate: "%{x}, %{y}: %{text} (runs: %{customdata})<extra></extra>",
      colorbar: { title: { text: colour.name, side: "right" }, thickness: 12 },
    }],
    layout: { ...ROOM, xaxis: { title: { text: x.name }, type: "category" }, yaxis: { title: { text: y.name }, type: "category" } },
  };
}

// A colour of Viridis for a share in [0, 1].
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function viridis(share) {
  const at = Math.min(Math.max(share, 0), 1) * (STOPS.length - 1), i = Math.min(Math.floor(at), STOPS.length - 2);
  return `rgb(${STOPS[i].map((from, k) => Math.round(from + (at - i) * (STOPS[i + 1][k] - from))).join(", ")})`;
}

// Places of a quantity's values in [0, 1], and what stands at some of them.
function places(quantity, runs) {
  const values = runs.map(quantity.value), names = namesOf(quantity, runs), few = names.length <= 6;
  if (!values.every(isNumber) || few) {
    const at = name => names.length > 1 ? names.indexOf(name) / (names.length - 1) : 0.5;
    return { at: values.map(v => at(String(shownValue(v)))), marks: few ? names.map(name => [at(name), name]) : [names[0], names.at(-1)].map(name => [at(name), name]) };
  }
  const least = Math.min(...values), most = Math.max(...values);
  return { at: values.map(v => (v - least) / (most - least)), marks: [[0, number(least)], [1, number(most)]] };
}

// A line a run through all settings and the result; WebGL, which Plotly's own needs, is not everywhere.
function linesOf(runs, settings, colour) {
  const kept = runs.filter(run => isNumber(colour.value(run))), shown = [...settings, colour], axes = shown.map(each => places(each, kept));
  return {
    data: kept.map((run, i) => ({
      type: "scatter", mode: "lines", name: run.name, x: shown.map((_, k) => k), y: axes.map(axis => axis.at[i]), customdata: shown.map(() => run.name),
      line: { color: viridis(axes.at(-1).at[i]), width: 1.5 }, text: shown.map(each => `${run.name}: ${each.name} ${number(each.value(run))}`), hovertemplate: "%{text}<extra></extra>",
    })),
    layout: {
      ...ROOM, yaxis: { visible: false, range: [-0.05, 1.05] },
      xaxis: { tickvals: shown.map((_, k) => k), ticktext: shown.map(each => each.name), range: [-0.4, shown.length - 0.5], zeroline: false },
      annotations: axes.flatMap((axis, k) => axis.marks.map(([y, text]) => ({ x: k, y, text: String(text), showarrow: false, xanchor: "left", font: { size: 11 } }))),
    },
  };
}

// What is drawn of ``runs`` in a view. ``settings`` are quantities that differ, ``chosen`` those of x, y and colour.
function settingsChart(runs, view, settings, chosen) {
  const drawn = { scatter: scatterOf, map: mapOf, lines: () => linesOf(runs, settings, chosen[2]) }[view](runs, chosen);
  const notes = { scatter: "a point is a run; choose one to see it below", map: "mean over runs", lines: "a line is a run; choose one to see it below" };
  return { id: "settings", title: capital(chosen[2].name), note: notes[view], ...drawn };
}
