// Charts, drawn by Chart.js; each has a legend of buttons and its numbers as a table.
const SHAPES = ["circle", "rect", "triangle", "rectRot", "down"];
const MARKS = 8;  // points with a shape on a long curve

const seriesColor = (number) => color(`s${number % 8}`);
const shapeOf = (number) => SHAPES[number % SHAPES.length];

function swatch(number) {
  const paths = {
    circle: "M6 2a4 4 0 1 1 0 8a4 4 0 1 1 0-8z", rect: "M2.5 2.5h7v7h-7z", triangle: "M6 1.5l4.7 8.5H1.3z",
    rectRot: "M6 .8L11.2 6L6 11.2L.8 6z", down: "M6 10.5L1.3 2h9.4z",
  };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of [["width", 12], ["height", 12], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  path.setAttribute("d", paths[shapeOf(number)]);
  path.setAttribute("style", `fill: var(--s${number % 8})`);
  svg.append(path);
  return svg;
}

function tick(value) {
  const size = Math.abs(value);
  if (size >= 1e4) return value.toLocaleString("en-US", { notation: "compact", maximumFractionDigits: 1 });
  if (size !== 0 && size < 1e-3) return value.toExponential(0);
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

// Some room around the points and their bars, but none beyond 0 and 1 for what cannot be there.
function pad(scale, isDown) {
  const { data, config } = scale.chart;
  const sets = data.datasets.filter((set, number) => scale.chart.isDatasetVisible(number));
  const [key, ends] = isDown ? ["x", "xEnds"] : ["y", "yEnds"];
  const values = sets.flatMap((set) => set.data.flatMap((raw) => [raw[key], ...(raw[ends] || [])])).filter((value) => value !== null);
  if (!values.length) return;
  const [min, max] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  let room = (max - min) * (isDown ? 0.06 : 0.04);
  if (min === max) room = Math.abs(max) / 10 || 1;
  else if (isDown && config.type === "line") room = 0;
  scale.min = min >= 0 ? Math.max(0, min - room) : min - room;
  scale.max = !isDown && min >= 0 && min < max && max <= 1 ? Math.min(1, max + room) : max + room;
}

// Round numbers within an axis.
function niceTicks(min, max, isLog) {
  const ticks = [];
  if (isLog) {
    const decades = Math.log10(max / min);
    const heads = decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 2, 3, 5, 7];
    const every = Math.max(1, Math.ceil(decades / 7));
    for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max); power += 1) {
      if (power % every === 0) ticks.push(...heads.map((head) => head * 10 ** power));
    }
  } else {
    const rough = (max - min) / 6 || 1;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 5, 10].find((head) => head * unit >= rough * 0.999);
    for (let n = Math.ceil(min / step - 1e-9); n * step <= max * (1 + 1e-9); n += 1) ticks.push(n * step + 0); // -0 becomes 0
  }
  return ticks.filter((value) => value >= min * (1 - 1e-9) && value <= max * (1 + 1e-9));
}

function axis(title, isLog, isDown) {
  return {
    type: isLog ? "logarithmic" : "linear",
    title: { display: true, text: title, color: color("quiet"), font: { size: 12 } },
    grid: { color: color("line"), drawTicks: false },
    border: { color: color("line") },
    bounds: isDown ? "data" : "ticks",
    ticks: {
      color: color("quiet"), padding: 8, maxRotation: 0, autoSkipPadding: 16, maxTicksLimit: isDown ? 7 : 6,
      font: { size: 11 },
      callback: tick,
    },
    afterDataLimits(scale) {
      if (!isLog) pad(scale, isDown);
      else if (isDown) [scale.min, scale.max] = [scale.min / 1.2, scale.max * 1.2];
    },
    afterBuildTicks(scale) {
      if (isLog || isDown) scale.ticks = niceTicks(scale.min, scale.max, isLog).map((value) => ({ value }));
    },
    // One width for all, so that charts below each other begin at the same place.
    afterFit(scale) { if (!isDown) scale.width = Math.max(scale.width, 62); },
  };
}

const shapeOptions = (number) => ({
  pointStyle: shapeOf(number) === "down" ? "triangle" : shapeOf(number),
  pointRotation: shapeOf(number) === "down" ? 180 : 0,
});

