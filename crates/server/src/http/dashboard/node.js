// One node: what it waits for, the timeline of its boot, its boots before, what it is and what it said.

import { actions } from "./actions.js";
import { h } from "./dom.js";
import { get, state, subscribe } from "./state.js";
import { bytes, clock, day, duration, group, label, percent, plural, rate, span } from "./words.js";

export function node(main, which) {
  let timer = null;
  let isOver = false;
  let shown = "";
  let latest = null;
  // Drawn anew with each answer; the actions between them keep what is typed and chosen.
  const [head, body] = [h("div", { class: "stack" }), h("div")];
  const panel = actions(() => (latest ? [latest] : []));
  panel.element.hidden = true;
  main.replaceChildren(h("div", { class: "stack" }, head, panel.element, body));

  async function load() {
    clearTimeout(timer);
    try {
      const page = await get(`/v1/nodes/${encodeURIComponent(which)}`);
      if (isOver) return;
      const text = JSON.stringify(page);
      // Redrawn only if something is new: a selection, a scrolled log and the focus stay.
      if (text !== shown) {
        shown = text;
        document.title = `${label(page)} – BootTorrent`;
        latest = page;
        panel.element.hidden = false;
        panel.draw();
        head.replaceChildren(...top(page));
        body.replaceChildren(draw(page));
      }
    } catch (error) {
      if (isOver) return;
      shown = "";
      panel.element.hidden = true;
      head.replaceChildren(h("h1", {}, "Node"), h("p", { class: "empty panel" }, error.message));
      body.replaceChildren();
    }
    if (!isOver) timer = setTimeout(load, 2000);
  }

  let revision = null;
  const end = subscribe(() => {
    const known = state.nodes.get(which)?.revision;
    if (known !== revision) {
      revision = known;
      load();
    }
  });
  load();
  return () => {
    isOver = true;
    clearTimeout(timer);
    panel.end();
    end();
  };
}

function top(page) {
  const { why } = page;
  const bar = page.progress && h("p", { class: "quiet" }, `${percent(page)}: ${bytes(page.progress.verified_bytes)} of ${bytes(page.progress.total_bytes)} at ${rate(page.progress.rate_bytes_per_s)} from ${plural(page.progress.peer_count, "peer")}`);
  return [
    h("div", {}, h("a", { class: "back", href: "#/" }, "← Fleet"),
      h("div", { class: "title" }, h("h1", {}, label(page)), page.name && h("span", { class: "mono quiet" }, page.mac), page.address && h("span", { class: "mono quiet" }, page.address))),
    h("section", { class: `panel why ${why.is_late ? "late" : ""}`, "aria-label": "Why" },
      h("p", { class: "say" }, `${why.headline[0].toUpperCase()}${why.headline.slice(1)}.`),
      why.waits_for && h("p", {}, `It waits for ${why.waits_for}${why.is_late && !page.failure?.is_current && page.stage ? ", longer than it should" : ""}.`),
      why.cure && h("p", {}, h("b", {}, "What to do: "), why.cure),
      page.hearsay && h("p", { class: "hearsay" }, h("b", {}, "Hearsay: "), `${page.hearsay.text}.`), bar)];
}

function draw(page) {
  return h("div", { class: "columns" },
    h("div", { class: "stack" }, timeline("Timeline of this boot", page.timeline, page.boot_unix_ms), boots(page), events(page)),
    h("div", { class: "stack" }, facts(page), lastFailure(page), log(page)));
}

function timeline(title, steps, began) {
  const section = h("section", { class: "panel section" }, h("h2", {}, title));
  if (!steps.length) {
    section.append(h("p", { class: "quiet" }, "Nothing of it has been seen."));
    return section;
  }
  section.append(bars(steps, began));
  return section;
}

function bars(steps, began) {
  const start = Math.min(began || steps[0].unix_ms, steps[0].unix_ms);
  const last = steps.at(-1);
  const isOver = last.stage === "booted";
  const end = Math.max(isOver ? last.unix_ms : Date.now(), last.unix_ms, start + 1);
  return h("ol", { class: "steps" }, steps.map((step, index) => {
    const isNow = index === steps.length - 1;
    const took = step.took_ms ?? (isOver ? 0 : Date.now() - step.unix_ms);
    return h("li", { "data-group": group(step.stage), class: isNow ? "now" : null },
      h("span", { class: "word" }, step.failure ? `${step.failure} failed` : step.stage),
      h("span", { class: "at" }, clock(step.unix_ms)),
      h("span", { class: "span", "aria-hidden": "true" }, h("i", { "--from": ((step.unix_ms - start) / (end - start)).toFixed(4), "--for": (took / (end - start)).toFixed(4) })),
      h("span", { class: "took" }, isNow && isOver ? `+${span(step.unix_ms - start)}` : isNow ? `${duration(took)} …` : span(took)));
  }));
}

