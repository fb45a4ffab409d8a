/** Makes elements, and writes numbers and units. */

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element; children are elements or text, never markup. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

/** "28,298", "1,190", "0.3333": integers and large values without a fraction, others with up to four digits. */
export function number(value) {
  return Number.isInteger(value) || Math.abs(value) >= 1000 ? whole.format(value) : short.format(value);
}

/** "3 rows", "1 row". */
export function count(amount, noun) {
  return `${number(amount)} ${noun}${amount === 1 ? "" : "s"}`;
}

/** "5 %", "under 1 %", "over 99 %": only a share of 1 is shown as 100 %. */
export function percent(share) {
  if (share > 0 && share < 0.01) return "under 1 %";
  if (share < 1 && share > 0.99) return "over 99 %";
  return `${Math.round(share * 100)} %`;
}

/** "3 ms", "1.2 s". */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** "9 s", "2 min 5 s", "3 min": of seconds that are an estimate, and so without fractions. */
export function seconds(amount) {
  const whole = Math.ceil(amount);
  const rest = whole < 180 && whole % 60 > 0 ? ` ${whole % 60} s` : "";
  return whole < 60 ? `${whole} s` : `${rest ? Math.floor(whole / 60) : Math.round(whole / 60)} min${rest}`;
}

/** "12 kB", "1.3 MB", "250 MB". */
export function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${bytes < 1e8 ? (bytes / 1e6).toFixed(1) : Math.round(bytes / 1e6)} MB`;
}
