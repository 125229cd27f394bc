// Swarm, images and log.

import { h, keyed, s, setAttribute, setText, setVariable } from "./dom.js";
import { state, subscribe } from "./state.js";
import { bytes, clock, day, percent, rate } from "./words.js";

/** What the server and the nodes gave, as bands into the nodes: as wide as it was much. */
function bands() {
  const [left, right, top, height, width] = [12, 308, 26, 150, 320];
  const part = (name) => ({ block: s("rect", { class: name, x: 0, width: left, rx: 2 }), band: s("path", { class: `${name} band` }), word: s("text", { x: left + 8 }), value: s("text", { x: left + 8, class: "quiet" }) });
  const [server, nodes] = [part("server"), part("nodes")];
  const all = s("rect", { class: "nodes", x: right, width: left, y: top, height, rx: 2 });
  const parts = [server, nodes];
  const element = s("svg", { class: "bands", viewBox: `0 0 ${width} ${top + height + 30}`, role: "img" },
    s("text", { x: 0, y: 13, class: "quiet" }, "gives"), s("text", { x: width, y: 13, class: "quiet", "text-anchor": "end" }, "nodes take"), parts.flatMap(({ band, block, word, value }) => [band, block, word, value]), all);
  const draw = (known) => {
    const given = [["this server", known.server_uploaded_bytes], ["nodes", known.nodes_uploaded_bytes]];
    const sum = given[0][1] + given[1][1];
    setAttribute(element, "aria-label", given.map(([who, count]) => `${who} gave ${bytes(count)}`).join(", "));
    element.style.display = sum ? "" : "none";
    let [from, to] = [top, top];
    parts.forEach(({ block, band, word, value }, index) => {
      const [who, count] = given[index];
      const share = sum ? (count / sum) * height : 0;
      setAttribute(block, "y", from);
      setAttribute(block, "height", Math.max(1, share));
      const middle = (left + right) / 2;
      setAttribute(band, "d", `M${left} ${from}C${middle} ${from} ${middle} ${to} ${right} ${to}V${to + share}C${middle} ${to + share} ${middle} ${from + share} ${left} ${from + share}Z`);
      const y = Math.max(from + share / 2 + 4, index ? from + 30 : from + 12);
      setAttribute(word, "y", y);
      setAttribute(value, "y", y + 16);
      setText(word, who);
      setText(value, bytes(count));
      from += share + 24;
      to += share;
    });
  };
  return { element, draw };
}

/** Rows of those who give: who gave least of a thousand is nothing to look at. */
const GIVERS_MAX = 100;

export function swarm(main) {
  const share = h("strong");
  const [nodes, server, web, now] = [h("dd"), h("dd"), h("dd"), h("dd")];
  const flow = bands();
  const list = h("ol", { class: "givers" });
  const none = h("p", { class: "empty" }, "Nobody has given anything yet.");
  main.replaceChildren(h("h1", { class: "hidden" }, "Swarm"), h("div", { class: "flow" },
    h("section", { class: "panel share", "aria-label": "Who gave how much" }, h("h2", {}, "Given by nodes, not by the server"), share, flow.element,
      h("dl", { class: "facts" }, h("dt", {}, "Nodes gave"), nodes, h("dt", {}, "Server gave"), server, h("dt", {}, "Server now"), now, h("dt", {}, "Server over HTTP"), web),
      h("p", { class: "quiet" }, "Each node says what others had from it in its present boot; the server counts since it started. HTTP carries phase 1, and images only to nodes that no peer answers.")),
    h("section", { class: "panel" }, h("div", { class: "section" }, h("h2", {}, "Who gives")), none, list)));

  function draw() {
    const known = state.swarm;
    if (!known) return;
    setText(share, known.server_share === null ? "–" : `${((1 - known.server_share) * 100).toFixed(1)} %`);
    setText(nodes, bytes(known.nodes_uploaded_bytes));
    setText(server, bytes(known.server_uploaded_bytes));
    setText(now, rate(known.server_upload_rate_bytes_per_s));
    setText(web, bytes(known.server_http_bytes));
    flow.draw(known);
    const givers = known.nodes.slice(0, GIVERS_MAX).map((node) => ({ ...node, id: node.mac, given: node.uploaded_bytes }));
    const rows = [{ id: "server", name: "this server", given: known.server_uploaded_bytes, isServer: true }, ...givers];
    const most = Math.max(1, ...rows.map((row) => row.given));
    none.hidden = known.nodes.length > 0 || known.server_uploaded_bytes > 0;
    const make = (row) => h("li", { class: row.isServer ? "server" : null }, row.isServer ? h("span", { class: "name" }) : h("a", { class: "name", href: `#/node/${row.mac}` }), h("span", { class: "bar", "aria-hidden": "true" }, h("i")), h("span", { class: "num" }), h("span", { class: "quiet" }));
    keyed(list, rows, (row) => row.id, make, (item, row) => {
      setText(item.children[0], row.name ?? row.mac);
      setVariable(item.children[1].firstChild, "--p", (row.given / most).toFixed(4));
      setText(item.children[2], bytes(row.given));
      const progress = row.verified_bytes !== null && row.verified_bytes !== undefined;
      setText(item.children[3], row.isServer ? "" : progress ? `takes, ${percent({ progress: row })}` : (row.stage ?? ""));
    });
  }
  draw();
  return subscribe(draw);
}

