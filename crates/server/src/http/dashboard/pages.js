// Swarm and log.

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

/** Rows of those who give, and of what they gave to whom: what is least of a thousand is nothing to look at. */
const GIVERS_MAX = 100;

export function swarm(main) {
  const share = h("strong");
  const [nodes, server, web, now] = [h("dd"), h("dd"), h("dd"), h("dd")];
  const flow = bands();
  const list = h("ol", { class: "givers" });
  const none = h("p", { class: "empty" }, "Nobody has given anything yet.");
  const gifts = h("ol", { class: "givers gifts" });
  const unsaid = h("p", { class: "empty" }, "No node has said yet from whom it has its image.");
  main.replaceChildren(h("h1", { class: "hidden" }, "Swarm"), h("div", { class: "flow" },
    h("section", { class: "panel share", "aria-label": "Who gave how much" }, h("h2", {}, "Given by nodes, not by the server"), share, flow.element,
      h("dl", { class: "facts" }, h("dt", {}, "Nodes gave"), nodes, h("dt", {}, "Server gave"), server, h("dt", {}, "Server now"), now, h("dt", {}, "Server over HTTP"), web),
      h("p", { class: "quiet" }, "Nodes say what they gave, and from whom they have the image of their present boot; the server counts since it started. HTTP carries phase 1, and images only to nodes that no peer answers.")),
    h("div", { class: "stack" },
      h("section", { class: "panel" }, h("div", { class: "section" }, h("h2", {}, "Who gives")), none, list),
      h("section", { class: "panel" }, h("div", { class: "section" }, h("h2", {}, "Who gives to whom")), unsaid, gifts))));

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
    unsaid.hidden = known.gifts.length > 0;
    drawGifts(gifts, known.gifts.slice(0, GIVERS_MAX));
  }
  draw();
  return subscribe(draw);
}

/** From whom to whom, and how much; a stranger is told by its address. */
function drawGifts(list, gifts) {
  const most = Math.max(1, ...gifts.map((gift) => gift.bytes));
  const name = (mac) => state.nodes.get(mac)?.name ?? mac;
  const node = (mac) => h("a", { href: `#/node/${mac}` });
  const make = (gift) => h("li", { class: gift.is_from_server ? "server" : null }, h("span", { class: "name" }, gift.from ? node(gift.from) : h("span"), " → ", node(gift.to)),
    h("span", { class: "bar", "aria-hidden": "true" }, h("i")), h("span", { class: "num" }), h("span", { class: "quiet" }));
  keyed(list, gifts, (gift) => `${gift.from_address} ${gift.to}`, make, (item, gift) => {
    const [from, to] = item.children[0].children;
    setText(from, gift.is_from_server ? "this server" : gift.from ? name(gift.from) : gift.from_address);
    setText(to, name(gift.to));
    setVariable(item.children[1].firstChild, "--p", (gift.bytes / most).toFixed(4));
    setText(item.children[2], bytes(gift.bytes));
    const all = state.nodes.get(gift.to)?.progress?.total_bytes;
    setText(item.children[3], all ? `${Math.round((gift.bytes / all) * 100)} % of its image` : "");
  });
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
