"use strict";
const page = JSON.parse(find("data").textContent);
const differing = telling([...new Set(page.runs.flatMap(run => Object.keys(run.config)))].sort());
const chosen = { run: page.runs[0], axis: "rounds", sort: null, descending: false };

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
const columns = [
  { name: "run", value: run => run.name },
  { name: "status", value: run => run.status },
  ...differing.map(key => ({ name: labelOf(key), value: run => valueOf(run, key) })),
  ...RESULTS.filter(name => page.runs.some(run => final(run, name) !== null))
    .map(name => ({ name: name.replaceAll("_", " "), value: run => final(run, name) })),
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
    const name = element("button", run.name, { className: "run", onclick: () => choose(run, true) });
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
  find("shown").textContent = `${runs.length} of ${page.runs.length} runs`;
}

// A field of a CSV file. A text that a spreadsheet would take for a formula has a mark in front, for names are anybody's.
function field(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

const asCsv = runs => [columns.map(c => c.name), ...runs.map(run => columns.map(c => c.value(run)))].map(row => row.map(field).join(",") + "\n").join("");

// The comparison -------------------------------------------------------------------------------------------------
const choice = id => find(id).value;
function drawComparison() {
  const groups = groupsOf(visible().filter(run => (run.curves.rounds || []).length), choice("group"), differing);
  costsToTarget(find("to-target"), find("target-note"), groups, theScore(), Number(choice("target")));
  compare(find("comparison"), find("groups"), groups, { metric: choice("metric"), over: choice("over"), cost: choice("cost") });
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
  find("filter").oninput = () => { runsTable(); drawComparison(); };
  find("metric").onchange = () => { find("target").value = usualTarget(page.runs, theScore()) ?? ""; drawComparison(); };
  find("target").onchange = drawComparison;
  find("target").value = usualTarget(page.runs, theScore()) ?? "";
  find("csv").onclick = () => { find("csv").href = URL.createObjectURL(new Blob([asCsv(sorted(visible()))], { type: "text/csv" })); };
  whatRan();
  runsTable();
  drawComparison();
}

// The standard error of an accuracy by the number of test examples alone.
function byChance(run) {
  const n = run.summary.test_examples, p = final(run, "test_accuracy");
  return n && p !== null && scoreOf(run) === "test_accuracy" ? `± ${number(Math.sqrt(p * (1 - p) / n), 2)} by chance, of ${number(n)} test examples` : "";
}

// One run --------------------------------------------------------------------------------------------------------
function headline(run) {
  const s = run.summary, unit = s.noise_scale_unit || "", known = value => value !== undefined && value !== null;
  const entries = [
    ["status", run.status],
    ["rounds", final(run, "rounds")],
    [labelOfScore(scoreOf(run)), final(run, scoreOf(run)), byChance(run)],
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
  for (const each of CHARTS) {
    const drawn = each(chosen.run, chosen.axis);
    if (drawn) chart(find("charts"), drawn);
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
