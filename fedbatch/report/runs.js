// The table of runs: sorted, filtered, marked for the comparisons, and as CSV.

const RESULTS = ["rounds", "examples", ...Object.keys(SCORES), "test_loss", "noise_scale", "epsilon", "simulated_seconds"];
const labelOfColumn = name => name.replaceAll("_", " ");
const columns = [
  { name: "run", value: run => run.name },
  { name: "status", value: run => run.status },
  ...differing.map(key => ({ name: RESULTS.includes(labelOf(key)) ? `${labelOf(key)} set` : labelOf(key), value: run => valueOf(run, key) })),
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
