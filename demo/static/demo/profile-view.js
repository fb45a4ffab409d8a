/** Draws the result of the task `profile-csv`: figures, charts, and a line for each column. */

import { dotMap, histogram, spark, stillHistogram, valueBars } from "./charts.js";
import { count, el, number, percent, size } from "./dom.js";

/** Draws the outputs of `profile-csv` as one element. */
export function profileView({ rows, problems, duplicates, duplicates_is_bound, columns, charts, report }) {
  const highlights = charts.highlights.map((name) => columns.find((column) => column.name === name));
  return el(
    "div",
    { class: "profile" },
    el("h3", { class: "hidden" }, "What the file holds"),
    figures({ rows, problems, duplicates, duplicates_is_bound, columns }),
    charts.places?.cells.length > 0 ? map(charts.places) : null,
    el("div", { class: "highlights" }, ...highlights.map(highlight)),
    el("div", { class: "columns-head" }, el("h3", {}, count(columns.length, "column")), download(report)),
    el("div", { class: "columns" }, ...columns.map((column) => columnLine(column, rows))),
  );
}

/** Draws a picture that `profile-csv` sends before its end: what some columns hold so far. */
export function pictureView({ rows, columns }) {
  return el(
    "div",
    { class: "profile picture" },
    el("h3", {}, `The first ${count(rows, "row")}`),
    el("div", { class: "highlights" }, ...columns.map(pictureOf)),
  );
}

function pictureOf(column) {
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("strong", {}, column.name), el("span", {}, "so far")),
    "histogram" in column ? stillHistogram(column.histogram, column) : valueBars(column.top, column.total),
  );
}

function download({ name, size: bytes, url }) {
  return el("a", { class: "download", href: url, download: name }, `Download the profile (JSON, ${size(bytes)})`);
}

function figures({ rows, problems, duplicates, duplicates_is_bound, columns }) {
  const figure = (amount, words, mood = null) =>
    el("div", { "data-mood": mood }, el("dt", {}, words), el("dd", {}, number(amount)));
  return el(
    "dl",
    { class: "figures" },
    figure(rows, "rows"),
    figure(columns.length, "columns"),
    figure(problems, "rows with problems", problems === 0 ? "good" : "bad"),
    figure(duplicates, duplicates_is_bound ? "duplicate rows found" : "duplicate rows", duplicates === 0 ? "good" : "odd"),
  );
}

function map(places) {
  const rows = places.cells.reduce((sum, [, , amount]) => sum + amount, 0);
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("strong", {}, "Where they are"), el("span", {}, `a dot for every ${places.degrees}° that has rows; a stronger dot has more`)),
    dotMap(places, { name: `A map of ${count(rows, "row")} in ${count(places.cells.length, "place")}` }),
  );
}

function highlight(column) {
  const isScale = "histogram" in column;
  const words = isScale ? "how its values spread" : `its ${Math.min(column.top.length, column.distinct)} most frequent values`;
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("strong", {}, column.name), el("span", {}, words)),
    isScale ? histogram(column.histogram, { name: column.name, unit: "row" }) : valueBars(column.top, total(column)),
  );
}

/** Draws one column: a line with the most important facts, which opens to show the rest. */
function columnLine(column, rows) {
  return el(
    "details",
    { class: "column" },
    el(
      "summary",
      {},
      el("span", { class: "column-name" }, column.name),
      el("span", { class: `kind kind-${column.kind}` }, kind(column)),
      el("span", { class: "gist" }, gist(column)),
      "histogram" in column ? spark(column.histogram) : el("span", { class: "spark" }),
    ),
    el("div", { class: "column-body" }, facts(column, rows), columnChart(column)),
  );
}

function kind(column) {
  if (column.count === 0) return "empty";
  return column.integers ? "whole number" : column.kind;
}

const total = (column) => column.count + column.missing + column.invalid;
const isUnique = (column) => column.distinct === column.count;
const scaleValue = (value) => (typeof value === "number" ? number(value) : value);

function gist(column) {
  if (column.count === 0) return "no value in any row";
  if ("min" in column) return `${scaleValue(column.min)} to ${scaleValue(column.max)}`;
  if (isUnique(column) && column.count > 1) return "no value twice";
  const [[value, amount]] = column.top;
  if (amount < total(column) / 20) return `${column.distinct_is_bound ? "more than " : ""}${number(column.distinct)} different values`;
  return `${value}, ${percent(amount / total(column))}`;
}

function facts(column, rows) {
  const distinct = `${column.distinct_is_bound ? "at least " : ""}${number(column.distinct)}`;
  const entries = [
    ["Values", `${number(column.count)} in ${count(rows, "row")}`],
    ["Missing", column.missing > 0 ? `${number(column.missing)}, ${percent(column.missing / total(column))}` : null],
    ["Not readable", column.invalid > 0 ? number(column.invalid) : null],
    ["Different values", isUnique(column) && column.count > 1 ? `${distinct}: no value twice` : distinct],
    ...(column.count > 0 ? kindFacts(column) : []),
  ];
  return el(
    "dl",
    { class: "facts" },
    ...entries.filter(([, value]) => value !== null).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

function kindFacts(column) {
  switch (column.kind) {
    case "number":
      return [
        ["Mean", number(column.mean)],
        ["Median", number(column.quartiles[1])],
        ["Middle half", `${number(column.quartiles[0])} to ${number(column.quartiles[2])}`],
        ["From, to", gist(column)],
        ["Estimated", column.estimated_from ? `median, middle half and chart, from ${number(column.estimated_from)} values` : null],
      ];
    case "date":
      return [["From, to", gist(column)]];
    case "text":
      return [
        ["Length", column.lengths[0] === column.lengths[1] ? count(column.lengths[0], "character") : `${column.lengths.join(" to ")} characters`],
        ["Shapes", isCode(column) ? column.shapes.map(([shape, amount]) => `${shape} (${percent(amount / column.count)})`).join(", ") : null],
        ["Perhaps the same", column.variants.length > 0 ? variants(column) : null],
      ];
    default:
      return [];
  }
}

/** True if a few patterns of capitals and digits cover most values: codes have such patterns, names do not. */
function isCode({ shapes, count: values }) {
  const covered = shapes.reduce((sum, [, amount]) => sum + amount, 0);
  return covered > values / 2 && shapes.some(([shape]) => shape.includes("9") || !shape.includes("a"));
}

function variants(column) {
  const more = column.variant_count - column.variants.length;
  const sets = column.variants.map((spellings) => spellings.map((spelling) => `“${spelling}”`).join(" and "));
  return `${sets.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}

function columnChart(column) {
  if (column.count === 0) return null;
  if ("histogram" in column) return histogram(column.histogram, { name: column.name, unit: "row" });
  return isUnique(column) && column.count > 1 ? null : valueBars(column.top, total(column));
}
