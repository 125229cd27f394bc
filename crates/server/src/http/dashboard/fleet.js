// The fleet: how many are where, what needs somebody, and every node as a tile or a row.

import { actions } from "./actions.js";
import { chart } from "./chart.js";
import { h, keyed, setAttribute, setText, setVariable } from "./dom.js";
import { state, subscribe } from "./state.js";
import { GROUPS, bytes, done, duration, group, label, percent, plural, rate, short, stageWord } from "./words.js";

/** Above so many nodes tiles are small: a room of 80 still fits on a screen with all its words. */
const LARGE_MAX = 80;

const ROW_HEIGHT = 36;
const ORDER = new Intl.Collator(undefined, { numeric: true });

/** Names as people count, before addresses, which are no numbers and stand in their own order. */
const byLabel = (a, b) => (a.name && b.name ? ORDER.compare(a.name, b.name) : Number(!a.name) - Number(!b.name) || (a.mac < b.mac ? -1 : Number(a.mac > b.mac)));

/** What is looked for; kept while other pages are looked at. */
const wanted = { text: "", group: null, image: "", view: "tiles", sort: "name", isDown: false };

/** The addresses of the nodes that something is to be done with; null while tiles and rows are links. */
let chosen = null;

const COLUMNS = [
  ["name", "Node", label],
  ["stage", "Stage", (node) => GROUPS.findIndex(([name]) => name === group(node.stage)) + (node.stage ?? "")],
  ["done", "Progress", (node) => done(node)],
  ["rate", "Rate", (node) => node.progress?.rate_bytes_per_s ?? -1],
  ["image", "Image", (node) => node.image ?? ""],
  ["since", "Since", (node) => -node.since_unix_ms],
  ["given", "Gave", (node) => node.uploaded_bytes],
  ["address", "Address", (node) => node.address ?? ""],
  ["failure", "Last failure", (node) => node.failure?.code ?? ""],
];

export function fleet(main) {
  const figures = summary();
  const throughput = chart();
  const attention = h("section", { class: "panel attention", "aria-label": "What needs somebody", hidden: true }, h("ul"));
  const arrivals = h("section", { class: "panel section", "aria-label": "Nodes that wait to be accepted", hidden: true }, h("h2"), h("p", { class: "who" }));
  const tools = toolbar(() => draw());
  const body = h("div");
  let inSight = [];
  const panel = actions(() => [...(chosen ?? [])].map((mac) => state.nodes.get(mac)).filter(Boolean));
  const pick = (macs) => {
    chosen = new Set(macs);
    draw();
  };
  const picked = h("p", { role: "status" });
  panel.element.prepend(h("div", { class: "buttons" }, picked,
    h("button", { type: "button", onclick: () => pick(inSight.map((node) => node.mac)) }, "All that are shown"),
    h("button", { type: "button", onclick: () => pick([]) }, "None")));
  const toggle = (event) => {
    const link = chosen && event.target.closest("[data-mac]");
    if (!link || (event.type === "keydown" && event.key !== " ")) return;
    event.preventDefault();
    if (!chosen.delete(link.dataset.mac)) chosen.add(link.dataset.mac);
    draw();
  };
  for (const kind of ["click", "keydown"]) body.addEventListener(kind, toggle);
  const found = h("p", { class: "hidden", role: "status" });
  main.replaceChildren(h("h1", { class: "hidden" }, "Fleet"), h("div", { class: "stack" },
    h("div", { class: "head" }, figures.element, throughput.element), attention, arrivals, tools.element, panel.element, found, body));
  let view = null;

  function draw() {
    // Who is left alone is none of the room, and found by who looks for it.
    const nodes = [...state.nodes.values()].filter((node) => node.standing !== "ignored" || wanted.text);
    figures.draw(nodes);
    throughput.draw(state.samples);
    problems(attention, nodes);
    newcomers(arrivals, nodes);
    tools.draw(nodes);
    const shown = nodes.filter(isWanted);
    inSight = shown;
    panel.element.hidden = !chosen;
    setText(picked, `${plural(chosen?.size ?? 0, "node")} chosen`);
    panel.draw();
    if (view?.kind !== wanted.view) {
      view = wanted.view === "tiles" ? tiles() : table(() => draw());
      body.replaceChildren(view.element);
    }
    view.draw(sorted(shown), nodes.length);
    setText(found, wanted.text || wanted.group || wanted.image ? plural(shown.length, "node") : "");
  }

  draw();
  const end = subscribe(draw);
  const tick = setInterval(draw, 1000);
  return () => {
    end();
    panel.end();
    clearInterval(tick);
  };
}