function curveSets(spec) {
  return spec.lines.map((line, number) => {
    const count = line.x.length;
    const every = Math.max(1, Math.ceil(count / MARKS));
    const isMarked = (index) => !spec.stepped && (count <= 30 || (spec.lines.length > 1 && index % every === Math.floor(every / 2)));
    return {
      label: line.name,
      group: number,
      data: line.x.map((x, index) => ({ x, y: spec.isLog && !(line.y[index] > 0) ? null : line.y[index] })),
      borderColor: seriesColor(number), backgroundColor: seriesColor(number),
      borderWidth: 1.75, stepped: spec.stepped ? "before" : false, tension: 0, spanGaps: false,
      pointRadius: ({ dataIndex }) => (isMarked(dataIndex) ? 3.5 : 0),
      pointHoverRadius: 5, pointHitRadius: 6,
      ...shapeOptions(number),
    };
  });
}

function scatterSets(spec) {
  const [x, y] = [spec.x.key, spec.y.key];
  const mean = (point, key) => (point.values[key] ? point.values[key][0] : null);
  const known = spec.points.filter((point) => mean(point, x) !== null && mean(point, y) !== null);
  const fits = (value) => !spec.isLog || value > 0;
  const sets = spec.groups.map((name, number) => ({
    label: name, group: number, showLine: false,
    data: known.filter((point) => point.group === number && fits(mean(point, y))).map((point) => ({
      x: mean(point, x), y: mean(point, y), point,
      xEnds: point.values[x].slice(1), yEnds: point.values[y].slice(1),
    })),
    borderColor: seriesColor(number), borderWidth: 2,
    backgroundColor: ({ raw }) => (raw && raw.point.hollow ? color("card") : seriesColor(number)),
    pointBackgroundColor: ({ raw }) => (raw && raw.point.hollow ? color("card") : seriesColor(number)),
    pointRadius: 5, pointHoverRadius: 7, pointBorderWidth: 2,
    ...shapeOptions(number),
  }));
  if (spec.xs.length === 1) {
    const best = known.filter((point) => point.frontier.includes(y) && fits(mean(point, y)));
    best.sort((a, b) => mean(a, x) - mean(b, x));
    sets.push({
      label: "frontier", group: null, showLine: true, order: 1, pointRadius: 0, pointHitRadius: 0, pointHoverRadius: 0,
      data: best.map((point) => ({ x: mean(point, x), y: mean(point, y), point })),
      borderColor: color("quiet"), borderWidth: 1.5, borderDash: [5, 4],
    });
  }
  return sets;
}

// Bars from the least to the greatest value of a point.
const bars = {
  id: "bars",
  beforeDatasetsDraw(chart) {
    const { ctx, scales, chartArea } = chart;
    chart.data.datasets.forEach((set, number) => {
      if (!chart.isDatasetVisible(number)) return;
      ctx.save();
      ctx.beginPath();
      ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
      ctx.clip();
      ctx.strokeStyle = set.borderColor;
      ctx.lineWidth = 1.5;
      ctx.beginPath();
      for (const raw of set.data) {
        if (raw.yEnds && raw.yEnds.length) {
          const at = scales.x.getPixelForValue(raw.x);
          ctx.moveTo(at, scales.y.getPixelForValue(raw.yEnds[0]));
          ctx.lineTo(at, scales.y.getPixelForValue(raw.yEnds[1]));
        }
        if (raw.xEnds && raw.xEnds.length) {
          const at = scales.y.getPixelForValue(raw.y);
          ctx.moveTo(scales.x.getPixelForValue(raw.xEnds[0]), at);
          ctx.lineTo(scales.x.getPixelForValue(raw.xEnds[1]), at);
        }
      }
      ctx.stroke();
      ctx.restore();
    });
  },
};

// Values that span more than a factor of ten are told apart on a logarithmic axis alone.
function isWide(spec) {
  const values = spec.points.map((point) => point.values[spec.x.key]).filter(Boolean).map(([mean]) => mean);
  return Math.min(...values) > 0 && Math.max(...values) > 10 * Math.min(...values);
}

function range(values) {
  if (!values) return "-";
  const [mean, low, high] = values;
  return low === undefined || low === high ? shown(mean) : `${shown(mean)} (${shown(low)} to ${shown(high)})`;
}

