/** Charts without a library: bars for values, a histogram for a scale, dots for a map. Text is HTML, shapes are SVG. */

import { count, el, number, percent, svg } from "./dom.js";

/** Draws the most frequent values as bars; their shares are of `total`. */
export function valueBars(top, total) {
  const most = Math.max(...top.map(([, amount]) => amount));
  return el(
    "ol",
    { class: "value-bars" },
    ...top.map(([value, amount]) =>
      el(
        "li",
        { style: `--share: ${amount / most}` },
        el("span", { class: "value" }, value),
        el("span", { class: "value-bar", "aria-hidden": "true" }),
        el("span", { class: "value-count" }, number(amount), " ", el("small", {}, percent(amount / total))),
      ),
    ),
  );
}

/** Draws only the bars of a histogram, small enough for a line of text; as decoration, it is hidden from screen readers. */
export function spark(bins) {
  return histogramShape(bins, { class: "spark", "aria-hidden": "true" });
}

/** Draws a histogram that shows a bar's range and count: under the pointer, or with the arrow keys. */
export function histogram(bins, { name, unit }) {
  const tallest = bins.reduce((best, bin, index) => (bin.count > bins[best].count ? index : best), 0);
  const readout = el("p", { class: "readout" });
  const shape = histogramShape(bins, { class: "histogram" });
  const plot = el(
    "div",
    {
      class: "plot",
      role: "slider",
      tabindex: 0,
      "aria-label": `${name}: bars of the distribution`,
      "aria-valuemin": 0,
      "aria-valuemax": bins.length - 1,
    },
    shape,
  );
  let selected = null;

  const select = (index, lead = "") => {
    if (selected !== null) shape.children[selected].classList.remove("selected");
    selected = Math.max(0, Math.min(bins.length - 1, index));
    shape.children[selected].classList.add("selected");
    const words = `${range(bins[selected])}: ${count(bins[selected].count, unit)}`;
    readout.textContent = lead + words;
    plot.setAttribute("aria-valuenow", selected);
    plot.setAttribute("aria-valuetext", words);
  };
  plot.addEventListener("pointermove", (event) => {
    const { left, width } = plot.getBoundingClientRect();
    select(Math.floor(((event.clientX - left) / width) * bins.length));
  });
  plot.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -bins.length, End: bins.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    select(selected + steps[event.key]);
  });
  select(tallest, "most: ");

  const last = bins[bins.length - 1];
  const axis = el("p", { class: "axis", "aria-hidden": "true" }, el("span", {}, label(bins[0].from)), el("span", {}, label(last.to)));
  return el("div", { class: "histogram-box" }, readout, plot, axis);
}

/** Draws a histogram of what is known so far: as a picture, since another one will replace it soon. */
export function stillHistogram(bins, { name }) {
  const [from, to] = [label(bins[0].from), label(bins.at(-1).to)];
  const shape = histogramShape(bins, { class: "histogram", role: "img", "aria-label": `${name}: values from ${from} to ${to}` });
  const axis = el("p", { class: "axis", "aria-hidden": "true" }, el("span", {}, from), el("span", {}, to));
  return el("div", { class: "histogram-box" }, el("div", { class: "plot" }, shape), axis);
}

function histogramShape(bins, attributes) {
  const most = Math.max(...bins.map((bin) => bin.count));
  const bars = bins.map((bin, index) => {
    const height = bin.count === 0 ? 0 : Math.max(1.5, (bin.count / most) * 100); // one row in ten thousand is still visible
    return svg("rect", { x: index + 0.08, width: 0.84, y: 100 - height, height });
  });
  return svg("svg", { viewBox: `0 0 ${bins.length} 100`, preserveAspectRatio: "none", ...attributes }, ...bars);
}

const label = (value) => (typeof value === "number" ? number(value) : value);
const range = ({ from, to }) => (from === to ? label(from) : `${label(from)} to ${label(to)}`);

const SHADES = 5; // of dots, by the logarithm of a dot's number of rows

/** Draws a dot for each cell of the world that has rows. `cells`: [x, y, count] from the north-west corner. */
export function dotMap({ degrees, cells }, { name }) {
  const most = Math.max(...cells.map(([, , amount]) => amount));
  const paths = Array.from({ length: SHADES }, () => "");
  for (const [x, y, amount] of cells) {
    const shade = most > 1 ? Math.floor((Math.log(amount) / Math.log(most)) * (SHADES - 0.01)) : SHADES - 1;
    paths[shade] += `M${x + 0.5} ${y + 0.5}h0`; // a line of no length with round ends: a dot
  }
  const rows = cells.map(([, y]) => y);
  const columns = cells.map(([x]) => x);
  const [left, top] = [Math.min(...columns), Math.min(...rows)];
  const [width, height] = [Math.max(...columns) - left + 1, Math.max(...rows) - top + 1];
  return svg(
    "svg",
    { class: "dot-map", viewBox: `${left} ${top} ${width} ${height}`, role: "img", "aria-label": name, "data-degrees": degrees },
    ...paths.map((path, shade) => svg("path", { d: path, class: `shade-${shade + 1}` })),
  );
}
