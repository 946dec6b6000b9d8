// Several runs: what ran and what varies, and the controls of the comparisons.

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