function tooltipOf(spec) {
  const callbacks = spec.kind === "curves"
    ? {
        title: (items) => (items.length ? `${spec.x} ${shown(items[0].raw.x)}` : ""),
        label: (item) => `${item.dataset.label}: ${shown(item.raw.y)}`,
        labelPointStyle: (item) => ({ pointStyle: item.dataset.pointStyle, rotation: item.dataset.pointRotation }),
      }
    : {
        title: (items) => items.map((item) => item.raw.point.name).join("\n"),
        label: ({ raw }) => [`${spec.y.title}: ${range(raw.point.values[spec.y.key])}`, `${spec.x.title}: ${range(raw.point.values[spec.x.key])}`],
        footer: (items) => items.map((item) => item.raw.point.note).filter(Boolean),
        labelPointStyle: (item) => ({ pointStyle: item.dataset.pointStyle, rotation: item.dataset.pointRotation }),
      };
  return {
    usePointStyle: true, boxPadding: 4, padding: 10, cornerRadius: 6, caretPadding: 8,
    backgroundColor: color("ink"), titleColor: color("paper"), bodyColor: color("paper"), footerColor: color("paper"),
    filter: (item) => item.dataset.group !== null, callbacks,
  };
}

function optionsOf(spec) {
  const isCurves = spec.kind === "curves";
  return {
    responsive: true, maintainAspectRatio: false, animation: false, parsing: false, normalized: isCurves,
    interaction: isCurves ? { mode: "nearest", axis: "x", intersect: false } : { mode: "nearest", axis: "xy", intersect: true },
    scales: {
      x: axis(isCurves ? spec.x : spec.x.title, spec.isLogX, true),
      y: axis(isCurves ? spec.y : spec.y.title + (spec.y.better && `, ${spec.y.better} is better`), spec.isLog, false),
    },
    plugins: { legend: { display: false }, tooltip: tooltipOf(spec) },
  };
}

function numbersOf(spec) {
  if (spec.kind === "curves") {
    const rows = new Map();
    spec.lines.forEach((line, number) => line.x.forEach((x, index) => {
      if (!rows.has(x)) rows.set(x, new Array(spec.lines.length).fill(null));
      rows.get(x)[number] = line.y[index];
    }));
    const sorted = [...rows].sort(([a], [b]) => a - b);
    return [[spec.x, ...spec.lines.map((line) => line.name)], sorted.map(([x, values]) => [x, ...values])];
  }
  const axes = [...spec.xs, ...spec.ys];
  const rows = spec.points.map((point) => [point.name, spec.groups[point.group], ...axes.map(({ key }) => point.values[key]), point.note || null]);
  return [["point", "kind", ...axes.map(({ title }) => title), "note"], rows];
}

function numbersTable(spec) {
  const [heads, rows] = numbersOf(spec);
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, make("button", { type: "button" }, head))))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((value) => {
      const number = Array.isArray(value) ? value[0] : value;
      const isWord = typeof number === "string";
      const text = isWord ? number : Array.isArray(value) ? range(value) : shown(value);
      return make("td", { class: isWord ? (text.length > 20 ? "long" : "") : "number", "data-value": number }, text);
    })))));
  prepareTable(table);
  return table;
}

function chooser(label, axes, change) {
  const select = make("select", { "aria-label": label }, ...axes.map(({ title }, index) => make("option", { value: index }, title)));
  select.addEventListener("change", () => change(axes[Number(select.value)]));
  return select;
}

// Arrow keys go from point to point.
function walk(chart, event, spoken) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const points = chart.data.datasets.flatMap((set, datasetIndex) =>
    set.group === null || !chart.isDatasetVisible(datasetIndex) ? [] : set.data.map((raw, index) => ({ datasetIndex, index, raw })))
    .filter(({ raw }) => raw.y !== null);
  if (!points.length) return;
  const [active] = chart.getActiveElements();
  const now = active ? points.findIndex((each) => each.datasetIndex === active.datasetIndex && each.index === active.index) : -1;
  const next = points[(now + step + points.length) % points.length];
  const element = chart.getDatasetMeta(next.datasetIndex).data[next.index];
  chart.setActiveElements([next]);
  chart.tooltip.setActiveElements([next], { x: element.x, y: element.y });
  chart.update("none");
  spoken.textContent = [...chart.tooltip.title, ...chart.tooltip.body.flatMap(({ lines }) => lines), ...chart.tooltip.footer].join(", ");
}

