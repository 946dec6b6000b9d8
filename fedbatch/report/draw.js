"use strict";
// How a chart looks, whatever it shows. Colours are Okabe and Ito's, safe for colour-blind eyes; lines of groups also differ in dash.
const BLUE = "#0072B2", ORANGE = "#D55E00", GREEN = "#009E73", PURPLE = "#A8568B", GREY = "#777777";
const GROUP_COLOURS = [BLUE, ORANGE, GREEN, PURPLE, "#A66F00", "#2F7FB0", "#8C8C8C"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const AXES = {
  rounds: "rounds", examples: "examples", bytes: "bytes sent and received", simulated_seconds: "simulated seconds",
};
const SHADE = "rgba(128, 128, 128, .15)", OPEN = 1e299;  // beyond OPEN an interval is open above

const element = (name, text = "", more = {}) => Object.assign(document.createElement(name), { textContent: text }, more);
// A colour of the style, which knows whether the reader's screen is dark.
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const find = id => document.getElementById(id);

function number(value, digits = 4) {
  if (typeof value !== "number") return value == null ? "" : String(value);
  if (value >= OPEN) return "open";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const small = Math.abs(value) < 1e-3, large = Math.abs(value) >= 1e9;
  if (small || large) return value.toExponential(2);
  const rounded = Number(value.toPrecision(digits));
  return Number.isInteger(rounded) ? rounded.toLocaleString("en") : String(rounded);
}

function row(cells, kind = "td") {
  const line = element("tr");
  for (const cell of cells) {
    const box = element(kind);
    if (cell instanceof Node) box.append(cell);
    else { box.textContent = number(cell); box.className = typeof cell === "number" ? "number" : ""; }
    line.append(box);
  }
  return line;
}

function list(box, entries) {
  box.replaceChildren(...entries.map(([name, value, more]) => {
    const pair = element("div"), shown = element("dd", number(value));
    if (more) shown.append(element("small", more));
    pair.append(element("dt", name), shown);
    return pair;
  }));
}

const bytes = n => n >= 1e9 ? `${number(n / 1e9, 3)} GB` : `${number(n / 1e6, 3)} MB`;

function fill(table, heads, lines) {
  const head = element("thead"), body = element("tbody");
  if (heads.length) head.append(row(heads.map(text => element("span", text)), "th"));
  body.append(...lines);
  table.replaceChildren(head, body);
}

// Means of the last ``count`` known values, where there is one: a noisy curve as people read it.
function smoothed(values, count) {
  const latest = [];
  return values.map(value => {
    if (value === null || value >= OPEN) return value;
    latest.push(value);
    if (latest.length > count) latest.shift();
    return latest.reduce((a, b) => a + b, 0) / latest.length;
  });
}

// Marks at 1, 2 and 5 times powers of ten, in full; at all of 1 to 9 where that would be too few.
function logAxis(values) {
  const positive = values.filter(v => v > 0 && v < OPEN), near = Math.max(...positive) < 8 * Math.min(...positive);
  const from = Math.floor(Math.log10(Math.min(...positive))), to = Math.ceil(Math.log10(Math.max(...positive)));
  const powers = Array.from({ length: to - from + 1 }, (_, i) => from + i);
  const marks = powers.flatMap(p => (to - from > 3 ? [1] : near ? [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9] : [1, 2, 5]).map(d => Number(`${d}e${p}`)));
  return { type: "log", tickvals: marks, ticktext: marks.map(v => number(v)) };
}

// The same chart with logarithmic axes where asked for and where there are positive values. Places of annotations are
// logarithms there, as Plotly has it; edges of bands end at the least value that is drawn.
function scaled({ data, layout, ...rest }, { logX, logY }) {
  const known = axis => data.flatMap(trace => trace[axis]).filter(v => v > 0 && v < OPEN), changed = { ...layout };
  let traces = data;
  for (const [axis, wanted] of [["x", logX], ["y", logY]]) {
    const values = known(axis), name = `${axis}axis`;
    if (!wanted || !values.length || (layout[name] || {}).type === "log") continue;
    const least = values.reduce((a, b) => Math.min(a, b));
    traces = traces.map(trace => ({ ...trace, [axis]: trace[axis].map(v => v > 0 ? v : trace.fill ? least : null) }));
    changed[name] = { title: (layout[name] || {}).title, ...logAxis(values) };
    if (axis === "x") changed.annotations = (layout.annotations || []).map(each => ({ ...each, x: Math.log10(each.x) }));
  }
  return { ...rest, data: traces, layout: changed };
}

// What is drawn, as a table: a line a point, without bands.
function pointsOf(data) {
  const rows = data.filter(trace => trace.x && trace.y && trace.hoverinfo !== "skip").flatMap(trace =>
    [...trace.x].map((x, i) => [trace.name ?? "", x, trace.y[i], ...(trace.marker && Array.isArray(trace.marker.color) ? [trace.marker.color[i]] : [])]));
  return [["name", "x", "y", "colour"].slice(0, Math.max(3, ...rows.map(each => each.length))), ...rows];
}

// A field of a CSV file. A text that a spreadsheet would take for a formula has a mark in front, for names are anybody's.
function field(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const asCsv = table => table.map(line => line.map(field).join(",") + "\n").join("");
const csvLink = table => URL.createObjectURL(new Blob([asCsv(table)], { type: "text/csv" }));

// Plotly obeys tags in texts. Names are anybody's, so that they are shown as they are; templates are this page's own.
const OWN = ["hovertemplate", "texttemplate", "customdata"];
function shownTexts(value) {
  if (typeof value === "string") return value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  if (Array.isArray(value)) return value.map(each => shownTexts(each));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, OWN.includes(key) ? each : shownTexts(each)]));
}

