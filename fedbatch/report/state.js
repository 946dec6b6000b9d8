// What the page is of, and what its reader has chosen.

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
