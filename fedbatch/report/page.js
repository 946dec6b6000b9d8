"use strict";
const page = JSON.parse(find("data").textContent);
const differing = telling([...new Set(page.runs.flatMap(run => Object.keys(run.config)))].sort());
const chosen = {
  run: page.runs[0], axis: "rounds", sort: null, descending: false, without: new Set(),
  scales: { logX: false, logY: false, smooth: 1 }, comparison: { logX: false, logY: false, smooth: 1 },
};

// Which differing keys tell runs apart: of those that differ alike in all runs the one with the shortest name, and none that is
// the same wherever it is, which only says that a part with such a key was chosen.
function telling(keys) {
  const found = new Map(), readable = page.runs.filter(run => Object.keys(run.config).length);
  for (const key of keys.sort((a, b) => a.split(".").length - b.split(".").length)) {
    const values = readable.map(run => run.config[key]), there = new Set(values.filter(v => v !== undefined));
    const name = JSON.stringify(values);
    if (there.size > 1 && !found.has(name)) found.set(name, key);
  }
  return [...found.values()];
}

// The table of runs ----------------------------------------------------------------------------------------------
const RESULTS = ["rounds", "examples", ...Object.keys(SCORES), "test_loss", "noise_scale", "epsilon", "simulated_seconds"];
const labelOfColumn = name => name.replaceAll("_", " ");
const columns = [
  { name: "run", value: run => run.name },
  { name: "status", value: run => run.status },
  ...differing.map(key => ({ name: labelOf(key), value: run => valueOf(run, key) })),
  ...RESULTS.filter(name => page.runs.some(run => final(run, name) !== null))
    .map(name => ({ name: labelOfColumn(name), value: run => final(run, name) })),
  ...(page.runs.some(run => run.summary.error) ? [{ name: "error", value: run => run.summary.error }] : []),
];
const described = run => columns.map(c => `${c.name}=${c.value(run)}`).join(" ").toLowerCase() + " " + run.status;

function visible() {
  const words = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return page.runs.filter(run => words.every(word => described(run).includes(word)));
}

function sorted(runs) {
  if (!chosen.sort) return runs;
  const sign = chosen.descending ? -1 : 1, missing = v => v === null || v === undefined || v === "";
  return [...runs].sort((a, b) => {
    const [x, y] = [a, b].map(chosen.sort.value);
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
  });
}

function runsTable() {
  const runs = sorted(visible());
  const lines = runs.map(run => {
    const name = element("span"), mark = element("input", "", { type: "checkbox", checked: !chosen.without.has(run), title: "in the comparisons" });
    mark.onchange = () => { chosen.without[mark.checked ? "delete" : "add"](run); told(); drawComparison(); };
    name.append(mark, element("button", run.name, { className: "run", onclick: () => choose(run, true) }));
    const line = row([name, element("span", run.status, { className: run.status }), ...columns.slice(2).map(c => c.value(run))]);
    line.classList.toggle("chosen", run === chosen.run);
    return line;
  });
  fill(find("runs"), [], lines);
  const heads = columns.map(column => {
    const head = element("th"), button = element("button", column.name);
    button.onclick = () => { chosen.descending = chosen.sort === column && !chosen.descending; chosen.sort = column; runsTable(); };
    if (chosen.sort === column) head.setAttribute("aria-sort", chosen.descending ? "descending" : "ascending");
    head.append(button);
    return head;
  });
  find("runs").tHead.append(element("tr"));
  find("runs").tHead.rows[0].append(...heads);
  told();
}

const compared = () => visible().filter(run => !chosen.without.has(run));
function told() {
  const shown = visible().length, drawn = compared().length;
  find("shown").textContent = `${shown} of ${page.runs.length} runs` + (drawn < shown ? `, ${drawn} of them compared` : "");
}

// All that the filter shows, into the comparisons or out of them.
function mark(all) {
  for (const run of visible()) chosen.without[all ? "delete" : "add"](run);
  runsTable();
  drawComparison();
}

const tableOf = runs => [columns.map(c => c.name), ...runs.map(run => columns.map(c => c.value(run)))];

// The comparison -------------------------------------------------------------------------------------------------
const choice = id => find(id).value;
function drawComparison() {
  const runs = compared().filter(run => (run.curves.rounds || []).length), score = theScore();
  const groups = groupsOf(runs, choice("group"), differing);
  const scales = chosen.comparison, most = Math.max(1, Number(choice("most")) || 1);
  drawTarget(groups, runs, score, Number(choice("target")));
  compare(find("comparison"), find("groups"), groups, { metric: choice("metric"), over: choice("over"), cost: choice("cost"), score, most, scales });
  drawSettings(runs);
}

function drawTarget(groups, runs, score, target) {
  costsToTarget(find("to-target"), find("target-note"), groups, score, target);
  const able = tellers(runs, score, target), before = choice("teller");
  find("teller").replaceChildren(...able.map(run => element("option", run.name)));
  if (able.some(run => run.name === before)) find("teller").value = before;
  find("told").hidden = !able.length;
  clear(find("target-chart"));
  const drawn = targetChart(groups, able.find(run => run.name === choice("teller")), score, target);
  if (drawn) chart(find("target-chart"), drawn);
}