function chart(box, { id, title, note = "", data, layout = {} }) {
  const figure = element("figure"), caption = element("figcaption", title);
  if (note) caption.append(element("div", note, { className: "note" }));
  const area = element("div", "", { className: "chart", id: `chart-${id}` });
  area.setAttribute("role", "img");
  area.setAttribute("aria-label", title);
  figure.append(caption, area);
  box.append(figure);
  const texts = shownTexts(layout), axis = { gridcolor: colour("--grid"), linecolor: "#999999", zerolinecolor: colour("--line"), automargin: true, exponentformat: "SI" };
  area.drawn = Plotly.newPlot(area, shownTexts(data), {
    margin: { l: 10, r: 10, t: 10, b: 10 },
    font: { family: "system-ui, 'DejaVu Sans', sans-serif", size: 13, color: colour("--ink") },
    paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hovermode: "closest",
    ...texts,
    xaxis: { ...axis, ...texts.xaxis },
    yaxis: { ...axis, ...texts.yaxis },
  }, { responsive: true, displaylogo: false, modeBarButtons: [["toImage", csvButton(id, data)]] });
  return area;
}

const CSV_ICON = { width: 24, height: 24, path: "M4 3h16v18H4z M6 5v4h5V5z M13 5v4h5V5z M6 11v4h5v-4z M13 11v4h5v-4z M6 17v2h5v-2z M13 17v2h5v-2z" };
const csvButton = (id, data) => ({
  name: "csv", title: "Download the points as CSV", icon: CSV_ICON,
  click: () => element("a", "", { href: csvLink(pointsOf(data)), download: `${id}.csv` }).click(),
});

function clear(box) {
  for (const area of box.querySelectorAll(".chart")) area.drawn.finally(() => Plotly.purge(area));  // it may be under way
  box.replaceChildren();
}

// A line of those rounds that have a value; few points are shown as points too.
function line(x, y, name, color, more = {}) {
  const kept = y.map((value, i) => i).filter(i => y[i] !== null);
  return {
    x: kept.map(i => x[i]), y: kept.map(i => y[i]), name, type: "scatter",
    mode: kept.length > 50 ? "lines" : "lines+markers", line: { color, width: 2, ...more.line }, ...more.trace,
  };
}

function band(x, low, high, name, color) {
  const kept = x.map((value, i) => i).filter(i => low[i] !== null && high[i] !== null);
  const back = [...kept].reverse();
  return {
    x: [...kept, ...back].map(i => x[i]), y: [...kept.map(i => high[i]), ...back.map(i => low[i])],
    name, type: "scatter", mode: "lines", fill: "toself", fillcolor: color + "33", line: { width: 0 }, hoverinfo: "skip",
  };
}