function isWanted(node) {
  if (wanted.group && group(node.stage) !== wanted.group) return false;
  if (wanted.image && node.image !== wanted.image) return false;
  if (!wanted.text) return true;
  const text = wanted.text.toLowerCase();
  return [node.name, node.mac, node.address, node.image, node.stage, node.failure?.code].some((field) => field?.toLowerCase().includes(text));
}

function sorted(nodes) {
  // Tiles stay where they are: a room is a map.
  const [, , of] = COLUMNS.find(([name]) => name === (wanted.view === "tiles" ? "name" : wanted.sort));
  const compare = (a, b) => {
    const [x, y] = [of(a), of(b)];
    if (of === label) return byLabel(a, b);
    return (typeof x === "number" ? x - y : ORDER.compare(x, y)) || byLabel(a, b);
  };
  nodes.sort(compare);
  if (wanted.view === "table" && wanted.isDown) nodes.reverse();
  return nodes;
}

function counts(nodes) {
  const of = Object.fromEntries(GROUPS.map(([name]) => [name, 0]));
  for (const node of nodes) of[group(node.stage)] += 1;
  return of;
}

function summary() {
  const [booted, all, downloading, failed, share] = [0, 0, 0, 0, 0].map(() => h("span"));
  const failedCell = h("dd", {}, failed);
  const [eta, ready] = [h("span"), h("span")];
  const bars = GROUPS.toReversed().map(([name]) => h("span", { "data-group": name }));
  const ratio = h("div", { class: "ratio", role: "img" }, bars);
  const cell = (term, ...value) => h("div", {}, h("dt", {}, term), ...value);
  const element = h("section", { class: "panel figures", "aria-label": "Nodes in figures" },
    h("dl", {}, cell("Booted", h("dd", {}, booted, h("small", {}, all))), cell("Downloading", h("dd", {}, downloading)),
      cell("Failed", failedCell), cell("Given by nodes", h("dd", {}, share, h("small", {}, "%")))),
    h("div", {}, h("p", { class: "eta quiet" }, eta, ready), ratio));
  const draw = (nodes) => {
    const of = counts(nodes);
    setText(booted, String(of.booted));
    setText(all, `of ${nodes.length}`);
    setText(downloading, String(of.downloading));
    setText(failed, String(of.failed));
    setAttribute(failedCell, "class", of.failed ? "bad" : null);
    const server = state.swarm?.server_share;
    setText(share, server === null || server === undefined ? "–" : String(Math.floor((1 - server) * 1000) / 10));
    setText(eta, expected(nodes));
    setText(ready, nodes.length ? `${Math.floor((of.booted / nodes.length) * 100)} % of the room is up` : "");
    for (const bar of bars) setVariable(bar, "--n", of[bar.dataset.group]);
    setAttribute(ratio, "aria-label", GROUPS.map(([name, word]) => `${of[name]} ${word}`).join(", "));
  };
  return { element, draw };
}

/** How long a download may be without a rate: peers are to be found, and the first pieces to come. */
const BEGINS_MS = 10000;

/** When the last image that is on its way will be whole, as its rate is now. */
function expected(nodes) {
  const loading = nodes.filter((node) => node.progress);
  if (!loading.length) return "No download is under way";
  const left = ({ progress }) => progress.total_bytes - progress.verified_bytes;
  const flows = (node) => !left(node) || node.progress.rate_bytes_per_s > 0;
  const still = loading.filter((node) => !flows(node) && Date.now() - node.since_unix_ms > BEGINS_MS);
  if (still.length) return `${plural(still.length, "download")} at a standstill`;
  const seconds = loading.filter(flows).map((node) => (left(node) ? left(node) / node.progress.rate_bytes_per_s : 0));
  if (!seconds.length) return `${plural(loading.length, "download")} just begun`;
  return `All have their image in about ${duration(Math.max(...seconds) * 1000)}`;
}

