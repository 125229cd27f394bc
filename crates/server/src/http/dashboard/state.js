// What is known, brought up to date by the server's events. Pages subscribe and draw at most once a
// frame, however much happens.

export const state = {
  nodes: new Map(),
  log: [],
  samples: [],
  server: null,
  images: [],
  swarm: null,
  isLive: false,
  problem: null,
};

const LOG_MAX = 1024;
const SAMPLES_MAX = 600;
const PAGES_MAX = 20;

const listeners = new Set();
let isDue = false;

/** Calls `draw` when something has changed; returns how to end that. */
export function subscribe(draw) {
  listeners.add(draw);
  return () => listeners.delete(draw);
}

function changed() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const draw of listeners) draw();
  });
}

export async function get(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, cache: "no-cache" });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.detail ?? `${path}: ${answer.status}`);
  return value;
}

/** All nodes, page by page. */
async function nodes() {
  const all = [];
  let next = "";
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await get(`/v1/nodes?limit=1000${next && `&after=${encodeURIComponent(next)}`}`);
    all.push(...answer.nodes);
    if (!answer.next) break;
    next = answer.next;
  }
  return all;
}

async function load() {
  const [all, log, throughput] = await Promise.all([nodes(), get("/v1/log?limit=1024"), get("/v1/throughput"), slow()]);
  const fresh = new Map(all.map((node) => [node.mac, node]));
  // An event that came while the list was on its way is newer than the list.
  for (const [mac, node] of fresh) {
    const known = state.nodes.get(mac);
    if (known && known.revision > node.revision) fresh.set(mac, known);
  }
  state.nodes = fresh;
  state.log = log.lines;
  state.samples = throughput.samples.slice(-SAMPLES_MAX);
  state.problem = null;
  changed();
}

/** What changes seldom, or is not told by events. */
async function slow() {
  const [server, images, swarm] = await Promise.all([get("/v1/server"), get("/v1/images"), get("/v1/swarm")]);
  Object.assign(state, { server, images: images.images, swarm });
  changed();
}

/** What has just been changed is not to be waited for. */
export const refresh = () => slow().catch(failed);

const on = {
  hello: () => {
    state.isLive = true;
    // Another run of the server counts its revisions anew.
    state.nodes = new Map();
    load().catch(failed);
  },
  nodes: (told) => {
    if (told.gone === null) load().catch(failed);
    for (const mac of told.gone ?? []) state.nodes.delete(mac);
    for (const node of told.nodes) state.nodes.set(node.mac, node);
  },
  log: (lines) => {
    const last = state.log.at(-1)?.number ?? 0;
    state.log.push(...lines.filter((line) => line.number > last));
    state.log.splice(0, Math.max(0, state.log.length - LOG_MAX));
  },
  sample: (sample) => {
    state.samples.push(sample);
    state.samples.splice(0, Math.max(0, state.samples.length - SAMPLES_MAX));
  },
};

function failed(error) {
  state.problem = error.message;
  changed();
}

/** Begins to listen, for as long as the page is there. */
export function listen() {
  const source = new EventSource("/v1/events");
  for (const [name, take] of Object.entries(on)) {
    source.addEventListener(name, (event) => {
      take(JSON.parse(event.data));
      changed();
    });
  }
  source.addEventListener("error", () => {
    state.isLive = false;
    changed();
    // A browser does not come again by itself after an answer that is none, such as 503.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
  if (!listen.isSlowOn) {
    listen.isSlowOn = true;
    setInterval(() => state.isLive && !document.hidden && slow().catch(failed), 3000);
  }
}
