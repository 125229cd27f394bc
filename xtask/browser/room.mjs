// Watches a room boot: nodes come up by themselves, download before one's eyes, and end as booted; the page of one
// tells its whole way. Nothing is touched but one link.
//
//   node room.mjs BASE-URL NODES SECONDS FOLDER-FOR-SCREENSHOTS

import { watch } from "./browser.mjs";

const [base, count, seconds, shots] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4]), process.argv[5]];

await watch({ origins: [base], shots }, async ({ open, judge, check }) => {
  const page = await open(`${base}/`);
  const timeout = seconds * 1000;
  await page.waitForFunction((count) => document.querySelectorAll(".tile").length === count, count, { timeout });
  await page.waitForSelector(".tile[data-group=downloading]", { timeout });
  await page.screenshot({ path: `${shots}/room-downloading.png` });
  await page.waitForFunction((count) => document.querySelectorAll(".tile[data-group=booted]").length === count, count, { timeout });
  check((await page.locator(".figures dd").first().textContent()) === `${count}of ${count}`, "the figures count other nodes than the tiles");
  await judge(page, "a room that has booted");
  await page.screenshot({ path: `${shots}/room-booted.png` });
  await page.locator(".tile").first().click();
  await page.waitForSelector(".steps li");
  const steps = await page.locator(".steps .word").allTextContents();
  for (const stage of ["bootloader", "lease", "downloading", "booted"]) check(steps.includes(stage), `its timeline lacks ${stage}: ${steps}`);
  await judge(page, "a node that has booted");
  await page.screenshot({ path: `${shots}/room-node.png` });
  await page.click("[data-page=swarm]");
  // Whether a node gave depends on how far apart they started; the server always did.
  await page.waitForSelector(".givers li");
  // But each has said from whom it has its image.
  await page.waitForFunction((count) => new Set([...document.querySelectorAll(".gifts .name > :last-child")].map((to) => to.textContent)).size === count, count);
  const cut = await page.evaluate(() => [...document.querySelectorAll(".gifts .name")].filter((name) => name.scrollWidth > name.clientWidth).map((name) => name.textContent));
  check(cut.length === 0, `names are cut off: ${cut}`);
  await judge(page, "who gave to whom");
  await page.screenshot({ path: `${shots}/room-swarm.png` });
  return `${count} machines seen from their first request to ${steps.at(-1)}`;
});
