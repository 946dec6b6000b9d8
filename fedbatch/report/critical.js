// What one run says of other batches: sentences, two tables, and examples against rounds.

const between = ([low, high]) => `${number(low, 3)} to ${number(high, 3)}`;
const estimate = (value, bounds) => `${number(value, 3)} (${between(bounds)})`;

function goalsTable(table, { goals, unit }) {
  fill(table, ["loss", "rounds", "least rounds", `least ${unit}`, `B_crit, ${unit}`], goals.map(goal => row([
    number(goal.loss), number(goal.steps, 3), estimate(goal.s_min, goal.s_min_interval),
    estimate(goal.e_min, goal.e_min_interval), estimate(goal.b_crit, goal.b_crit_interval),
  ])));
}

function costsTable(table, { costs }) {
  fill(table, ["batch", "clients x each", "rounds", "examples", "sent", "seconds"], costs.flatMap(cost =>
    cost.ways.map(([clients, each, rounds, interval, examples, sent, seconds]) => row([
      number(clients * each, 4) + (cost.own ? " (this run)" : ""), `${number(clients, 3)} x ${number(each, 3)}`,
      estimate(rounds, interval), number(examples, 3), bytes(sent), number(seconds, 3),
    ]))));
}

function front({ loss, goals, costs }) {
  const colors = [PURPLE, "#A66F00", GREEN, BLUE].slice(-goals.length);
  const data = goals.flatMap((goal, i) => {
    const { rounds, low, high, batch } = goal, back = batch.map((_, k) => batch.length - 1 - k);
    const name = `${loss} ${number(goal.loss)}`;
    return [{
      x: [...low, ...back.map(k => high[k])], y: [...low.map((v, k) => v * batch[k]), ...back.map(k => high[k] * batch[k])],
      type: "scatter", mode: "lines", fill: "toself", fillcolor: colors[i] + "22", line: { width: 0 }, hoverinfo: "skip", showlegend: false,
    }, {
      x: rounds, y: rounds.map((v, k) => v * batch[k]), name, type: "scatter", mode: "lines", line: { color: colors[i], width: 2 },
      text: batch.map(b => `a batch of ${number(b, 3)}`), hovertemplate: "%{text}: %{x:.3s} rounds, %{y:.3s} examples",
    }];
  });
  data.push({
    x: costs.map(c => c.rounds), y: costs.map(c => c.examples), type: "scatter", mode: "markers+text", name: "batches", text: costs.map(c => number(c.batch)),
    textposition: "top right", marker: { color: colour("--paper"), size: 7, line: { color: BLUE, width: 1.5 } }, showlegend: false,
  });
  const own = goals.map(goal => goal.own).filter(Boolean);
  if (own.length) data.push({
    x: own.map(p => p[0]), y: own.map(p => p[1]), type: "scatter", mode: "markers", name: "this run", marker: { color: ORANGE, size: 10 },
  });
  const axis = text => values => ({ ...logAxis(values), title: { text } });
  return {
    id: "critical", title: "Examples against rounds to a loss", note: "predicted from this run alone; bands are 90 % intervals", data,
    layout: {
      xaxis: axis("rounds")(data.flatMap(trace => trace.x)), yaxis: axis("examples")(data.flatMap(trace => trace.y)),
    },
  };
}

function drawCritical(run) {
  const found = run.critical, box = find("critical-chart");
  clear(box);
  find("critical").hidden = !found;
  if (!found) return;
  const known = !found.reason;
  find("critical-text").textContent = known ? found.sentences.join(" ") : `This run does not say: ${found.reason}.`;
  find("critical-doubts").replaceChildren(...(found.doubts || []).map(text => element("li", `Not to be trusted as it is: ${text}.`)));
  for (const id of ["critical-goals", "critical-costs"]) find(id).hidden = !known;
  find("critical-lowest").textContent = known ? `To ${found.loss} ${number(found.goals.at(-1).loss)}, at the learning rate that suits each batch:` : "";
  if (!known) return;
  goalsTable(find("critical-goals"), found);
  costsTable(find("critical-costs"), found);
  chart(box, front(found));
}