/** Failures by their code: one cure for all who have it. */
function problems(element, nodes) {
  const codes = new Map();
  for (const node of nodes) {
    if (!node.failure?.is_current) continue;
    codes.set(node.failure.code, [...(codes.get(node.failure.code) ?? []), node]);
  }
  element.hidden = codes.size === 0;
  const items = [...codes].sort();
  const make = () => h("li", {}, h("span", { class: "code" }), h("span", {}, h("b"), h("div", { class: "quiet" })), h("span", {}), h("span", { class: "who" }));
  keyed(element.firstChild, items, ([code]) => code, make, (item, [code, failed]) => {
    const { what, cure, reason } = failed[0].failure;
    setText(item.children[0], code);
    setText(item.children[1].firstChild, what);
    setText(item.children[1].lastChild, failed.length === 1 ? reason : plural(failed.length, "node"));
    setText(item.children[2], cure);
    const some = failed.slice(0, 3).map((node) => ({ href: `#/node/${node.mac}`, text: label(node) }));
    if (failed.length > 3) some.push({ href: "#/", text: `${failed.length - 3} more`, more: true });
    const link = (node) => h("a", { href: node.href, onclick: node.more && (() => { wanted.group = "failed"; }) });
    keyed(item.children[3], some, (node) => node.href, link, (a, node) => setText(a, node.text));
  });
}

/** Nodes that the lab does not name and that wait until somebody accepts them. */
function newcomers(element, nodes) {
  const waiting = nodes.filter((node) => node.standing === "waiting");
  element.hidden = waiting.length === 0;
  setText(element.firstChild, `${plural(waiting.length, "unknown node")} wait${waiting.length === 1 ? "s" : ""} to be accepted`);
  const link = (node) => h("a", { href: `#/node/${node.mac}`, class: "mono" });
  keyed(element.lastChild, waiting.slice(0, 12), (node) => node.mac, link, (a, node) => setText(a, node.mac));
}

function toolbar(changed) {
  const search = h("input", { type: "search", id: "search", placeholder: "Search nodes    /", "aria-label": "Search nodes", maxlength: 100, value: wanted.text,
    oninput: () => { wanted.text = search.value.trim(); changed(); } });
  const pick = (name) => { wanted.group = wanted.group === name ? null : name; changed(); };
  const chips = GROUPS.map(([name, word]) => h("button", { type: "button", "data-group": name, "aria-pressed": "false", onclick: () => pick(name) }, word, h("b")));
  const image = h("select", { "aria-label": "Image", onchange: () => { wanted.image = image.value; changed(); } }, h("option", { value: "" }, "All images"));
  const show = (view) => { wanted.view = view; changed(); };
  const views = [["tiles", "Tiles"], ["table", "Table"]].map(([name, word]) => h("button", { type: "button", "data-view": name, onclick: () => show(name) }, word));
  const choose = h("button", { type: "button", class: "choose", onclick: () => { chosen = chosen ? null : new Set(); changed(); } }, "Choose");
  const element = h("div", { class: "tools", role: "search" }, search, h("div", { class: "chips", role: "group", "aria-label": "Stage" }, chips), image,
    choose, h("div", { class: "switch", role: "group", "aria-label": "View" }, views));
  const draw = (nodes) => {
    const of = counts(nodes);
    for (const chip of chips) {
      setText(chip.lastChild, String(of[chip.dataset.group]));
      setAttribute(chip, "aria-pressed", wanted.group === chip.dataset.group);
      chip.hidden = of[chip.dataset.group] === 0 && wanted.group !== chip.dataset.group;
    }
    setAttribute(choose, "aria-pressed", chosen !== null);
    for (const view of views) setAttribute(view, "aria-pressed", wanted.view === view.dataset.view);
    const names = [...new Set([...state.images.map((one) => one.name), ...nodes.map((node) => node.image)])].filter(Boolean).sort();
    const options = ["", ...names];
    if (options.join("\n") !== [...image.options].map((option) => option.value).join("\n")) {
      image.replaceChildren(...options.map((name) => h("option", { value: name }, name || "All images")));
    }
    image.value = wanted.image;
    image.hidden = names.length < 2;
  };
  return { element, draw };
}

function tiles() {
  const list = h("ul", { class: "tiles", "aria-label": "Nodes" });
  const none = h("p", { class: "empty panel" });
  const element = h("div", {}, list, none);
  const make = (node) => h("li", {}, h("a", { class: "tile", href: `#/node/${node.mac}` },
    h("span", { class: "name" }), h("span", { class: "age" }), h("span", { class: "stage" }), h("span", { class: "rate" })));
  const draw = (nodes, count) => {
    const isSmall = nodes.length > LARGE_MAX;
    list.classList.toggle("small", isSmall);
    keyed(list, nodes, (node) => node.mac, make, (item, node) => tile(item.firstChild, node, isSmall));
    none.hidden = nodes.length > 0;
    setText(none, emptiness(count));
  };
  return { kind: "tiles", element, draw };
}

