// One run, and the start of the page.

// Noise that follows from the seed protects nobody who knows it, and the seed stands on the page.
const fromTheSeed = privacy => privacy.follows_seed ? "; a study: the noise follows from the seed" : "";

function headline(run) {
  const s = run.summary, unit = s.noise_scale_unit || "", known = value => value !== undefined && value !== null;
  const entries = [
    ["status", run.status],
    ["rounds", final(run, "rounds")],
    [labelOfScore(scoreOf(run)), final(run, scoreOf(run)), byTheTest(run)],
    ["test loss", final(run, "test_loss")],
    ["noise scale", s.noise_scale, known(s.noise_scale) ? `${number(s.noise_scale_low)} to ${number(s.noise_scale_high)} ${unit}` : ""],
    ["epsilon", s.epsilon, s.privacy && `delta ${number(s.privacy.delta)}, ${s.privacy.unit} level${fromTheSeed(s.privacy)}`],
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
const linked = location.hash.slice(1);
axisSwitch();
if (count > 1) study();
choose(page.runs.find(run => encodeURIComponent(run.name) === linked) || page.runs[0]);
if (page.again_after) goOn(page.again_after);

// Charts have the width of the screen; paper is narrower.
const relayout = change => document.querySelectorAll(".chart").forEach(area => Plotly.relayout(area, { ...change, "font.color": colour("--ink") }));
addEventListener("beforeprint", () => relayout({ width: 680, autosize: false }));
addEventListener("afterprint", () => relayout({ width: null, autosize: true }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(chosen.run));
