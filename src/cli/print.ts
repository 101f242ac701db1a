/** Standard output of the commands. */

let watched = false;

/** Writes to standard output. Where its reader is gone (`tunrelay doctor | head -1`) there is nobody to tell. */
export function print(text: string): void {
  if (!watched) {
    watched = true;
    process.stdout.on("error", () => {});
  }
  process.stdout.write(text);
}