export function images(main) {
  const rows = h("tbody");
  const none = h("p", { class: "empty" }, "No image is published.");
  const heads = ["Image", "Name", "Version", "Size", "Nodes", "Server gave", "Peers", "Torrent"];
  const right = new Set(["Size", "Nodes", "Server gave", "Peers"]);
  main.replaceChildren(h("h1", { class: "hidden" }, "Images"), h("section", { class: "panel table", tabindex: 0, role: "region", "aria-label": "Images" },
    h("table", {}, h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col", class: right.has(text) ? "num" : null }, text)))), rows), none));
  function draw() {
    none.hidden = state.images.length > 0;
    const make = (image) => h("tr", {}, h("td", {}, h("b"), h("span", { class: "quiet" })), h("td", { class: "mono" }), h("td", {}, h("span", { class: "mono" }), h("span", { class: "quiet" })), ...[0, 0, 0, 0].map(() => h("td", { class: "num" })), h("td", {}, h("a", { href: image.torrent, download: "" }, `${image.name}.torrent`)));
    keyed(rows, state.images, (image) => image.name, make, (item, image) => {
      const cells = item.children;
      setText(cells[0].firstChild, image.title);
      setText(cells[0].lastChild, image.is_default ? "  default" : "");
      setText(cells[1], image.name);
      setText(cells[2].firstChild, image.infohash.slice(0, 12));
      setAttribute(cells[2].firstChild, "title", image.infohash);
      setText(cells[2].lastChild, image.retired_count ? "  older one still given" : "");
      setText(cells[3], bytes(image.len_bytes));
      setText(cells[4], String(image.node_count));
      setText(cells[5], bytes(image.uploaded_bytes));
      setText(cells[6], String(image.peer_count));
    });
  }
  draw();
  return subscribe(draw);
}

const looked = { text: "", isFailures: false };

export function log(main) {
  const list = h("ol", { class: "log panel", "aria-label": "What nodes did, latest first" });
  const none = h("p", { class: "empty panel" }, "Nothing has happened yet.");
  const search = h("input", { type: "search", id: "search", placeholder: "Search the log    /", "aria-label": "Search the log", value: looked.text, oninput: () => { looked.text = search.value.trim(); draw(); } });
  const failures = h("button", { type: "button", "data-group": "failed", onclick: () => { looked.isFailures = !looked.isFailures; draw(); } }, "failures only");
  main.replaceChildren(h("h1", { class: "hidden" }, "Log"), h("div", { class: "stack" }, h("div", { class: "tools", role: "search" }, search, h("div", { class: "chips" }, failures)), list, none));
  function draw() {
    const text = looked.text.toLowerCase();
    const lines = state.log.filter((line) => (!looked.isFailures || line.is_failure) && (!text || `${line.node} ${line.mac} ${line.text}`.toLowerCase().includes(text))).slice(-400).reverse();
    setAttribute(failures, "aria-pressed", looked.isFailures);
    list.hidden = lines.length === 0;
    none.hidden = lines.length > 0;
    const make = (line) => h("li", { class: line.is_failure ? "failed" : null }, h("time", { datetime: new Date(line.unix_ms).toISOString(), title: day(line.unix_ms) }, clock(line.unix_ms)), h("a", { class: "who", href: `#/node/${line.mac}` }, line.node), h("span", { class: "text" }, line.text));
    keyed(list, lines, (line) => `${line.number} ${line.unix_ms}`, make, () => {});
  }
  draw();
  return subscribe(draw);
}