function drawChart(spec) {
  spec.isLog = spec.log === "on";
  if (spec.kind === "scatter") {
    [spec.x, spec.y] = [spec.xs[0], spec.ys[0]];
    spec.isLogX = isWide(spec);
  }
  const canvas = make("canvas", { tabindex: 0, role: "img" });
  const head = make("div", { class: "head" }, make("h4", { class: "title" }, spec.title));
  const legend = make("ul", { class: "legend", "aria-label": "Series" });
  const spoken = make("span", { class: "hidden", "aria-live": "polite" });
  const details = make("details", {}, make("summary", {}, "Numbers"));
  const card = make("figure", { class: "chart" }, head, make("div", { class: "plot" }, canvas), legend, details, spoken);
  const setsOf = () => (spec.kind === "curves" ? curveSets(spec) : scatterSets(spec));
  const chart = () => Chart.getChart(canvas);
  const update = () => {
    const current = chart();
    const hidden = current.data.datasets.map((set, index) => !current.isDatasetVisible(index));
    current.data.datasets = setsOf();
    current.options = optionsOf(spec);
    hidden.forEach((isHidden, index) => current.setDatasetVisibility(index, !isHidden));
    current.update("none");
    name();
  };
  const name = () => {
    const [x, y] = spec.kind === "curves" ? [spec.x, spec.y] : [spec.x.title, spec.y.title];
    canvas.setAttribute("aria-label", `${spec.title}: ${y} over ${x}. Arrow keys go through the points; the numbers are in a table below.`);
  };
  if (spec.kind === "scatter") {
    const xLog = make("button", { type: "button", "aria-label": `${spec.title}: logarithmic horizontal axis` }, "log x");
    const setLog = (isLog) => { spec.isLogX = isLog; xLog.setAttribute("aria-pressed", String(isLog)); };
    setLog(spec.isLogX);
    xLog.addEventListener("click", () => { setLog(!spec.isLogX); update(); });
    const choose = (chosen) => { spec.x = chosen; setLog(isWide(spec)); update(); };
    if (spec.xs.length > 1) head.append(chooser(`${spec.title}: horizontal axis`, spec.xs, choose));
    head.append(xLog);
  }
  if (spec.log) {
    const log = make("button", { type: "button", "aria-pressed": String(spec.isLog), "aria-label": `${spec.title}: logarithmic` }, "log");
    log.addEventListener("click", () => { spec.isLog = !spec.isLog; log.setAttribute("aria-pressed", String(spec.isLog)); update(); });
    head.append(log);
  }
  const series = spec.kind === "curves" ? spec.lines.map((line) => line.name) : spec.groups;
  if (series.length > 1) {
    series.forEach((label, number) => {
      const button = make("button", { type: "button", "aria-pressed": "true" }, swatch(number), label);
      button.addEventListener("click", () => {
        const isShown = !chart().isDatasetVisible(number);
        chart().setDatasetVisibility(number, isShown);
        chart().update("none");
        button.setAttribute("aria-pressed", String(isShown));
      });
      legend.append(make("li", {}, button));
    });
  } else {
    legend.remove();
  }
  details.addEventListener("toggle", () => {
    if (details.open && !details.querySelector("table")) {
      details.append(make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${spec.title}: numbers` }, numbersTable(spec)));
    }
  });
  canvas.addEventListener("keydown", (event) => walk(chart(), event, spoken));
  redraw.push(update);
  name();
  return [card, () => new Chart(canvas, { type: spec.kind === "curves" ? "line" : "scatter", data: { datasets: setsOf() }, options: optionsOf(spec), plugins: [bars] })];
}

Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
for (const place of document.querySelectorAll(".charts")) {
  const specs = page.blocks[Number(place.dataset.block)];
  const drawn = specs.map(drawChart);
  place.classList.toggle("large", specs.some((spec) => spec.kind === "scatter"));
  place.append(...drawn.map(([card]) => card));
  for (const [, start] of drawn) start();
}
