// What every watcher needs: a browser, pages that tell of their faults, and axe.

import { createHash, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const AXE = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
// Generous: the machine also runs the server and its nodes.
const TIMEOUT = 60_000;
const WIDE = { width: 1440, height: 900, colorScheme: "light" };

/**
 * Has a browser do `work`, which returns what it has done. Its pages may ask `origins` and nobody else, and trust
 * `certificate` if there is one. Where it got stuck is on screenshots in the folder `shots`.
 */
export async function watch({ origins, certificate, shots }, work) {
  const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  if (certificate) {
    const key = new X509Certificate(readFileSync(certificate)).publicKey.export({ type: "spki", format: "der" });
    args.push(`--ignore-certificate-errors-spki-list=${createHash("sha256").update(key).digest("base64")}`);
  }
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args });
  const faults = [];
  const check = (isGood, text) => isGood || faults.push(text);

  /** A page in a context of its own. `expected` are problems that the page itself provokes. */
  async function open(url, { width, height, colorScheme } = WIDE, expected = []) {
    // The page's own policy would keep axe out, which is no part of it.
    const context = await browser.newContext({ viewport: { width, height }, colorScheme, bypassCSP: true });
    const page = await context.newPage();
    page.setDefaultTimeout(TIMEOUT);
    page.on("console", (message) => {
      const isExpected = expected.some((text) => message.text().includes(text));
      check(isExpected || !["error", "warning"].includes(message.type()), `${url}: console: ${message.text()}`);
    });
    page.on("pageerror", (error) => faults.push(`${url}: ${error.message}`));
    page.on("request", (request) => check(origins.some((origin) => request.url().startsWith(`${origin}/`)), `${url} asks ${request.url()}`));
    await page.goto(url);
    await page.waitForSelector("#live[data-live=yes]");
    return page;
  }

  /** Nothing reaches beyond the screen, and axe finds nothing. */
  async function judge(page, name) {
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    check(beyond <= 0, `${name}: ${beyond} pixels beyond the screen`);
    await page.evaluate(AXE);
    const { violations, passes } = await page.evaluate((rules) => axe.run({ runOnly: rules }), RULES);
    check(passes.length > 5, `${name}: axe looked at nothing`);
    for (const { id, nodes } of violations) faults.push(`${name}: axe: ${id}, ${nodes.length} times: ${nodes[0].failureSummary.replace(/\s+/g, " ")} ${nodes[0].html.slice(0, 160)}`);
  }

  let done = "stuck";
  try {
    done = await work({ open, judge, check, faults });
  } catch (error) {
    faults.push(error.stack);
    const pages = browser.contexts().flatMap((context) => context.pages());
    for (const [index, page] of pages.entries()) await page.screenshot({ path: `${shots}/stuck-${index}.png` });
  }
  await browser.close();
  for (const fault of faults) console.error(fault);
  console.log(`${done}, ${faults.length} faults`);
  process.exitCode = faults.length ? 1 : 0;
}