// What differs, then what came out: the columns of the table but for names.
const quantities = columns.filter(c => !["run", "status", "error"].includes(c.name));
const settingsOf = () => quantities.slice(0, differing.length);
function drawSettings(runs) {
  const named = id => quantities.find(c => c.name === choice(id)), lines = choice("view") === "lines";
  find("settings").hidden = runs.length < 2 || !settingsOf().length;
  for (const id of ["x-label", "y-label"]) find(id).hidden = lines;
  clear(find("settings-chart"));
  if (find("settings").hidden) return;
  const area = chart(find("settings-chart"), settingsChart(runs, choice("view"), settingsOf(), ["x", "y", "colour"].map(named)));
  area.on("plotly_click", ({ points: [point] }) => { const run = page.runs.find(each => each.name === point.customdata); if (run) choose(run, true); });
}

// Runs of several tasks have several scores: the one that is shown, or else the first.
const theScore = () => choice("metric") in SCORES ? choice("metric") : Object.keys(SCORES)[0];

// What is the same in all runs, and what is not, from what each run says of itself.
function whatRan() {
  const runs = page.runs.filter(run => Object.keys(run.ran).length), labels = [...new Set(runs.flatMap(run => Object.keys(run.ran)))];
  const values = label => [...new Set(runs.map(run => run.ran[label] ?? "-"))];
  const shown = label => values(label).slice(0, 6).join(" | ") + (values(label).length > 6 ? ` | and ${values(label).length - 6} more` : "");
  list(find("same"), labels.filter(label => values(label).length === 1).map(label => [label, shown(label)]));
  const varying = labels.filter(label => values(label).length > 1 && label !== "training").map(label => [label, shown(label)]);
  list(find("varies"), varying);
  find("varies-note").hidden = !varying.length;
}

function options(id, names, labels = {}) {
  find(id).append(...names.map(name => element("option", labels[name] || name, { value: name })));
  find(id).onchange = drawComparison;
}

function study() {
  find("study").hidden = false;
  const has = (name, run) => final(run, name) !== null, any = name => page.runs.some(run => has(name, run));
  options("group", [EVERYTHING, ...differing, EACH], Object.fromEntries(differing.map(key => [key, labelOf(key)])));
  options("metric", Object.keys(METRICS).filter(any), METRICS);
  find("metric").value = Object.keys(SCORES)[0];
  options("over", Object.keys(AXES), AXES);
  options("cost", Object.keys(COSTS).filter(any), COSTS);
  if ("examples" in COSTS && any("examples")) find("cost").value = "examples";  // rounds are often the same in all runs
  const names = quantities.map(c => c.name), results = names.slice(differing.length), score = labelOfColumn(theScore());
  const [first, second] = settingsOf().map(c => c.name).filter(name => name !== "seed");
  options("teller", []);
  options("view", Object.keys(VIEWS), VIEWS);
  find("view").value = second ? "map" : "scatter";
  for (const [id, listed, usual] of [["x", names, first], ["y", names, second || score], ["colour", results, score]]) {
    options(id, listed);
    if (listed.includes(usual)) find(id).value = usual;
  }
  find("most").onchange = drawComparison;
  find("all").onclick = () => mark(true);
  find("none").onclick = () => mark(false);
  scaleControls(find("comparison-scales"), chosen.comparison, drawComparison);
  find("filter").oninput = () => { runsTable(); drawComparison(); };
  find("metric").onchange = () => { find("target").value = usualTarget(page.runs, theScore()) ?? ""; drawComparison(); };
  find("target").onchange = drawComparison;
  find("target").value = usualTarget(page.runs, theScore()) ?? "";
  find("csv").onclick = () => { find("csv").href = csvLink(tableOf(sorted(visible()))); };
  whatRan();
  runsTable();
  drawComparison();
}

// Boxes for logarithmic axes, and the number of values that a curve is averaged over.
function scaleControls(box, scales, redraw) {
  for (const [name, text] of [["logX", "log x"], ["logY", "log y"]]) {
    const label = element("label"), input = element("input", "", { type: "checkbox", name });
    input.onchange = () => { scales[name] = input.checked; redraw(); };
    label.append(input, text);
    box.append(label);
  }
  const label = element("label", "mean of the last "), input = element("input", "", { type: "number", min: 1, step: 1, value: 1, className: "smooth" });
  input.onchange = () => { scales.smooth = Math.max(1, Math.floor(Number(input.value)) || 1); redraw(); };
  label.append(input, " values");
  box.append(label);
}

// An accuracy's standard error by chance, in words.
function byTheTest(run) {
  const error = byChance(run, scoreOf(run));
  return error ? `± ${number(error, 2)} by chance, of ${number(run.summary.test_examples)} test examples` : "";
}