function boots(page) {
  if (!page.boots.length) return null;
  return h("section", { class: "panel section" }, h("h2", {}, "Boots before"),
    h("ol", { class: "past" }, page.boots.map((boot) => h("li", {}, h("time", { class: "quiet" }, day(boot.unix_ms)),
      h("details", {}, h("summary", {}, `${boot.stage}${boot.image ? ` ${boot.image}` : ""} `, boot.failure && h("b", { class: "bad" }, `${boot.failure} `), h("span", { class: "quiet" }, `after ${span(boot.took_ms)}`)),
        boot.timeline.length ? bars([...boot.timeline.slice(0, -1), { ...boot.timeline.at(-1), took_ms: 0 }], boot.unix_ms) : null)))));
}

function events(page) {
  return h("section", { class: "panel section" }, h("h2", {}, "What it did"),
    page.events.length ? h("ol", { class: "lines" }, page.events.map((event) => h("li", {}, h("time", { class: "quiet" }, clock(event.unix_ms)),
      h("span", {}, event.text, event.count > 1 && h("span", { class: "quiet" }, ` × ${event.count}`))))) : h("p", { class: "quiet" }, "Nothing yet."));
}

const STANDINGS = {
  known: "one of its nodes", pending: "unknown; boots like others", waiting: "unknown; waits to be accepted", ignored: "none of its nodes; gets no answer",
};

function facts(page) {
  const rows = [
    ["Ethernet address", page.mac], ["IP address", page.address], ["For the lab", STANDINGS[page.standing]],
    ["Image", page.image], ["Assigned", page.assigned ? (page.assigned.image ?? "its own disk") : null],
    ["Next boot only", page.next_boot ? (page.next_boot.image ?? "its own disk") : null], ["Firmware", [page.firmware, page.arch].filter(Boolean).join(", ")], ["UUID", page.uuid],
    ["Product", page.machine?.product], ["Serial number", page.machine?.serial_number],
    ["Processors", page.machine && [page.machine.processor_count, page.machine.processor].filter(Boolean).join(" × ")], ["Memory", page.machine && bytes(page.machine.memory_bytes)],
    ["Interface", page.machine?.interface && `${page.machine.interface}${page.machine.driver ? ` (${page.machine.driver})` : ""}`],
    ...(page.machine?.disks ?? []).map((disk) => [`Disk ${disk.name}`, [bytes(disk.size_bytes), disk.model].filter(Boolean).join(", ")]),
    ...(page.machine?.cards ?? []).map((card) => [`Card ${card.name}`,
      [card.mac, card.driver, card.mbit_per_s && `${card.mbit_per_s} Mbit/s`].filter(Boolean).join(", ")]),
    ["Kernel of phase 1", page.machine?.kernel], ["Agent", page.machine?.agent],
    ["Boots seen", page.boot_count], ["Gave to others", bytes(page.uploaded_bytes)],
    ["Last heard of", page.stage && `${clock(page.seen_unix_ms)}, ${day(page.seen_unix_ms)}`],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("section", { class: "panel section" }, h("h2", {}, "About it"), h("dl", { class: "facts" }, rows.flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, String(value))])));
}

function lastFailure({ failure }) {
  if (!failure || failure.is_current) return null;
  return h("section", { class: "panel section" }, h("h2", {}, "Last failure, over now"),
    h("p", {}, h("b", { class: "bad" }, `${failure.code} `), failure.what, h("span", { class: "quiet" }, `, ${day(failure.unix_ms)}`)),
    h("p", { class: "quiet" }, failure.reason), h("p", {}, failure.cure));
}

function log(page) {
  if (!page.log.length) return null;
  return h("section", { class: "panel section" }, h("h2", {}, "Log of its agent"), h("pre", { tabindex: 0, role: "region", "aria-label": "Log of its agent" }, page.log.join("\n")));
}