/** A link to its page; while nodes are chosen, a box to check. */
function choosable(link, node) {
  setAttribute(link, "data-mac", node.mac);
  setAttribute(link, "role", chosen ? "checkbox" : null);
  setAttribute(link, "aria-checked", chosen ? chosen.has(node.mac) : null);
}

function tile(element, node, isSmall) {
  choosable(element, node);
  const [name, age, stage, speed] = element.children;
  setText(name, isSmall && !node.name ? node.mac.slice(9) : label(node));
  name.classList.toggle("is-mac", !node.name);
  setAttribute(element, "data-group", group(node.stage));
  const words = node.stage === "downloading" ? percent(node) : node.failure?.is_current ? `${node.failure.code} failed` : stageWord(node);
  const isDownloading = group(node.stage) === "downloading";
  setVariable(element, "--p", isDownloading ? done(node).toFixed(3) : "0");
  if (isSmall) {
    setAttribute(element, "title", `${label(node)}: ${words}`);
    setAttribute(element, "aria-label", `${label(node)}: ${words}`);
    return;
  }
  setAttribute(element, "title", null);
  setAttribute(element, "aria-label", null);
  setText(age, node.stage ? short(Date.now() - node.since_unix_ms) : "");
  setText(stage, words);
  setText(speed, isDownloading ? rate(node.progress.rate_bytes_per_s) : (node.image ?? ""));
}

/** All nodes as rows, of which only those in sight are in the page. */
function table(changed) {
  const heads = COLUMNS.map(([name, word]) => h("th", { scope: "col" }, h("button", { type: "button", onclick: () => {
    wanted.isDown = wanted.sort === name && !wanted.isDown;
    wanted.sort = name;
    changed();
  } }, word)));
  const [above, below] = [0, 0].map(() => h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colspan: COLUMNS.length })));
  const rows = h("tbody");
  const element = h("div", { class: "panel scroll", tabindex: 0, role: "region", "aria-label": "Nodes" },
    h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, above), rows, h("tbody", {}, below)));
  let latest = [];
  let count = 0;
  element.addEventListener("scroll", () => requestAnimationFrame(() => draw(latest, count)), { passive: true });
  const make = () => h("tr", {}, h("td", {}, h("a")), h("td"), h("td", {}, h("span", { class: "bar" }, h("i")), h("span")), ...COLUMNS.slice(3).map(() => h("td")));
  const draw = (nodes, all) => {
    [latest, count] = [nodes, all];
    const first = Math.max(0, Math.floor(element.scrollTop / ROW_HEIGHT) - 10);
    const room = Math.ceil((element.clientHeight || 800) / ROW_HEIGHT) + 20;
    const part = nodes.slice(first, first + room);
    setVariable(above.firstChild, "--h", `${first * ROW_HEIGHT}px`);
    setVariable(below.firstChild, "--h", `${Math.max(0, nodes.length - first - part.length) * ROW_HEIGHT}px`);
    keyed(rows, part, (node) => node.mac, make, row);
    heads.forEach((head, index) => setAttribute(head, "aria-sort", wanted.sort === COLUMNS[index][0] ? (wanted.isDown ? "descending" : "ascending") : null));
  };
  return { kind: "table", element, draw };
}

function row(element, node) {
  const cells = element.children;
  const link = cells[0].firstChild;
  setAttribute(link, "href", `#/node/${node.mac}`);
  setText(link, label(node));
  choosable(link, node);
  setText(cells[1], stageWord(node));
  setAttribute(cells[1], "class", node.failure?.is_current ? "bad" : null);
  setVariable(cells[2].firstChild.firstChild, "--p", done(node).toFixed(3));
  setText(cells[2].lastChild, node.stage ? percent(node) : "");
  setText(cells[3], node.progress ? rate(node.progress.rate_bytes_per_s) : "");
  setText(cells[4], node.image ?? "");
  setText(cells[5], node.stage ? short(Date.now() - node.since_unix_ms) : "");
  setText(cells[6], node.uploaded_bytes ? bytes(node.uploaded_bytes) : "");
  setText(cells[7], node.address ?? "");
  setText(cells[8], node.failure ? `${node.failure.code} ${node.failure.what}` : "");
}

function emptiness(count) {
  if (count) return "No node is like that.";
  return state.isLive ? "No node has been seen yet. Switch one on, and let it boot from the network." : "";
}