// One run --------------------------------------------------------------------------------------------------------
function headline(run) {
  const s = run.summary, unit = s.noise_scale_unit || "", known = value => value !== undefined && value !== null;
  const entries = [
    ["status", run.status],
    ["rounds", final(run, "rounds")],
    [labelOfScore(scoreOf(run)), final(run, scoreOf(run)), byTheTest(run)],
    ["test loss", final(run, "test_loss")],
    ["noise scale", s.noise_scale, known(s.noise_scale) ? `${number(s.noise_scale_low)} to ${number(s.noise_scale_high)} ${unit}` : ""],
    ["epsilon", s.epsilon, s.privacy && `delta ${number(s.privacy.delta)}, ${s.privacy.unit} level`],
    ["examples", final(run, "examples")],
    ["from clients", known(s.bytes_up) ? bytes(s.bytes_up) : null, known(s.bytes_down) ? `${bytes(s.bytes_down)} to them` : ""],
    ["simulated seconds", s.simulated_seconds],
  ];
  list(find("headline"), entries.filter(([, value]) => known(value)));
}

function drawRun() {
  clear(find("charts"));
  if (!(chosen.run.curves.rounds || []).length) return;
  const run = { ...chosen.run, curves: smoothedCurves(chosen.run.curves, chosen.scales.smooth) };
  for (const each of CHARTS) {
    const drawn = each(run, chosen.axis);
    if (drawn) chart(find("charts"), drawn.timed ? scaled(drawn, chosen.scales) : drawn);
  }
}

function choose(run, move = false) {
  chosen.run = run;
  const s = run.summary, config = { ...page.common, ...run.config };
  find("name").textContent = page.runs.length > 1 ? `Run ${run.name} ` : `${run.name} `;
  if (!page.again_after) find("name").append(element("a", "folder", { href: `${run.link}/`, className: "note" }));
  find("remark").textContent = s.error ? `${run.status}: ${s.error}` : { running: "This run was under way when the page was made.", killed: "This run says it is running, but has written nothing for minutes." }[run.status] || "";
  find("statement").textContent = s.statement || "";
  list(find("ran"), Object.entries(run.ran));
  headline(run);
  drawRun();
  drawCritical(run);
  const reasons = (run.curves.switch || []).map((why, i) => [run.curves.rounds[i], why]).filter(([, why]) => why);
  find("switches").replaceChildren(...reasons.slice(0, 20).map(([round, why]) => element("li", `after round ${round}: ${why}`)));
  const shown = value => value === undefined ? "-" : value === null ? "null" : String(value);
  const changed = Object.keys(config).filter(key => config[key] !== page.defaults[key]).sort();
  fill(find("changed"), ["key", "this run", "default"], changed.map(key => row([key, shown(config[key]), shown(page.defaults[key])])));
  fill(find("config"), ["key", "value"], Object.keys(config).sort().map(key => row([key, shown(config[key])])));
  find("difference").textContent = changed.length ? "What differs from the defaults." : "All as by default.";
  find("changed").hidden = !changed.length;
  const executors = s.executors && Object.entries(s.executors).map(([phase, name]) => `${phase}: ${name}`).join(", ");
  const made = { ...s.machine, executors, ...s.versions };
  list(find("made-with"), Object.entries(made).filter(([, value]) => value).map(([name, value]) => [name, String(value)]));
  if (page.runs.length > 1) runsTable();
  if (move) { history.replaceState(null, "", `#${encodeURIComponent(run.name)}`); find("name").focus(); find("name").scrollIntoView(); }
}

function axisSwitch() {
  for (const [name, label] of Object.entries(AXES)) {
    const input = element("input", "", { type: "radio", name: "axis", value: name, checked: name === chosen.axis });
    input.onchange = () => { chosen.axis = name; drawRun(); };
    const box = element("label");
    box.append(input, ` ${label}`);
    find("axis").append(box);
  }
  scaleControls(find("axis"), chosen.scales, drawRun);
}

// The page -------------------------------------------------------------------------------------------------------
const count = page.runs.length, states = Map.groupBy ? Map.groupBy(page.runs, run => run.status) : new Map();
document.title = `${page.title}: fedbatch report`;
document.querySelector("h1").textContent = page.title;
find("made").textContent = [`${count} run${count > 1 ? "s" : ""}`, ...[...states].map(([name, runs]) => `${runs.length} ${name}`)].join(", ");
const live = page.again_after && page.runs.some(run => run.status === "running");
if (live) setTimeout(() => location.reload(), 1000 * page.again_after);  // a browser keeps the place that is read
const linked = location.hash.slice(1);
axisSwitch();
if (count > 1) study();
choose(page.runs.find(run => encodeURIComponent(run.name) === linked) || page.runs[0]);

// Charts have the width of the screen; paper is narrower.
const relayout = change => document.querySelectorAll(".chart").forEach(area => Plotly.relayout(area, { ...change, "font.color": colour("--ink") }));
addEventListener("beforeprint", () => relayout({ width: 680, autosize: false }));
addEventListener("afterprint", () => relayout({ width: null, autosize: true }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(chosen.run));
