// How fast bytes flow, over the last ten minutes.

import { h, s, setAttribute, setText } from "./dom.js";
import { clock, rate } from "./words.js";

const WIDTH = 600;
const HEIGHT = 100;
const SECONDS = 600;

/** The chart, and how to draw samples into it. */
export function chart() {
  const area = s("path", { class: "area" });
  const line = s("path", { class: "line" });
  const second = s("path", { class: "second" });
  const cursor = s("path", { class: "cursor" });
  const rules = [0.5, 100].map((y) => s("path", { class: "rule", d: `M0 ${y}H${WIDTH}` }));
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, rules, area, second, line, cursor);
  const most = h("span", { class: "most" });
  const [received, sent] = [h("b"), h("b")];
  const title = h("h2", {}, "Throughput");
  const ticks = h("div", { class: "ticks" }, ["10 min ago", "5 min ago", "now"].map((text) => h("span", {}, text)));
  const plot = h("div", { class: "plot" }, svg, most);
  const element = h("section", { class: "panel chart", "aria-label": "Throughput over the last ten minutes" },
    h("header", {}, title, h("span", { class: "key" }, "nodes receive", received), h("span", { class: "key second" }, "server sends", sent)), plot, ticks);
  let pointed = null;
  let latest = [];
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    pointed = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    draw(latest);
  });
  plot.addEventListener("pointerleave", () => {
    pointed = null;
    draw(latest);
  });

  const server = (sample) => sample.server_swarm_bytes_per_s + sample.server_http_bytes_per_s;

  function draw(samples) {
    latest = samples;
    const end = samples.at(-1)?.unix_ms ?? Date.now();
    const x = (sample) => WIDTH * (1 - (end - sample.unix_ms) / 1000 / SECONDS);
    const shown = samples.filter((sample) => x(sample) >= 0);
    const top = nice(Math.max(1000, ...shown.map((sample) => Math.max(sample.nodes_bytes_per_s, server(sample)))));
    const path = (value) => shown.map((sample, index) => `${index ? "L" : "M"}${x(sample).toFixed(1)} ${(HEIGHT * (1 - value(sample) / top)).toFixed(1)}`).join("");
    const first = path((sample) => sample.nodes_bytes_per_s);
    setAttribute(line, "d", first);
    setAttribute(second, "d", path(server));
    setAttribute(area, "d", shown.length ? `${first}L${WIDTH} ${HEIGHT}L${x(shown[0]).toFixed(1)} ${HEIGHT}Z` : "");
    setText(most, rate(top));
    const at = pointed === null ? samples.at(-1) : nearest(shown, (sample) => Math.abs(x(sample) - pointed * WIDTH));
    setText(received, rate(at?.nodes_bytes_per_s ?? 0));
    setText(sent, rate(at ? server(at) : 0));
    setText(title, pointed === null || !at ? "Throughput" : `Throughput at ${clock(at.unix_ms)}`);
    setAttribute(cursor, "d", pointed === null || !at ? "" : `M${x(at)} 0V${HEIGHT}`);
  }

  return { element, draw };
}

/** The next round number that is not below `value`. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

function nearest(samples, distance) {
  return samples.reduce((best, sample) => (best && distance(best) <= distance(sample) ? best : sample), null);
}
