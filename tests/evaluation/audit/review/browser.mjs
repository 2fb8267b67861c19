// Reviews a bank, and takes a blind test, in headless Chromium, as a person would; prints as JSON what it saw.
// node browser.mjs CHROMIUM REVIEW_URL BLIND_URL BIG_URL FOLDER
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [executablePath, reviewUrl, blindUrl, bigUrl, folder] = process.argv.slice(2);

const seen = { console: [], external: [], violations: [], widths: {}, steps: {} };
const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });

async function open(url, { width = 1280, colorScheme = "light" } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith("blob:")) seen.external.push(request.url());
  });
  await page.goto(url);
  await ready(page);
  return page;
}

const ready = (page) => page.waitForFunction(() => !document.getElementById("picture").hidden);
const said = (page) => page.textContent("#said");
const progress = (page) => page.textContent("#progress");
const waitFor = (page, text) => page.waitForFunction((wanted) => document.body.innerText.includes(wanted), text);

async function press(page, ...keys) {
  for (const key of keys) {
    await page.keyboard.press(key);
    await ready(page);
  }
}

async function audit(page, name) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run());
  for (const one of found.violations) seen.violations.push(`${name}: ${one.id}: ${one.nodes[0].html}`);
  seen.widths[name] = await page.evaluate(() => document.documentElement.scrollWidth);
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}

// By keyboard
let page = await open(reviewUrl);
seen.steps.first = await page.textContent("#which");
await press(page, "r");
await waitFor(page, "0 accepted, 1 rejected");
seen.steps.rejected = await said(page);
await press(page, "a");
await waitFor(page, "1 accepted, 1 rejected");
await press(page, "u");
await waitFor(page, "0 accepted, 1 rejected");
seen.steps.undone = await said(page);
await press(page, "ArrowRight", "ArrowRight", "ArrowLeft");
seen.steps.moved = await page.textContent("#which");
await press(page, "ArrowRight");
seen.steps.marked = await page.textContent("#marks");
await page.focus("#sheet");
await press(page, "End");
seen.steps.end = await page.getAttribute("#sheet", "aria-activedescendant");
seen.steps.label = await page.getAttribute(`#${seen.steps.end}`, "aria-label");
await press(page, "n");
seen.steps.open = await page.textContent("#which");
await page.uncheck("#keys");
await press(page, "r");
seen.steps.switchedOff = await progress(page);
await page.check("#keys");

// By mouse, while another browser decides too
const other = await open(reviewUrl, { width: 390, colorScheme: "dark" });
await page.click("#patch-5");
await ready(page);
await page.click('[data-letter="a"]');
await waitFor(page, "1 accepted, 1 rejected");
await other.click("#patch-6");
await ready(other);
await other.click('[data-letter="r"]');
await waitFor(other, "1 accepted, 2 rejected");
await waitFor(page, "1 accepted, 2 rejected"); // without being asked
await audit(page, "review-1280-light");
await audit(other, "review-390-dark");
await other.emulateMedia({ colorScheme: "light" });
await audit(other, "review-390-light");
await page.reload();
await ready(page);
seen.steps.reloaded = [await progress(page), await page.textContent("#which")];

// Ten thousand patches
page = await open(bigUrl);
seen.steps.cells = await page.locator(".patch").count();
await page.focus("#sheet");
await press(page, "End");
seen.steps.last = await page.textContent("#which");
seen.steps.cellsAtTheEnd = await page.locator(".patch").count();

// Blind
page = await open(blindUrl, { colorScheme: "dark" });
seen.steps.blind = await page.textContent("#title");
for (const key of ["r", "s", "r", "s"]) await press(page, key);
await waitFor(page, "Result");
seen.steps.score = await page.textContent("#score p");
seen.steps.disabled = await page.isDisabled('[data-letter="s"]');
await audit(page, "blind-1280-dark");

// Without the token
page = await browser.newPage();
const refused = await page.goto(reviewUrl.replace(/token=.*/, "token=wrong"));
seen.steps.refused = refused.status();

await browser.close();
console.log(JSON.stringify(seen));
