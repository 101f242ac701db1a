import { readFileSync } from "node:fs";

/** The version in package.json, which lies some folders above this file. */
export function readVersion(): string {
  for (let up = "../"; up.length <= 15; up += "../") {
    try {
      const text = readFileSync(new URL(`${up}package.json`, import.meta.url), "utf8");
      const manifest: unknown = JSON.parse(text);
      if (typeof manifest !== "object" || manifest === null || !("name" in manifest) || !("version" in manifest))
        continue;
      if (manifest.name === "tunrelay" && typeof manifest.version === "string") return manifest.version;
    } catch {
      // Not in this folder.
    }
  }
  return "unknown";
}
