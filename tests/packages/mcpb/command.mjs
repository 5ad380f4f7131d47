// Prints the command of a bundle as a host starts it, in JSON: the host's own code replaces the variables.
//
//     node command.mjs PLATFORM FOLDER ANSWERS
//
// PLATFORM is darwin, linux or win32; FOLDER has the unpacked bundle; ANSWERS is a JSON object with what the user filled
// in.
import fs from "node:fs";
import path from "node:path";

const [platform, folder, answers] = process.argv.slice(2);
Object.defineProperty(process, "platform", { value: platform });
const { getMcpConfigForManifest } = await import("@anthropic-ai/mcpb");
const command = await getMcpConfigForManifest({
  manifest: JSON.parse(fs.readFileSync(path.join(folder, "manifest.json"), "utf8")),
  extensionPath: folder,
  systemDirs: {},
  userConfig: JSON.parse(answers),
  pathSeparator: path.sep,
});
console.log(JSON.stringify(command ?? null));
