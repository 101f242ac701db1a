// Removes compiled files whose TypeScript source is gone, so that neither tests nor packages see stale code.
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join, relative } from "node:path";

/** Deletes every output below `outDir` that has no source below `sourceDir`. */
export function prune(outDir, sourceDir) {
  if (!existsSync(outDir)) return;
  for (const entry of readdirSync(outDir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath ?? entry.path, entry.name);
    const stem = relative(outDir, path).replace(/(\.d\.ts|\.js)(\.map)?$/, "");
    if (!existsSync(join(sourceDir, `${stem}.ts`))) rmSync(path, { force: true });
  }
}
