// A page of runs that are under way is loaded again and again; what its reader has chosen stays.

const controls = () => [...document.querySelectorAll("select, input")].filter(each => !find("runs").contains(each));

function keep() {
  const values = controls().map(each => [each.value, each.checked]), without = [...chosen.without].map(run => run.name);
  sessionStorage.setItem(location.pathname, JSON.stringify({ values, without, run: chosen.run.name }));
}

// As `keep` left it, as far as it is still there; the first time there is nothing.
function restore() {
  const kept = JSON.parse(sessionStorage.getItem(location.pathname) || "null"), named = name => page.runs.find(run => run.name === name);
  if (!kept || kept.values.length !== controls().length) return;
  chosen.without = new Set(kept.without.map(named).filter(Boolean));
  controls().forEach((control, i) => {
    const [value, checked] = kept.values[i];
    if (control.value === value && control.checked === checked) return;
    Object.assign(control, { value, checked });
    if (control.type !== "radio" || checked) control.dispatchEvent(new Event(control.type === "search" ? "input" : "change"));
  });
  if (named(kept.run)) choose(named(kept.run));
}

function goOn(seconds) {
  restore();
  addEventListener("pagehide", keep);
  if (page.runs.some(run => run.status === "running")) setTimeout(() => location.reload(), 1000 * seconds);
}
