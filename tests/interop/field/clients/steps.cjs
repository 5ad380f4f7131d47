// Shared by the JavaScript clients. steps.py describes plans and reports; this is the same in JavaScript.
//
// CommonJS, because it finds the frameworks by NODE_PATH, outside of this folder.
"use strict";

const fs = require("node:fs");
const { setTimeout } = require("node:timers/promises");

const PERSON = { name: "Ada \u2028 \u{1F469}", age: 36 };

async function within(seconds, promise, otherwise) {
  const abort = new AbortController();
  const limit = setTimeout(seconds * 1000, otherwise, { signal: abort.signal });
  limit.catch(() => {}); // The abort rejects it.
  return Promise.race([promise, limit]).finally(() => abort.abort());
}

function errorOutcome(error) {
  if (typeof error.code === "number") return { error: error.code, message: error.message };
  return { exception: String(error) };
}

async function runStep(framework, step, limit) {
  const { name, do: method, until, ...needs } = step;
  if (method === "together") {
    const calls = needs.calls.map((args) => framework.call({ tool: needs.tool, arguments: args }));
    return within(limit, Promise.all(calls), { hang: true }).catch(errorOutcome);
  }
  if (framework[method] === undefined) return { lacks: method };
  try {
    return (await within(limit, framework[method](needs), { hang: true })) ?? null;
  } catch (error) {
    return errorOutcome(error);
  }
}

const succeeded = (outcome) => !["error", "exception", "hang", "lacks"].some((key) => outcome?.[key] !== undefined);

// Return true if no further events are expected.
function heardAll(framework, step, events, seen) {
  if (seen.has(step.name)) return events.length >= seen.get(step.name);
  const until = step.until ?? [];
  if (until.length === 0 || !framework.hears.includes(until[0])) return true;
  return events.some((event) => until.every((part, index) => event[index] === part));
}

// Do all steps of a dialogue, also after failures. Record in `seen` how many events each step saw.
async function runDialogue(connect, dialogue, steps, limit, seen) {
  const report = { name: dialogue.name, steps: {}, complaints: [], failure: null };
  let events = [];
  try {
    const complain = (error) => report.complaints.push(String(error));
    const connecting = connect(dialogue, (...event) => events.push(event), complain);
    const framework = await within(limit, connecting, undefined);
    if (framework === undefined) throw new Error("it does not connect");
    for (const step of steps) {
      const outcome = await runStep(framework, step, limit);
      const end = performance.now() + (seen.has(step.name) ? limit * 500 : 1000);
      while (succeeded(outcome) && !heardAll(framework, step, events, seen) && performance.now() < end) {
        await setTimeout(5);
      }
      seen.set(step.name, events.length);
      report.steps[step.name] = { outcome, events };
      events = [];
    }
    await within(limit, framework.close(), undefined);
  } catch (error) {
    console.error(error);
    report.failure = errorOutcome(error);
  }
  return report;
}

// Read the plan, do all its dialogues, print their reports.
async function main(connect) {
  const plan = JSON.parse(fs.readFileSync(0, "utf8"));
  let seen = new Map();
  for (const dialogue of plan.dialogues) {
    if (dialogue.url !== undefined) seen = new Map();
    const report = await runDialogue(connect, dialogue, plan.steps, plan.limit, seen);
    fs.writeSync(1, `${JSON.stringify(report)}\n`);
  }
  process.exit();
}

module.exports = { PERSON, main };
